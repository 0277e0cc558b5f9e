"""Convolution, bias, addition and activation as one autograd operation on CUDA: Triton forward, cuDNN backward."""

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from models.fused.triton_conv import activation_grad_kernel, conv_kernel
from models.fused.triton_launch import INTERPRET, nhwc, on

CONFIG = {"TH": 8, "TW": 16, "num_warps": 4, "STAGES": 3}


def padded_power(size: int, smallest: int, largest: int) -> int:
    """Return the smallest power of two that holds `size`, within limits."""
    return min(max(triton.next_power_of_2(size), smallest), largest)


def phase_weight(weight: Tensor) -> Tensor:
    """Turn a transposed convolution's (in, out, 3, 3) weight into that of the 2×2 convolution that equals it.

    Output row 2y + p of a transposed convolution with stride 2, padding 1 and output padding 1 reads input row y + w
    through kernel row p + 1 - 2w, where there is one.

    Returns:
        (4 · out, 4 · in), outputs grouped by parity (row, column), inputs by window position and channels innermost.
    """
    cin, cout = weight.shape[:2]
    taps = F.pad(weight.permute(2, 3, 1, 0), (0, 0, 0, 0, 0, 1, 0, 1))  # (4, 4, out, in); row and column 3 are zero
    kernel_row = torch.tensor([[1, 3], [2, 0]], device=weight.device)  # [parity, window position]
    by_row = taps[kernel_row]  # (2, 2, 4, out, in)
    both = by_row[:, :, kernel_row]  # (row parity, row position, column parity, column position, out, in)
    return both.permute(0, 2, 4, 1, 3, 5).reshape(4 * cout, 4 * cin)


def kernel_form(weight: Tensor, transposed: bool) -> Tensor:
    """Return a weight as `conv_kernel` takes it: a row of taps and channels for every output."""
    return phase_weight(weight) if transposed else weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def conv_launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    ready: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    slope: float,
    dtype: torch.dtype,
    config: dict | None = None,
) -> Tensor:
    """Return LReLU(conv(x) + residual) in channels_last memory; `ready` is the weight in `kernel_form`."""
    cfg = CONFIG | (config or {})
    n, c, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    if transposed:
        side, padding, cout, (out_h, out_w) = 2, 0, weight.shape[1], (h, w)
    else:
        side, cout = weight.shape[2], weight.shape[0]
        out_h, out_w = ((size + 2 * padding - dilation * (side - 1) - 1) // stride + 1 for size in (h, w))
    scale = 2 if transposed else 1
    out = nhwc(n, out_h * scale, out_w * scale, cout, x, dtype)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    th, tw = cfg["TH"], cfg["TW"]
    tiles_x, tiles_y = triton.cdiv(out_w, tw), triton.cdiv(out_h, th)
    outputs = ready.shape[0]
    bn = cfg.get("BN") or padded_power(outputs, 16, 128)
    bk = cfg.get("BK") or (min(64, c & -c) if c % 16 == 0 else padded_power(ready.shape[1], 16, 64))
    with on(x):
        conv_kernel[(n * tiles_x * tiles_y, triton.cdiv(outputs, bn))](
            x,
            ready,
            bias,
            out if residual is None else residual,
            out,
            h,
            w,
            out_h,
            out_w,
            tiles_x,
            tiles_y,
            C=c,
            COUT=outputs,
            SIDE=side,
            STRIDE=1 if transposed else stride,
            DILATION=dilation,
            PADDING=padding,
            SLOPE=slope,
            RESIDUAL=residual is not None,
            UP=transposed,
            TH=th,
            TW=tw,
            BN=bn,
            BK=bk,
            STAGES=cfg["STAGES"],
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            num_warps=cfg["num_warps"],
        )
    return out


@torch.library.custom_op("aspdc::activation_grad", mutates_args=())
def activation_grad(g: Tensor, out: Tensor | None, slope: float, need_bias: bool) -> tuple[Tensor, Tensor]:
    """Return the gradient before the activation and the bias' gradient, (C,) in fp32; each empty where not needed."""
    g = g.contiguous(memory_format=torch.channels_last)
    n, c, h, w = g.shape
    pixels, block = n * h * w, triton.next_power_of_2(c)
    rows = max(1, 4096 // block)
    rounds = max(1, pixels // (rows * 1024))
    programs = triton.cdiv(pixels, rows * rounds)
    through = g.new_empty(0) if out is None else torch.empty_like(g)
    sums = torch.empty(programs if need_bias else 0, c, device=g.device, dtype=torch.float32)
    with on(g):
        activation_grad_kernel[(programs,)](
            g,
            g if out is None else out,
            through,
            sums,
            pixels,
            C=c,
            BC=block,
            BP=rows,
            ROUNDS=rounds,
            SLOPE=1.0 if out is None else slope,
            SUMS=need_bias,
            num_warps=4,
        )
    return through, sums.sum(0)


@activation_grad.register_fake
def _(g, out, slope, need_bias):
    n, c, h, w = g.shape
    return g.new_empty(0) if out is None else nhwc(n, h, w, c, g), g.new_empty(c, dtype=torch.float32)


@torch.library.custom_op("aspdc::conv", mutates_args=())
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    ready: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    slope: float,
    dtype: torch.dtype,
) -> Tensor:
    return conv_launch(x, weight, bias, residual, ready, stride, padding, dilation, transposed, slope, dtype)


@convolution.register_fake
def _(x, weight, bias, residual, ready, stride, padding, dilation, transposed, slope, dtype):
    n, _, h, w = x.shape
    if transposed:
        return nhwc(n, 2 * h, 2 * w, weight.shape[1], x, dtype)
    h, w = ((size + 2 * padding - dilation * (weight.shape[2] - 1) - 1) // stride + 1 for size in (h, w))
    return nhwc(n, h, w, weight.shape[0], x, dtype)


def _setup(ctx, inputs, output):
    x, weight, bias, _, _, ctx.stride, ctx.padding, ctx.dilation, ctx.transposed, ctx.slope, _ = inputs
    ctx.save_for_backward(x, weight, *([output] if ctx.slope != 1.0 else []))
    ctx.bias_dtype = bias.dtype


def _backward(ctx, g):
    x, weight, *out = ctx.saved_tensors
    need_x, need_weight, need_bias, need_residual = ctx.needs_input_grad[:4]
    before, bias_grad = g, None
    if out or need_bias:
        through, bias_grad = activation_grad(g, out[0] if out else None, ctx.slope, need_bias)
        before = through if out else g
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        before.to(x.dtype),
        x,
        weight,
        None,
        [ctx.stride] * 2,
        [ctx.padding] * 2,
        [ctx.dilation] * 2,
        ctx.transposed,
        [int(ctx.transposed)] * 2,
        1,
        [need_x, need_weight, False],
    )
    bias_grad = bias_grad.to(ctx.bias_dtype) if need_bias else None
    return dx, dweight, bias_grad, before if need_residual else None, *[None] * 7


convolution.register_autograd(_backward, setup_context=_setup)
