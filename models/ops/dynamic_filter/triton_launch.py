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


def filter_launch(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `op.filter_by_logits`, see there."""
    x, logits = (each.contiguous(memory_format=torch.channels_last) for each in (x, logits))
    n, c, h, w = x.shape
    grid, sizes, constants = _blocks(x)
    out, total = empty_nhwc(n, h, w, c, x), torch.empty(n, h, w, device=x.device)
    with device_of(x):
        launcher(filter_kernel, grid)(x, logits, out, total, *sizes, **constants)
    return out, total


def filter_backward_launch(g: Tensor, x: Tensor, logits: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and logits."""
    g, x, logits = (each.contiguous(memory_format=torch.channels_last) for each in (g, x, logits))
    n, c, h, w = x.shape
    grid, sizes, constants = _blocks(x)
    dx, dlogits = empty_nhwc(n, h, w, c, x), empty_nhwc(n, h, w, 9, logits)
    with device_of(x):
        launcher(filter_backward_kernel, grid)(g, x, logits, total, dx, dlogits, *sizes, **constants)
    return dx, dlogits
