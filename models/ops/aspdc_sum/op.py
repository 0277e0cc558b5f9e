"""Σ_i a_i · (modulated deformable convolution i of f) as one differentiable operation (definition: reference.py).

    out[p] = sum_i a_i[p] * (sum_k W_i[k] @ (m_ik[p] * sample(f, p + tap_k + off_ik[p])) + b_i)

is one matrix product with 4*9*C terms. On the CPU its columns (the samples) are made in pieces that fit the cache
(cpu.py), on CUDA they exist only in tiles inside the forward kernel. There it is an ordinary autograd operation that
torch.compile and CUDA graphs take. Forward is deterministic. So is backward, but for the order in which the terms of
d f are added; with `torch.use_deterministic_algorithms(True)` that order is fixed as well. Double backward is not
offered. Triton is optional, so what launches its kernels is imported by what runs on CUDA alone.
"""

from typing import Sequence  # noqa: UP035 (of these, custom operations of torch 2.4 take no other)

import torch
from torch import Tensor
from torch.nn import functional as F

from ..back_ends import CHANNEL_MULTIPLE, fused_problem
from ..common.launch import empty_nhwc, operation, product_precision
from ..common.streams import run_with_parameter_gradients
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
    rows = [weight.detach().permute(0, 2, 3, 1).reshape(len(weight), -1) for weight in weights]
    return torch.cat(rows, dim=1).to(dtype), torch.stack([bias.detach() for bias in biases]).to(dtype)


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
    return aspdc_sum_cuda(f, maps, attention, weights, biases, *(stacked or stack_weights(weights, biases, f.dtype)))


def aspdc_sum_cuda(
    f: Tensor,
    maps: Sequence[Tensor],
    attention: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
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
        list(weights),
        list(biases),
        weight,
        bias,
        product_precision(f.dtype),
        torch.are_deterministic_algorithms_enabled(),
    )


@operation("weighted_sum")
def sum_on_cuda(
    f: Tensor,
    p0: Tensor,
    p1: Tensor,
    p2: Tensor,
    p3: Tensor,
    att: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    precision: str,
    deterministic: bool,
) -> Tensor:
    """Compute `aspdc_sum`; `weights` and `biases` get the gradients, `weight` and `bias` are theirs stacked."""
    from .triton_launch import forward_launch

    return forward_launch(f, p0, p1, p2, p3, att, weight, bias, precision)


@sum_on_cuda.register_fake
def _(f, p0, p1, p2, p3, att, weights, biases, weight, bias, precision, deterministic):
    return empty_nhwc(f.shape[0], f.shape[2], f.shape[3], weight.shape[0], f)


@operation("weighted_sum_backward")
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
    need_columns: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of f, maps and attention, and the columns, (N·H·W, M · 9 · C); empty where not needed."""
    from .triton_launch import backward_launch

    with torch.autocast("cuda", enabled=False):  # the matrix product stays in g's type
        gf, g0, g1, g2, g3, gatt, cols = backward_launch(
            g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_columns, deterministic
        )
    return gf, g0, g1, g2, g3, gatt, cols


@sum_on_cuda_backward.register_fake
def _(g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_columns, deterministic):
    n, c, h, w = f.shape
    gf = empty_nhwc(n, h, w, c, f) if need_f else f.new_empty(0)
    maps = [empty_nhwc(n, h, w, p.shape[1], p) for p in (p0, p1, p2, p3)]
    cols = f.new_empty(n * h * w, weight.shape[1]) if need_columns else f.new_empty(0)
    return (gf, *maps, empty_nhwc(n, h, w, MODULES, att), cols)


def _setup(ctx, inputs, output):
    f, p0, p1, p2, p3, att, weights, biases, weight, bias, _precision, ctx.deterministic = inputs
    ctx.save_for_backward(f, p0, p1, p2, p3, att, weight, bias, *weights, *biases)


def _backward(ctx, g):
    f, p0, p1, p2, p3, att, weight, bias, *parameters = ctx.saved_tensors
    need_f, *_, need_weights, need_biases = ctx.needs_input_grad[:8]
    need_parameters = any(need_weights) or any(need_biases)
    gf, *gradients, cols = sum_on_cuda_backward(
        g, f, p0, p1, p2, p3, att, weight, bias, need_f, need_parameters, ctx.deterministic
    )

    def parameter_gradients() -> list[Tensor | None]:
        if not need_parameters:
            return [None] * len(parameters)
        gw, gb = _stacked_gradients(g, cols, att)
        parts = [part.unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2) for part in gw.chunk(MODULES, dim=1)]
        return [
            torch.empty_like(parameter).copy_(part) for parameter, part in zip(parameters, [*parts, *gb], strict=True)
        ]

    found, _ = run_with_parameter_gradients(parameter_gradients, lambda: None, f, parameters)
    return gf if need_f else None, *gradients, found[:MODULES], found[MODULES:], *[None] * 4


def _stacked_gradients(g: Tensor, cols: Tensor, att: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of what `stack_weights` returns."""
    g, att = (each.permute(0, 2, 3, 1).flatten(0, 1) for each in (g, att))  # (N·H, W, channels)
    with torch.autocast("cuda", enabled=False):
        # Eight columns: with four, rows of 16-bit values are not aligned and the product is ten times slower. A product
        # for each row of an image: cuBLAS does them at once, but would not divide a single one.
        gb = torch.bmm(F.pad(att.to(g.dtype), (0, MODULES)).transpose(1, 2), g).sum(0)
        return g.flatten(0, 1).t() @ cols, gb[:MODULES]


sum_on_cuda.register_autograd(_backward, setup_context=_setup)
