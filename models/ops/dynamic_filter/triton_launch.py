"""How the kernels of dynamic filtering are launched."""

import torch
from torch import Tensor

from ..common.launch import ceil_div, device_of, empty_nhwc, launcher, next_power_of_2
from .triton_kernels import filter_backward_kernel, filter_kernel


def _blocks(x: Tensor) -> tuple[tuple[int], tuple[int, int, int], dict[str, int]]:
    """Return the grid, the sizes of an image and the constants of a launch."""
    n, c, h, w = x.shape
    block = next_power_of_2(c)
    rows = max(4, 2048 // block)
    pixels = n * h * w
    return (ceil_div(pixels, rows),), (pixels, h, w), {"C": c, "BC": block, "BP": rows, "num_warps": 4}


def filter_launch(x: Tensor, kernel: Tensor) -> Tensor:
    """Compute `op.fused_filter`, see there."""
    x, kernel = (each.contiguous(memory_format=torch.channels_last) for each in (x, kernel))
    n, c, h, w = x.shape
    grid, sizes, constants = _blocks(x)
    out = empty_nhwc(n, h, w, c, x)
    with device_of(x):
        launcher(filter_kernel, grid)(x, kernel, out, *sizes, **constants)
    return out


def filter_backward_launch(g: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and kernel."""
    g, x, kernel = (each.contiguous(memory_format=torch.channels_last) for each in (g, x, kernel))
    n, c, h, w = x.shape
    grid, sizes, constants = _blocks(x)
    dx, dkernel = empty_nhwc(n, h, w, c, x), empty_nhwc(n, h, w, 9, kernel)
    with device_of(x):
        launcher(filter_backward_kernel, grid)(g, x, kernel, dx, dkernel, *sizes, **constants)
    return dx, dkernel
