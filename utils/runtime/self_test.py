"""A test of the fused kernels against the reference, on a GPU on which nobody has measured them."""

import torch
from torch import Tensor

from models import DeblurringNet, ReblurringNet

# Of the norm of a difference over the norm of the reference. Right results have 1e-6 and, for gradients with rounded
# offsets, 0.08.
_LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.2}


def fused_kernels_fail(device: torch.device) -> str | None:
    """Return what is wrong with the fused kernels' results on a device, or None where nothing is.

    Outputs and gradients of both networks, small ones with offsets beyond the border, in fp32 and bf16, are compared
    with those of torchvision's operator and PyTorch's convolutions in fp32.
    """
    try:
        for dtype, limit in _LIMITS.items():
            for kind in (DeblurringNet, ReblurringNet):
                for what, error in zip(("output", "gradient"), _relative_errors(kind, device, dtype), strict=True):
                    if not error <= limit:
                        return f"{what} of {kind.__name__} in {dtype}: off by {error:.1e}, {limit:g} is allowed"
    except Exception as error:  # whatever a compiler or a driver raises
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None


def _relative_errors(
    kind: type[DeblurringNet] | type[ReblurringNet], device: torch.device, dtype: torch.dtype
) -> list[float]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        network = kind(16).to(device)
        for name, parameter in network.named_parameters():
            if ".offset_conv." in name:
                parameter.data.mul_(4)
        images = [torch.rand(1, 3, 37, 50, device=device) * 2 - 1 for _ in range(2 if kind is ReblurringNet else 1)]
    network.deform_op = "torchvision"
    with torch.backends.cudnn.flags(allow_tf32=False):
        reference = _results(network, images)
    network.deform_op = "fused"
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        ours = _results(network, images)
    return [((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in zip(ours, reference, strict=True)]


def _results(network: DeblurringNet | ReblurringNet, images: list[Tensor]) -> list[Tensor]:
    """Return the output, and the gradients of all parameters in one tensor."""
    output = network(*images)
    gradients = torch.autograd.grad(output.float().square().mean(), list(network.parameters()))
    return [output.detach(), torch.cat([gradient.flatten() for gradient in gradients])]
