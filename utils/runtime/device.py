"""The device and the back end of a run."""

import os
from functools import cache

import torch

from models.ops.back_ends import fused_problem, is_unmeasured_gpu, resolve_deform_op
from utils.common.errors import UserError
from utils.runtime.self_test import fused_kernels_fail


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the first CUDA device, or the CPU where there is none.

    Raises:
        UserError: the device is not available.
    """
    kind = name.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {name} is not supported; expected auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name} is not available (PyTorch finds no GPU of Apple's here); try --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--device {name} is not available ({reason}); try --device cpu") from error
    return device


def pick_deform_op(name: str, device: torch.device, width: int, precision: str, training: bool) -> str:
    """Return the back end for `name`, for both networks on `device`: "fused", "mmcv" or "torchvision".

    If "auto" is not fused, print the reason. Fused, by either name, is tested first on a GPU that nobody has measured;
    torchvision's operator takes its place, with a line, if the test fails. On Apple's GPUs gradients are computed on
    the CPU, with a line.

    Args:
        name: one of `models.ops.back_ends.DEFORM_OPS`.
        device: where the networks run.
        width: of the deblurring network.
        precision: of the run, one of `utils.runtime.precision.PRECISIONS`.
        training: whether gradients are needed.

    Raises:
        UserError: it cannot run on this machine, or not with gradients.
    """
    channels = 4 * width
    try:
        chosen = resolve_deform_op(name, device, channels)
    except RuntimeError as error:
        raise UserError(f"--{error}; or use --deform_op torchvision") from error
    if name == "auto" and chosen != "fused":
        _print_once(f"deformable convolutions by {chosen}, not fused: {fused_problem(name, device, channels)}")
    if chosen == "fused" and is_unmeasured_gpu(device) and (reason := _failure_of(device, width, precision, training)):
        chosen = "torchvision"
        _print_once(f"deformable convolutions by {chosen}, not fused: the kernels failed their self-test ({reason})")
    if training and device.type == "mps":
        _check_fallback()
    return chosen


def _check_fallback() -> None:
    # torchvision's deformable convolution has no gradient on Apple's GPUs; PyTorch can compute it on the CPU.
    if os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") != "1":
        raise UserError(
            "--device mps: torchvision has no gradient of the deformable convolution on Apple's GPUs; start with "
            "PYTORCH_ENABLE_MPS_FALLBACK=1 in the environment to compute it on the CPU, or give --device cpu"
        )
    _print_once("gradients of the deformable convolutions are computed on the CPU (PYTORCH_ENABLE_MPS_FALLBACK)")


@cache
def _print_once(line: str) -> None:
    print(line)


@cache
def _failure_of(device: torch.device, width: int, precision: str, training: bool) -> str | None:
    print("compiling and testing the fused kernels: nobody has measured them on such a GPU yet (docs/install.md)")
    return fused_kernels_fail(device, width, precision, training)
