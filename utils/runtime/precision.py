"""Which number formats a run computes in. Weights, checkpoints, losses and optimizer states are always fp32."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from utils.common.errors import UserError

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AMPERE = (8, 0)  # the first compute capability with bf16 in hardware
_SHORT = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(precision: str, device: torch.device) -> None:
    """Allow TF32 products on CUDA, except with precision fp32.

    Args:
        precision: one of `PRECISIONS`.
        device: of the run.

    Raises:
        UserError: the device does not support it.
    """
    on_cuda = device.type == "cuda"
    if precision == "bf16" and on_cuda and torch.cuda.get_device_capability(device) < AMPERE:
        raise UserError(f"--precision bf16: {torch.cuda.get_device_name(device)} has no bf16; use fp16 or fp32")
    if precision in ("tf32", "fp16") and not on_cuda:
        raise UserError(f"--precision {precision} needs a CUDA device, this run is on {device}; use bf16 or fp32")
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return a context in which convolutions and products take bf16 or fp16 operands if `precision` asks for it."""
    if precision not in _SHORT:
        return nullcontext()
    return torch.autocast(device.type, dtype=_SHORT[precision])


def set_deterministic(deterministic: bool) -> None:
    """Make PyTorch use deterministic algorithms, or any; an operation without one raises an error."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product on CUDA
    # Not torch.use_deterministic_algorithms, which would import `torch._inductor`: seconds, for torch.compile alone.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
