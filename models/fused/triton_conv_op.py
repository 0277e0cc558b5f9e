"""Convolution, bias, addition and activation as one autograd operation on CUDA: Triton forward, cuDNN backward."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor

from models.fused.triton_conv import activation_grad_kernel, conv_kernel, predict_kernel
from models.fused.triton_launch import INTERPRET, nhwc, on

ALIGNED_CHANNELS = 8  # 16 bytes; cuDNN's and cuBLAS' 16-bit kernels for others are many times slower
GRADIENT_PROGRAMS = 264  # programs that add up a bias' gradient: two for each multiprocessor of an H100 or H200
PREDICT_ROWS = 32  # of a module's predictors, of which 9 or 27 are used
PREDICT_CONFIG = {"TH": 8, "TW": 16, "num_warps": 4, "STAGES": 3}
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
    by_row = torch.stack([taps[1::2], taps[0::2].flip(0)])  # [parity, window position]: kernel rows 1, -; 2, 0
    both = torch.stack([by_row[:, :, 1::2], by_row[:, :, 0::2].flip(2)], 2)  # (2, 2, parity, position, out, in)
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
            TensorDescriptor.from_tensor(ready, [bn, bk]) if c % bk == 0 else ready,
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
            **{key: cfg[key] for key in ("num_warps", "maxnreg") if key in cfg},
        )
    return out


def predict_form(layers: Sequence[Sequence[Tensor]]) -> Tensor:
    """Stack each module's predictors, weights (out, C, 3, 3) or biases (out,), as `predict_kernel` takes them."""
    rows = [torch.cat([kernel_form(each, False) if each.dim() == 4 else each for each in module]) for module in layers]
    return torch.cat([F.pad(each, (0, 0) * (each.dim() - 1) + (0, PREDICT_ROWS - len(each))) for each in rows])


@torch.library.custom_op("aspdc::predict", mutates_args=())
def predictions(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cfg = PREDICT_CONFIG
    n, c, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    maps = [nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27)]
    bk = min(64, c & -c)
    tiles_x, tiles_y = triton.cdiv(w, cfg["TW"]), triton.cdiv(h, cfg["TH"])
    with on(x):
        predict_kernel[(n * tiles_x * tiles_y, len(maps))](
            x,
            TensorDescriptor.from_tensor(weight, [PREDICT_ROWS, bk]),
            bias,
            *maps,
            h,
            w,
            tiles_x,
            tiles_y,
            C=c,
            BK=bk,
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            **cfg,
        )
    return tuple(maps)


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
    programs = triton.cdiv(pixels, rows * rounds)
    through = nhwc(n, h, w, channels, g, dtype) if needed else g.new_empty(0, dtype=dtype)
    sums = torch.empty(programs, c, device=g.device) if need_bias else torch.empty(0, 0, device=g.device)
    with on(g):
        activation_grad_kernel[(programs,)](
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
    out_axis = 1 if ctx.transposed else 0
    cout = weight.shape[out_axis]
    extra = -cout % ALIGNED_CHANNELS
    if extra:
        weight = F.pad(weight, (0, 0, 0, 0, *((0, extra) if ctx.transposed else (0, 0, 0, extra))))
    activation = out[0] if out else None
    through, bias_grad = activation_grad(g, activation, ctx.slope, cout + extra, x.dtype, need_bias)
    through = through if through.numel() else g
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        through,
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
    return (
        dx,
        dweight.narrow(out_axis, 0, cout) if need_weight else None,
        bias_grad.to(ctx.bias_dtype) if need_bias else None,
        through[:, :cout] if need_residual else None,
        *[None] * 7,
    )


convolution.register_autograd(_backward, setup_context=_setup)
