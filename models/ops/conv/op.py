"""Convolution, bias, addition and activation as one autograd operation on CUDA.

The result and the input's gradient are convolutions by Triton kernels, the weight's gradient is cuDNN's.
"""

import torch
import triton  # pyright: ignore[reportMissingImports] (optional)
from torch import Tensor
from torch.nn import functional as F

from models.ops.aspdc_sum.triton_launch import nhwc, on
from models.ops.common.launching import launcher
from models.ops.conv.triton_conv import activation_grad_kernel
from models.ops.conv.triton_launch import (
    conv_launch,
    convolved_size,
    kernel_form,
    phase_weight,
    predict_launch,
)

ALIGNED_CHANNELS = 8  # 16 bytes; cuDNN's and cuBLAS' 16-bit kernels for others are many times slower
GRADIENT_PROGRAMS = 264  # programs that add up a bias' gradient: two for each multiprocessor of an H100 or H200


@torch.library.custom_op("aspdc::predict", mutates_args=())
def predictions(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    map0, map1, map2, map3 = predict_launch(x, weight, bias)
    return map0, map1, map2, map3


@predictions.register_fake
def _(x, weight, bias):
    n, _, h, w = x.shape
    return tuple(nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27))


@torch.library.custom_op("aspdc::activation_grad", mutates_args=())
def activation_grad(
    g: Tensor, out: Tensor | None, slope: float, channels: int, dtype: torch.dtype, need_bias: bool
) -> tuple[Tensor, Tensor]:
    """Take the gradient g, (N, C, H, W), through the activation that gave `out`, None for none.

    Returns:
        (N, channels, H, W) in `dtype`, zero from channel C on, empty where that would be g itself; the sums over
        pixels, (C,) in fp32, empty unless `need_bias`.
    """
    g = g.contiguous(memory_format=torch.channels_last)
    n, c, h, w = g.shape
    needed = out is not None or channels != c or dtype != g.dtype
    pixels, block = n * h * w, triton.next_power_of_2(channels)
    rows = max(1, 4096 // block)
    rounds = triton.cdiv(pixels, rows * GRADIENT_PROGRAMS)
    programs = int(triton.cdiv(pixels, rows * rounds))  # int: Triton's type leaves open a kernel's constant
    through = nhwc(n, h, w, channels, g, dtype) if needed else g.new_empty(0, dtype=dtype)
    sums = torch.empty(programs, c, device=g.device) if need_bias else torch.empty(0, 0, device=g.device)
    with on(g):
        launcher(activation_grad_kernel, (programs,))(
            g,
            g if out is None else out,
            through,
            sums,
            pixels,
            C=c,
            CP=channels,
            BC=block,
            BP=rows,
            ROUNDS=rounds,
            SLOPE=1.0 if out is None else slope,
            THROUGH=needed,
            SUMS=need_bias,
            num_warps=4,
        )
    return through, sums.sum(0)


@activation_grad.register_fake
def _(g, out, slope, channels, dtype, need_bias):
    n, c, h, w = g.shape
    needed = out is not None or channels != c or dtype != g.dtype
    through = nhwc(n, h, w, channels, g, dtype) if needed else g.new_empty(0, dtype=dtype)
    return through, g.new_empty(c if need_bias else 0, dtype=torch.float32)


@torch.library.custom_op("aspdc::conv", mutates_args=())
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    kernel_weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    slope: float,
    dtype: torch.dtype,
) -> Tensor:
    return conv_launch(x, kernel_weight, bias, residual, stride, padding, dilation, transposed, slope, dtype)


@convolution.register_fake
def _(x, weight, bias, residual, kernel_weight, stride, padding, dilation, transposed, slope, dtype):
    n, _, h, w = x.shape
    if transposed:
        return nhwc(n, 2 * h, 2 * w, weight.shape[1], x, dtype)
    h, w = convolved_size(h, w, weight.shape[2], stride, padding, dilation)
    return nhwc(n, h, w, weight.shape[0], x, dtype)


def _setup(ctx, inputs, output):
    x, weight, bias, residual, _, ctx.stride, ctx.padding, ctx.dilation, ctx.transposed, ctx.slope, _ = inputs
    ctx.save_for_backward(x, weight, *([output] if ctx.slope != 1.0 else []))
    ctx.bias_dtype, ctx.residual_dtype = (None if each is None else each.dtype for each in (bias, residual))


@torch.library.custom_op("aspdc::conv_input_grad", mutates_args=())
def input_grad(
    g: Tensor, weight: Tensor, h: int, w: int, stride: int, padding: int, dilation: int, transposed: bool
) -> Tensor:
    """Return the gradient of a convolution's input, (N, C, h, w): a convolution of g, (N, out, ...)."""
    if transposed:  # the gradient of a transposed convolution is a convolution, and the other way round
        return conv_launch(g, kernel_form(weight), None, None, stride, padding, dilation, False, 1.0, g.dtype)
    if stride == 1:
        kernel_weight = kernel_form(weight.flip(2, 3).transpose(0, 1))
        padding = dilation * (weight.shape[2] - 1) - padding
        return conv_launch(g, kernel_weight, None, None, 1, padding, dilation, False, 1.0, g.dtype)
    if (stride, padding, dilation, weight.shape[2]) != (2, 1, 1, 3):
        raise ValueError(f"stride {stride} goes with 3×3 kernels and padding 1, not {tuple(weight.shape)}, {padding}")
    whole = conv_launch(g, phase_weight(weight), None, None, 1, 0, 1, True, 1.0, g.dtype)
    return whole if whole.shape[2:] == (h, w) else whole[:, :, :h, :w].contiguous(memory_format=torch.channels_last)


@input_grad.register_fake
def _(g, weight, h, w, stride, padding, dilation, transposed):
    return nhwc(g.shape[0], h, w, weight.shape[0 if transposed else 1], g)


def _backward(ctx, g):
    x, weight, *out = ctx.saved_tensors
    need_x, need_weight, need_bias, need_residual = ctx.needs_input_grad[:4]
    out_axis = 1 if ctx.transposed else 0
    cout = weight.shape[out_axis]
    extra = -cout % ALIGNED_CHANNELS
    if extra:
        weight = F.pad(weight, (0, 0, 0, 0, *((0, extra) if ctx.transposed else (0, 0, 0, extra))))
    activation = out[0] if out else None
    through, bias_grad = activation_grad(g, activation, ctx.slope, cout + extra, x.dtype, need_bias)
    through = through if through.numel() else g
    geometry = ctx.stride, ctx.padding, ctx.dilation, ctx.transposed
    dx = input_grad(through, weight, *x.shape[2:], *geometry) if need_x else None
    dweight = None
    if need_weight:
        output_padding = [int(ctx.transposed)] * 2
        stride, padding, dilation = ([each] * 2 for each in geometry[:3])
        _, dweight, _ = torch.ops.aten.convolution_backward(
            through, x, weight, None, stride, padding, dilation, ctx.transposed, output_padding, 1, [False, True, False]
        )
        dweight = dweight.narrow(out_axis, 0, cout)
    return (
        dx,
        dweight,
        bias_grad.to(ctx.bias_dtype) if need_bias else None,
        through[:, :cout].to(ctx.residual_dtype) if need_residual else None,
        *[None] * 7,
    )


convolution.register_autograd(_backward, setup_context=_setup)
