"""What the launches of all Triton kernels share; Triton itself is not imported here."""

import contextlib
import os
from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"


class Kernel(Protocol):
    """The type of functions decorated with `triton.jit`.

    By Triton's own types a launch takes what the function takes. It takes `num_warps` and the like as well, and plain
    numbers where the function has a `constexpr`.
    """

    def __getitem__(self, grid: tuple[object, ...], /) -> Callable[..., object]: ...


def launcher(kernel: Callable[..., object], grid: tuple[object, ...]) -> Callable[..., object]:
    """Return what launches a kernel on a grid."""
    # Where Triton is not installed, a kernel is a plain function to those who check types.
    return cast(Kernel, kernel)[grid]


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a scope in which the tensor's device is the current one, which is where kernels are launched."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def empty_nhwc(n: int, h: int, w: int, c: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty (N, C, H, W) tensor in channels_last memory, of the device and type of `like`."""
    return torch.empty(n, h, w, c, device=like.device, dtype=dtype or like.dtype).permute(0, 3, 1, 2)


def next_power_of_2(size: int) -> int:
    """Return the smallest power of two that holds `size`."""
    return 1 << (size - 1).bit_length()


def ceil_div(size: int, part: int) -> int:
    """Return how many parts cover `size`."""
    return -(-size // part)


def product_precision(dtype: torch.dtype) -> str:
    """Return how the kernels multiply values of this type.

    fp32 as TF32 where PyTorch may, else as three TF32 products of its upper and lower digits, whose sum is closer to
    the true product than cuDNN's fp32 (docs/performance.md).
    """
    if dtype == torch.float64:
        return "ieee"
    return "tf32" if dtype.itemsize == 2 or torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
