"""Dynamic filtering on CUDA as an autograd operation: one Triton kernel each way."""

import torch
import triton  # pyright: ignore[reportMissingImports] (optional)
from torch import Tensor

from models.ops.aspdc_sum.triton_launch import nhwc, on
from models.ops.common.launching import launcher
from models.ops.dynamic_filter.triton_filter import filter_backward_kernel, filter_kernel


def _grid(x: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    n, c, h, w = x.shape
    block = int(triton.next_power_of_2(c))  # int: Triton's type leaves open a kernel's constant
    rows = max(4, 2048 // block)
    return (n * h * w, h, w), {"C": c, "BC": block, "BP": rows}


@torch.library.custom_op("aspdc::dynamic_filter", mutates_args=())
def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    x, kernel = (each.contiguous(memory_format=torch.channels_last) for each in (x, kernel))
    n, c, h, w = x.shape
    sizes, blocks = _grid(x)
    out = nhwc(n, h, w, c, x)
    with on(x):
        launcher(filter_kernel, (triton.cdiv(sizes[0], blocks["BP"]),))(x, kernel, out, *sizes, **blocks, num_warps=4)
    return out


@filtered.register_fake
def _(x, kernel):
    n, c, h, w = x.shape
    return nhwc(n, h, w, c, x)


@torch.library.custom_op("aspdc::dynamic_filter_backward", mutates_args=())
def filtered_backward(g: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    g, x, kernel = (each.contiguous(memory_format=torch.channels_last) for each in (g, x, kernel))
    n, c, h, w = x.shape
    sizes, blocks = _grid(x)
    dx, dkernel = nhwc(n, h, w, c, x), nhwc(n, h, w, 9, kernel)
    with on(x):
        launcher(filter_backward_kernel, (triton.cdiv(sizes[0], blocks["BP"]),))(
            g, x, kernel, dx, dkernel, *sizes, **blocks, num_warps=4
        )
    return dx, dkernel


@filtered_backward.register_fake
def _(g, x, kernel):
    n, c, h, w = x.shape
    return nhwc(n, h, w, c, x), nhwc(n, h, w, 9, kernel)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, g):
    return filtered_backward(g, *ctx.saved_tensors)


filtered.register_autograd(_backward, setup_context=_setup)
