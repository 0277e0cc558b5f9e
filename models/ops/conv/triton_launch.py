"""How the convolution kernels are launched: tiles, sizes, descriptors."""

import math

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor  # pyright: ignore[reportMissingImports] (optional)

from ..common.launch import (
    INTERPRET,
    ceil_div,
    device_of,
    empty_nhwc,
    has_copy_engine,
    launcher,
    next_power_of_2,
    product_precision,
)
from .triton_kernels import activation_grad_kernel, conv_kernel, predict_kernel
from .weights import PREDICTOR_ROWS, convolved_size

# Timed on an H200 (docs/performance.md).
CONFIG = {"TH": 8, "TW": 16, "num_warps": 4, "STAGES": 3}
FEW_CHANNELS = CONFIG | {"TW": 32}  # fewer than 64 in and 64 out, in 16-bit types
EXACT = CONFIG | {"TW": 8}  # many channels in fp32
THREADS_LOAD = {"num_warps": 8}  # without a copy engine: twice the registers for a tile, so that none are spilled
GRADIENT_PROGRAMS = 264  # programs that add up a bias' gradient: two for each multiprocessor of an H100 or H200


def conv_launch(
    x: Tensor,
    kernel_weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    slope: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return LReLU(conv(x) + residual) in channels_last memory; `kernel_weight` is the weight's `kernel_layout`."""
    x = x.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    outputs, side = kernel_weight.shape[0], math.isqrt(kernel_weight.shape[1] // c)
    if transposed:
        stride, padding, out_h, out_w = 1, 0, h, w
    else:
        out_h, out_w = convolved_size(h, w, side, stride, padding, dilation)
    cout, scale = (outputs // 4, 2) if transposed else (outputs, 1)
    out = empty_nhwc(n, out_h * scale, out_w * scale, cout, x, dtype)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    short = x.dtype.itemsize == 2
    few, many = (FEW_CHANNELS, CONFIG) if short else (CONFIG, EXACT)
    cfg, copied = few if c * outputs < 64 * 64 else many, c % 16 == 0 and c >= 64
    if not has_copy_engine(x.device):
        cfg, copied = cfg | THREADS_LOAD, False
    tiles_x, tiles_y = ceil_div(out_w, cfg["TW"]), ceil_div(out_h, cfg["TH"])
    bn = min(max(next_power_of_2(outputs), 16), 128)
    widest = 64 if short else 32  # 128 bytes
    bk = min(widest, c & -c) if c % 16 == 0 else min(max(next_power_of_2(kernel_weight.shape[1]), 16), widest)
    with device_of(x):
        launcher(conv_kernel, (n * tiles_x * tiles_y, ceil_div(outputs, bn)))(
            x,
            TensorDescriptor.from_tensor(kernel_weight, [bn, bk]) if copied else kernel_weight,
            kernel_weight if bias is None else bias,
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
            STRIDE=stride,
            DILATION=dilation,
            PADDING=padding,
            SLOPE=slope,
            BIAS=bias is not None,
            RESIDUAL=residual is not None,
            UP=transposed,
            BN=bn,
            BK=bk,
            COPIED=copied,
            PRECISION=product_precision(x.dtype),
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            **cfg,
        )
    return out


def predict_launch(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return the four modules' maps, see `predict_kernel`; weight and bias in `predictor_layout`."""
    n, c, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    maps = [empty_nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27)]
    bk = min(64 if x.dtype.itemsize == 2 else 32, c & -c)
    copied = has_copy_engine(x.device)
    cfg = CONFIG if copied else CONFIG | THREADS_LOAD
    tiles_x, tiles_y = ceil_div(w, cfg["TW"]), ceil_div(h, cfg["TH"])
    with device_of(x):
        launcher(predict_kernel, (n * tiles_x * tiles_y, 3))(
            x,
            TensorDescriptor.from_tensor(weight, [PREDICTOR_ROWS, bk]) if copied else weight,
            bias,
            *maps,
            h,
            w,
            tiles_x,
            tiles_y,
            C=c,
            BK=bk,
            COPIED=copied,
            PRECISION=product_precision(x.dtype),
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            **cfg,
        )
    return maps


def activation_grad_launch(
    g: Tensor, out: Tensor | None, slope: float, channels: int, dtype: torch.dtype, need_bias: bool
) -> tuple[Tensor, Tensor]:
    """Compute `op.activation_grad`, see there."""
    g = g.contiguous(memory_format=torch.channels_last)
    n, c, h, w = g.shape
    needed = out is not None or channels != c or dtype != g.dtype
    pixels, block = n * h * w, next_power_of_2(channels)
    rows = max(1, 4096 // block)
    rounds = ceil_div(pixels, rows * GRADIENT_PROGRAMS)
    programs = ceil_div(pixels, rows * rounds)
    through = empty_nhwc(n, h, w, channels, g, dtype) if needed else g.new_empty(0, dtype=dtype)
    sums = torch.empty(programs, c, device=g.device) if need_bias else torch.empty(0, 0, device=g.device)
    with device_of(g):
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
