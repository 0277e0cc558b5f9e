"""Dynamic filtering on CUDA as an autograd operation (definition: reference.py): one Triton kernel each way.

Triton is optional, so what launches its kernels is imported by what runs on CUDA alone.
"""

import torch
from torch import Tensor

from ..common.launch import empty_nhwc, op_name


@torch.library.custom_op(op_name("dynamic_filter"), mutates_args=())
def fused_filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Return `reference.dynamic_filter` of x, (N, C, H, W), and kernel, (N, 9, H, W), in one pass over memory."""
    from .triton_launch import filter_launch

    return filter_launch(x, kernel)


@fused_filter.register_fake
def _(x, kernel):
    n, c, h, w = x.shape
    return empty_nhwc(n, h, w, c, x)


@torch.library.custom_op(op_name("dynamic_filter_backward"), mutates_args=())
def fused_filter_backward(g: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    from .triton_launch import filter_backward_launch

    return filter_backward_launch(g, x, kernel)


@fused_filter_backward.register_fake
def _(g, x, kernel):
    n, c, h, w = x.shape
    return empty_nhwc(n, h, w, c, x), empty_nhwc(n, h, w, 9, kernel)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, g):
    return fused_filter_backward(g, *ctx.saved_tensors)


fused_filter.register_autograd(_backward, setup_context=_setup)
