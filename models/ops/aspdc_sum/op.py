"""The fused operation on CUDA, in Triton, as an ordinary autograd operation that torch.compile and CUDA graphs take.

    out[p] = sum_i a_i[p] * (sum_k W_i[k] @ (m_ik[p] * sample(f, p + tap_k + off_ik[p])) + b_i)

is one matrix product with 4*9*C terms, whose columns (the samples) exist only in tiles inside the forward kernel.
Forward is deterministic. So is backward, but for the order in which the terms of d f are added; with
`torch.use_deterministic_algorithms(True)` that order is fixed as well. Double backward is not offered.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.ops.aspdc_sum.triton_launch import (
    DTYPES,
    MODULES,
    TAPS_OF_A_MODULE,
    backward_launch,
    forward_launch,
    nhwc,
    product_precision,
)
from models.ops.common.kernel_weights import kernel_weights


@torch.library.custom_op("aspdc::fused_sum", mutates_args=())
def product(
    f: Tensor,
    p0: Tensor,
    p1: Tensor,
    p2: Tensor,
    p3: Tensor,
    att: Tensor,
    weight: Tensor,
    bias: Tensor,
    precision: str,
    deterministic: bool,
) -> Tensor:
    return forward_launch(f, p0, p1, p2, p3, att, weight, bias, precision)


@product.register_fake
def _(f, p0, p1, p2, p3, att, weight, bias, precision, deterministic):
    return nhwc(f.shape[0], f.shape[2], f.shape[3], weight.shape[0], f)


@torch.library.custom_op("aspdc::fused_sum_backward", mutates_args=())
def product_backward(
    g: Tensor,
    f: Tensor,
    p0: Tensor,
    p1: Tensor,
    p2: Tensor,
    p3: Tensor,
    att: Tensor,
    weight: Tensor,
    bias: Tensor,
    need_f: bool,
    need_weight: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(f.device.type, enabled=False):  # the two matrix products stay in g's type
        gf, g0, g1, g2, g3, gatt, gw, gb = backward_launch(
            g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_weight, deterministic
        )
    return gf, g0, g1, g2, g3, gatt, gw, gb


@product_backward.register_fake
def _(g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_weight, deterministic):
    n, c, h, w = f.shape
    gf = nhwc(n, h, w, c, f) if need_f else f.new_empty(0)
    gw, gb = (
        (torch.empty_like(weight), torch.empty_like(bias)) if need_weight else (weight.new_empty(0), bias.new_empty(0))
    )
    return (gf, *[nhwc(n, h, w, p.shape[1], p) for p in (p0, p1, p2, p3)], nhwc(n, h, w, MODULES, att), gw, gb)


def _setup(ctx, inputs, output):
    *tensors, _precision, deterministic = inputs
    ctx.save_for_backward(*tensors)
    ctx.deterministic = deterministic


def _backward(ctx, g):
    need = ctx.needs_input_grad
    need_f, need_w = need[0], need[6] or need[7]
    gf, g0, g1, g2, g3, ga, gw, gb = product_backward(g, *ctx.saved_tensors, need_f, need_w, ctx.deterministic)
    return (gf if need_f else None, g0, g1, g2, g3, ga, gw if need_w else None, gb if need_w else None, None, None)


product.register_autograd(_backward, setup_context=_setup)


def pack(weights, biases, dtype):
    """Four (Cout, C, 3, 3) weights -> (Cout, 36*C), tap by tap and channels innermost; biases -> (4, Cout)."""
    cout = weights[0].shape[0]
    return (
        torch.cat([w.to(dtype).permute(0, 2, 3, 1).reshape(cout, -1) for w in weights], 1),
        torch.stack(list(biases)).to(dtype),
    )


def fused_sum_triton(
    f: Tensor, maps: Sequence[Tensor], attention: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Compute `models.ops.fused_sum`, see there, on checked arguments.

    f may be float32, bfloat16, float16 or float64. float32 products are TF32 where
    `torch.backends.cuda.matmul.allow_tf32` says so.

    Raises:
        ValueError: not the four modules of an ASPDC, or channels that are no multiple of 16.
        TypeError: another type.
    """
    if [each.shape[1] for each in maps] != [TAPS_OF_A_MODULE, *[3 * TAPS_OF_A_MODULE] * (MODULES - 1)]:
        raise ValueError("the Triton kernels take the four modules of an ASPDC, the first of them without offsets")
    if f.shape[1] % 16 or weights[0].shape[0] % 16:
        raise ValueError(f"channels should be multiples of 16, got {f.shape[1]} in and {weights[0].shape[0]} out")
    if f.dtype not in DTYPES:
        raise TypeError(f"f should be float32, bfloat16, float16 or float64, got {f.dtype}")
    coordinates = torch.promote_types(f.dtype, torch.float32)
    weight, bias = kernel_weights("sum", [*weights, *biases], f.dtype, lambda: pack(weights, biases, f.dtype))
    return product(
        f,
        *(each.to(coordinates) for each in maps),
        attention.to(coordinates),
        weight,
        bias,
        product_precision(f.dtype),
        torch.are_deterministic_algorithms_enabled(),
    )
