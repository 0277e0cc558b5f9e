"""Dynamic filtering on CUDA as an autograd operation (definition: reference.py): one Triton kernel each way.

Triton is optional, so what launches its kernels is imported by what runs on CUDA alone.
"""

import torch
from torch import Tensor

from ..back_ends import fused_problem
from ..common.launch import empty_nhwc


def kernel_possible(deform_op: str, x: Tensor) -> bool:
    """Say whether `filtered` computes what filters x, (N, C, H, W), or PyTorch's operations do."""
    return x.is_cuda and deform_op in ("auto", "fused") and fused_problem("cuda") is None


@torch.library.custom_op("aspdc::dynamic_filter", mutates_args=())
def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Return `reference.dynamic_filter` of x, (N, C, H, W), and kernel, (N, 9, H, W), in one pass over memory."""
    from .triton_launch import filter_launch

    return filter_launch(x, kernel)


@filtered.register_fake
def _(x, kernel):
    n, c, h, w = x.shape
    return empty_nhwc(n, h, w, c, x)


@torch.library.custom_op("aspdc::dynamic_filter_backward", mutates_args=())
def filtered_backward(g: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    from .triton_launch import filter_backward_launch

    return filter_backward_launch(g, x, kernel)


@filtered_backward.register_fake
def _(g, x, kernel):
    n, c, h, w = x.shape
    return empty_nhwc(n, h, w, c, x), empty_nhwc(n, h, w, 9, kernel)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, g):
    return filtered_backward(g, *ctx.saved_tensors)


filtered.register_autograd(_backward, setup_context=_setup)
