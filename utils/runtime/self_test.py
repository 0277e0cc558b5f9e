"""A test of the fused kernels against the reference, on a GPU on which nobody has measured them."""

import torch
from torch import Tensor

from models import DeblurringNet, ReblurringNet
from utils.runtime.precision import autocast, set_precision

# Of the norm of a difference over the norm of the reference. Right results have 1e-6 in fp32, and in bf16 0.01 and, as
# offsets move from one pixel to the next, 0.1.
_LIMITS = {"output": 0.05, "gradient": 0.3}
_LIMIT_IN_FP32 = 1e-3


def fused_kernels_fail(device: torch.device, width: int, precision: str, training: bool) -> str | None:
    """Return what is wrong with the fused kernels' results on a device, or None where nothing is.

    Both networks take a small image of odd size, with offsets beyond its border. Their outputs and, for training,
    gradients are compared with those of torchvision's operator and PyTorch's convolutions in fp32. They are as wide as
    those of the run, so that the kernels are the run's, which finds them compiled.

    Args:
        device: of the run; TF32 is left allowed or not as its precision wants it.
        width: of the deblurring network.
        precision: of the run, one of `utils.runtime.precision.PRECISIONS`.
        training: whether gradients are needed.
    """
    try:
        for kind, channels in ((DeblurringNet, width), (ReblurringNet, width // 2)):
            for what, error in _relative_errors(kind, channels, device, precision, training).items():
                limit = _LIMIT_IN_FP32 if precision == "fp32" else _LIMITS[what]
                if not error <= limit:
                    return f"{what} of {kind.__name__} in {precision}: off by {error:.1e}, {limit:g} is allowed"
    except Exception as error:  # whatever a compiler or a driver raises
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None


def _relative_errors(
    kind: type[DeblurringNet] | type[ReblurringNet], width: int, device: torch.device, precision: str, training: bool
) -> dict[str, float]:
    with torch.random.fork_rng([]):  # all is drawn on the CPU
        torch.manual_seed(0)
        network = kind(width)
        images = [(torch.rand(1, 3, 37, 50) * 2 - 1).to(device) for _ in range(2 if kind is ReblurringNet else 1)]
    for name, parameter in network.named_parameters():
        if ".offset_conv." in name:
            parameter.data.mul_(4)
    network.to(device).deform_op = "torchvision"
    set_precision("fp32", device)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(False)  # torchvision's gradients have no other form
        reference = _results(network, images, training)
    finally:
        torch.use_deterministic_algorithms(deterministic)
    network.deform_op = "fused"
    set_precision(precision, device)
    with autocast(precision, device):
        ours = _results(network, images, training)
    return {
        what: ((ours[what].double() - exact.double()).norm() / exact.double().norm()).item()
        for what, exact in reference.items()
    }


def _results(network: DeblurringNet | ReblurringNet, images: list[Tensor], training: bool) -> dict[str, Tensor]:
    """Return what the output changes in an image and, for training, the gradients of all parameters in one tensor."""
    with torch.no_grad():  # other kernels than with gradients
        results = {"output": network(*images) - images[0]}
    if training:
        torch.clear_autocast_cache()  # torch 2.4 would go on with what it cast without gradients
        loss = network(*images).float().square().mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        results["gradient"] = torch.cat([gradient.flatten() for gradient in gradients])
    return results
