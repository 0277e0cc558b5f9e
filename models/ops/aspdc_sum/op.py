"""Σ_i a_i · (modulated deformable convolution i of f) as one differentiable operation (definition: reference.py).

    out[p] = sum_i a_i[p] * (sum_k W_i[k] @ (m_ik[p] * sample(f, p + tap_k + off_ik[p])) + b_i)

is one matrix product with 4*9*C terms. On the CPU its columns (the samples) are made in pieces that fit the cache
(cpu.py), on CUDA they exist only in tiles inside the forward kernel. There it is an ordinary autograd operation that
torch.compile and CUDA graphs take. Forward is deterministic. So is backward, but for the order in which the terms of
d f are added; with `torch.use_deterministic_algorithms(True)` that order is fixed as well. Double backward is not
offered. Triton is optional, so what launches its kernels is imported by what runs on CUDA alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..back_ends import CHANNEL_MULTIPLE, fused_problem
from ..common.launch import empty_nhwc, op_name, product_precision
from .cpu import aspdc_sum_cpu
from .reference import MODULES, TAPS

KERNEL_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def stack_weights(weights: Sequence[Tensor], biases: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the modules' weights and biases as the kernels on CUDA read them.

    Args:
        weights: M times (out, C, 3, 3).
        biases: M times (out,).
        dtype: of the result.

    Returns:
        (out, M · 9 · C), module by module, tap by tap and channels innermost; (M, out).
    """
    rows = [weight.to(dtype).permute(0, 2, 3, 1).reshape(len(weight), -1) for weight in weights]
    return torch.cat(rows, dim=1), torch.stack(list(biases)).to(dtype)


def aspdc_sum(
    f: Tensor,
    maps: Sequence[Tensor],
    attention: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    stacked: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return Σ_i a_i · (modulated deformable convolution i of f), differentiable in every argument.

    Each convolution is 3×3 with padding 1 and one offset group, see `models.ops.deform_conv`.

    Args:
        f: (N, C, H, W), best in channels_last memory; its type is that of the products. On CUDA float32, bfloat16,
            float16 or float64, and C and out multiples of 16; float32 products are TF32 where
            `torch.backends.cuda.matmul.allow_tf32` is set.
        maps: for each of M modules its predictions: (N, 27, H, W), 18 offsets in px (y, x per row-major tap), then 9
            modulations before their sigmoid; or (N, 9, H, W), the modulations of a module without offsets. On CUDA
            there are four, of which the first has no offsets.
        attention: (N, M, H, W).
        weights: M times (out, C, 3, 3).
        biases: M times (out,).
        stacked: on CUDA `stack_weights` of the two in f's type, where that is known already.

    Returns:
        (N, out, H, W) in f's type and channels_last memory.

    Raises:
        ValueError: an empty batch, or shapes that do not fit.
        TypeError: a type that the kernels do not take.
        RuntimeError: neither on the CPU nor, with Triton, on CUDA.
    """
    if problem := fused_problem("fused", f.device):
        raise RuntimeError(problem)
    if f.dim() != 4 or f.numel() == 0:
        raise ValueError(f"f should be a non-empty N×C×H×W tensor, got {tuple(f.shape)}")
    modules = len(maps)
    if len(weights) != modules or len(biases) != modules:
        raise ValueError(f"{modules} maps with {len(weights)} weights and {len(biases)} biases")
    batch, channels, height, width = f.shape
    out = weights[0].shape[0]
    expected = [("attention", attention, (batch, modules, height, width))]
    for i, (each, weight, bias) in enumerate(zip(maps, weights, biases, strict=True)):
        predicted = TAPS if each.shape[1] == TAPS else 3 * TAPS
        expected += [
            (f"map {i}", each, (batch, predicted, height, width)),
            (f"weight {i}", weight, (out, channels, 3, 3)),
            (f"bias {i}", bias, (out,)),
        ]
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} should have shape {shape}, got {tuple(tensor.shape)}")
    if f.device.type == "cpu":
        return aspdc_sum_cpu(f, maps, attention, weights, biases)
    return aspdc_sum_cuda(f, maps, attention, *(stacked or stack_weights(weights, biases, f.dtype)))


def aspdc_sum_cuda(f: Tensor, maps: Sequence[Tensor], attention: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `aspdc_sum` by the Triton kernels, on arguments of which the shapes fit each other.

    The last two are those of `stack_weights`.
    """
    if [each.shape[1] for each in maps] != [TAPS, *[3 * TAPS] * (MODULES - 1)]:
        raise ValueError("the Triton kernels take the four modules of an ASPDC, the first of them without offsets")
    if f.shape[1] % CHANNEL_MULTIPLE or len(weight) % CHANNEL_MULTIPLE:
        raise ValueError(
            f"channels should be multiples of {CHANNEL_MULTIPLE}, got {f.shape[1]} in and {len(weight)} out"
        )
    if f.dtype not in KERNEL_TYPES:
        raise TypeError(f"f should be float32, bfloat16, float16 or float64, got {f.dtype}")
    coordinates = torch.promote_types(f.dtype, torch.float32)
    return sum_on_cuda(
        f,
        *(each.to(coordinates) for each in maps),
        attention.to(coordinates),
        weight,
        bias,
        product_precision(f.dtype),
        torch.are_deterministic_algorithms_enabled(),
    )


@torch.library.custom_op(op_name("weighted_sum"), mutates_args=())
def sum_on_cuda(
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
    from .triton_launch import forward_launch

    return forward_launch(f, p0, p1, p2, p3, att, weight, bias, precision)


@sum_on_cuda.register_fake
def _(f, p0, p1, p2, p3, att, weight, bias, precision, deterministic):
    return empty_nhwc(f.shape[0], f.shape[2], f.shape[3], weight.shape[0], f)


@torch.library.custom_op(op_name("weighted_sum_backward"), mutates_args=())
def sum_on_cuda_backward(
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
    from .triton_launch import backward_launch

    with torch.autocast("cuda", enabled=False):  # the two matrix products stay in g's type
        gf, g0, g1, g2, g3, gatt, gw, gb = backward_launch(
            g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_weight, deterministic
        )
    return gf, g0, g1, g2, g3, gatt, gw, gb


@sum_on_cuda_backward.register_fake
def _(g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_weight, deterministic):
    n, c, h, w = f.shape
    gf = empty_nhwc(n, h, w, c, f) if need_f else f.new_empty(0)
    gw, gb = (
        (torch.empty_like(weight), torch.empty_like(bias)) if need_weight else (weight.new_empty(0), bias.new_empty(0))
    )
    maps = [empty_nhwc(n, h, w, p.shape[1], p) for p in (p0, p1, p2, p3)]
    return (gf, *maps, empty_nhwc(n, h, w, MODULES, att), gw, gb)


def _setup(ctx, inputs, output):
    *tensors, _precision, deterministic = inputs
    ctx.save_for_backward(*tensors)
    ctx.deterministic = deterministic


def _backward(ctx, g):
    need = ctx.needs_input_grad
    need_f, need_w = need[0], need[6] or need[7]
    gf, g0, g1, g2, g3, ga, gw, gb = sum_on_cuda_backward(g, *ctx.saved_tensors, need_f, need_w, ctx.deterministic)
    return (gf if need_f else None, g0, g1, g2, g3, ga, gw if need_w else None, gb if need_w else None, None, None)


sum_on_cuda.register_autograd(_backward, setup_context=_setup)
