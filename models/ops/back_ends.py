"""The names of the back ends, what each means on a device, and whether it can run there.

A further back end is a name in `DEFORM_OPS`, a branch in `resolve_deform_op`, and one where it computes: in
`deform_conv.modulated_deform_conv2d` for a single deformable convolution, in `models.aspdc.ASPDC` for all four.
"""

from functools import cache

import torch
from torch import Tensor

DEFORM_OPS = ("auto", "fused", "mmcv", "torchvision")
OLDEST_TRITON = (3, 6)
OLDEST_GPU = (8, 0)  # compute capability for which the kernels compile
AUTO_GPU = (9, 0)  # from here on "auto" takes them
MEASURED_GPUS = 9  # the major version of those on which they were run and timed
CHANNEL_MULTIPLE = 16


def check_deform_op(deform_op: str) -> None:
    """Raise ValueError unless this is the name of a back end."""
    if deform_op not in DEFORM_OPS:
        raise ValueError(f"deform_op should be one of {', '.join(DEFORM_OPS)}, got {deform_op!r}")


def resolve_deform_op(deform_op: str, device: torch.device | str, channels: int | None = None) -> str:
    """Return the back end that `deform_op` means for an ASPDC on `device`: "fused", "mmcv" or "torchvision".

    Args:
        deform_op: one of `DEFORM_OPS`; "auto" is fused where that is known to run well, else mmcv where usable, else
            torchvision.
        device: where the tensors lie.
        channels: of the ASPDC, where known.

    Raises:
        ValueError: unknown name.
        RuntimeError: the requested back end cannot run here; the message contains the reason.
    """
    check_deform_op(deform_op)
    if deform_op in ("auto", "fused"):
        problem = fused_problem(deform_op, device, channels)
        if problem is None:
            return "fused"
        if deform_op == "fused":
            raise RuntimeError(f"deform_op fused is not usable: {problem}")
    return resolve_single_op(deform_op, device)


def resolve_single_op(deform_op: str, device: torch.device | str) -> str:
    """Return what computes one deformable convolution alone on `device`: "mmcv" or "torchvision".

    Args:
        deform_op: one of `DEFORM_OPS`; "auto" is mmcv where it can be used, else torchvision. So is "fused": only the
            four convolutions of an ASPDC are fused.
        device: where the tensors lie.

    Raises:
        ValueError: unknown name.
        RuntimeError: mmcv was requested and cannot run here; the message contains the reason.
    """
    check_deform_op(deform_op)
    if deform_op == "torchvision":
        return deform_op
    problem = mmcv_problem(torch.device(device).type)
    if problem and deform_op == "mmcv":
        raise RuntimeError(f"deform_op mmcv is not usable: {problem}")
    return "torchvision" if problem else "mmcv"


def uses_kernels(deform_op: str, x: Tensor) -> bool:
    """Return whether our kernels, rather than PyTorch, compute operations on x other than deformable convolutions.

    On the CPU PyTorch's are, with every back end.

    Raises:
        RuntimeError: "fused" was requested and cannot run here; the message contains the reason.
    """
    if deform_op not in ("auto", "fused") or x.device.type == "cpu":
        return False
    problem = fused_problem(deform_op, x.device)
    if problem and deform_op == "fused":
        raise RuntimeError(f"deform_op fused is not usable: {problem}")
    return problem is None


def fused_problem(deform_op: str, device: torch.device | str, channels: int | None = None) -> str | None:
    """Return why the fused operation is not to run on `device`, or None where it is.

    Args:
        deform_op: by which name it would be chosen. That nobody has measured it on such a GPU is a reason for "auto",
            not for "fused".
        device: where the tensors lie.
        channels: of the ASPDC, where known.
    """
    device = torch.device(device)
    problem = _device_problem(device)
    if problem or device.type != "cuda":
        return problem
    if channels is not None and channels % CHANNEL_MULTIPLE:
        return f"the fused kernels take multiples of {CHANNEL_MULTIPLE} channels, not {channels}"
    if deform_op == "auto" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) < AUTO_GPU:
        return (
            "nobody has measured the fused kernels on GPUs of compute capability 8 yet; --deform_op fused takes them "
            "after a self-test (docs/install.md)"
        )
    return None


def is_unmeasured_gpu(device: torch.device) -> bool:
    """Return whether `device` is a GPU of a kind on which nobody has measured the fused kernels."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != MEASURED_GPUS


@cache
def _device_problem(device: torch.device) -> str | None:
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"the fused operation runs on the CPU and on CUDA, not on {device.type}"
    try:
        import triton  # pyright: ignore[reportMissingImports] (optional)
    except ImportError as error:
        return f"the fused operation needs Triton on CUDA, which cannot be imported ({error})"
    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST_TRITON:
        return (
            f"the fused operation needs Triton {'.'.join(map(str, OLDEST_TRITON))} or newer, not {triton.__version__}"
        )
    if torch.cuda.is_available() and torch.cuda.get_device_capability(device) < OLDEST_GPU:
        return "the fused kernels use instructions of compute capability 8.0 (Ampere) and newer"
    return None


@cache
def mmcv_problem(device_type: str) -> str | None:
    """Return why mmcv's operator cannot run on this kind of device, or None where it can."""
    if device_type not in ("cpu", "cuda"):
        return f"mmcv's operator runs on the CPU and on CUDA, not on {device_type}"
    try:
        from mmcv.ops import modulated_deform_conv2d  # pyright: ignore[reportMissingImports] (optional)
    except ImportError as error:
        return f"mmcv's ops cannot be imported ({error}); `make mmcv` builds them"
    try:  # it may have been built without CUDA, or for other GPUs
        x = torch.zeros(1, 1, 1, 1, device=device_type)
        modulated_deform_conv2d(x, x.repeat(1, 2, 1, 1), x, x, x[0, 0, 0], 1, 0, 1, 1, 1)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA raises the second
        return (
            f"mmcv's operator fails on {device_type} ({str(error).partition(chr(10))[0]}); `make mmcv` builds it anew"
        )
    return None
