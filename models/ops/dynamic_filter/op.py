"""Dynamic filtering on CUDA as an autograd operation (definition: reference.py): one Triton kernel each way.

Triton is optional, so what launches its kernels is imported by what runs on CUDA alone.
"""

import torch
from torch import Tensor

from ..common.launch import empty_nhwc, operation


def fused_filter(x: Tensor, logits: Tensor) -> Tensor:
    """Return `reference.dynamic_filter` of x, (N, C, H, W), and logits, (N, 9, H, W), in one pass over memory."""
    return filter_by_logits(x, logits)[0]


@operation("dynamic_filter")
def filter_by_logits(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return x filtered and, for the backward pass, the logarithm of the sum of exp(logits), (N, H, W) in fp32."""
    from .triton_launch import filter_launch

    return filter_launch(x, logits)


@filter_by_logits.register_fake
def _(x, logits):
    n, c, h, w = x.shape
    return empty_nhwc(n, h, w, c, x), x.new_empty(n, h, w, dtype=torch.float32)


@operation("dynamic_filter_backward")
def fused_filter_backward(g: Tensor, x: Tensor, logits: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and logits."""
    from .triton_launch import filter_backward_launch

    return filter_backward_launch(g, x, logits, total)


@fused_filter_backward.register_fake
def _(g, x, logits, total):
    n, c, h, w = x.shape
    return empty_nhwc(n, h, w, c, x), empty_nhwc(n, h, w, 9, logits)


def _setup(ctx, inputs, output):
    _, total = output
    ctx.save_for_backward(*inputs, total)
    ctx.mark_non_differentiable(total)
    ctx.set_materialize_grads(False)


def _backward(ctx, g, _):
    return fused_filter_backward(g, *ctx.saved_tensors)


filter_by_logits.register_autograd(_backward, setup_context=_setup)
