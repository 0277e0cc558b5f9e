"""How the convolution kernels are launched: tiles, sizes, descriptors."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
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
from .gluon_launch import (
    gluon_conv_launch,
    gluon_narrow_launch,
    gluon_predict_launch,
    narrow_in_gluon,
    predicts_in_gluon,
    units_of_a_program,
)
from .triton_kernels import activation_grad_kernel, conv_kernel, predict_kernel, sum_rows_kernel
from .weights import PREDICTOR_ROWS, PROGRAMS, convolved_size, gradient_parts, kernel_layout, weight_parts

ROW_BYTES = 128  # of a row of an operand that is multiplied at a time
# Timed on an H200 (docs/performance.md).
CONFIG = {"TH": 16, "TW": 8, "num_warps": 4, "STAGES": 3}
FEW_PIXELS = CONFIG | {"TH": 8}  # fewer tiles than programs, or many channels in fp32
FEW_CHANNELS = CONFIG | {"TH": 8, "TW": 32}  # in 16-bit types
PREDICTORS = CONFIG | {"TH": 8, "TW": 16}  # in 16-bit types
THREADS_LOAD = {"num_warps": 8}  # without a copy engine: twice the registers for a tile, so that none are spilled


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
    gradient_side: int = 0,
) -> Tensor:
    """Return LReLU(conv(x) + residual) in channels_last memory.

    Args:
        x: (N, C, H, W).
        kernel_weight: the weight's `kernel_layout`.
        bias, residual, stride, padding, dilation, transposed, slope, dtype: as `op.convolution` has them.
        gradient_side: where the result is the gradient of the input of a convolution with this weight, the side of its
            kernel in px, else 0.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    rows, gradient = len(kernel_weight) // weight_parts(x.dtype), gradient_side > 0
    side = gradient_side or math.isqrt(kernel_weight.shape[1] // c)
    outputs = kernel_weight.shape[1] // side**2 if gradient else rows
    if transposed:
        stride, padding, out_h, out_w = 1, 0, h, w
    else:
        out_h, out_w = convolved_size(h, w, side, stride, padding, dilation)
    cout, scale = (outputs // 4, 2) if transposed else (outputs, 1)
    out = empty_nhwc(n, out_h * scale, out_w * scale, cout, x, dtype)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    shape = c, rows, outputs, side, stride, padding, dilation
    if shape == (128, 128, 128, 3, 1, 1, 1) and (share := units_of_a_program(x, kernel_weight, residual, dtype)):
        gluon_conv_launch(x, kernel_weight, bias, residual, out, slope, gradient, share)
        return out
    few = outputs <= 32 and (rows == 32 or not gradient)  # a gradient's x may have channels behind those of the rows
    if (c, side, stride, padding, dilation) == (32, 3, 1, 1, 1) and few and narrow_in_gluon(x, kernel_weight):
        gluon_narrow_launch(x, kernel_weight, bias, residual, out, slope, gradient)
        return out
    short = x.dtype.itemsize == 2
    bn = min(max(next_power_of_2(outputs), 16), 128)
    if bn < 128 and c * outputs < 64 * 64:
        cfg = FEW_CHANNELS if short else CONFIG
    else:
        cfg = CONFIG if short and n * out_h * out_w > PROGRAMS * CONFIG["TH"] * CONFIG["TW"] else FEW_PIXELS
    copied = c % 16 == 0 and c >= 64 and (outputs % 16 == 0 or not gradient)  # its rows begin at multiples of 16 bytes
    if not has_copy_engine(x.device):
        cfg, copied = cfg | THREADS_LOAD, False
    tiles_x, tiles_y = ceil_div(out_w, cfg["TW"]), ceil_div(out_h, cfg["TH"])
    widest = ROW_BYTES // x.dtype.itemsize
    bk = min(widest, c & -c) if c % 16 == 0 else min(max(next_power_of_2(side * side * c), 16), widest)
    block = [bk, bn] if gradient else [bn, bk]
    with device_of(x):
        launcher(conv_kernel, (n * tiles_x * tiles_y, ceil_div(outputs, bn)))(
            x,
            TensorDescriptor.from_tensor(kernel_weight, block) if copied else kernel_weight,
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
            GRADIENT=gradient,
            ROWS=rows,
            BN=bn,
            BK=bk,
            COPIED=copied,
            PRECISION=product_precision(x.dtype),
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            **cfg,
        )
    return out


def input_grad_launch(g: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
    """Return the gradient of a convolution's input at stride 1, in channels_last memory.

    Args:
        g: gradient of its output, (N, out, H', W'), or with channels of zeros after those.
        weight: its weight, (out, C, k, k), best in channels_last memory.
        padding: that of the convolution, as `dilation`.
    """
    side = weight.shape[2]
    padding = dilation * (side - 1) - padding
    if g.dtype.itemsize > 2:  # the matrix units take fp32 in one order alone, so there the weight is turned
        turned = weight.flip(2, 3).transpose(0, 1)
        weight, side = F.pad(turned, (0, 0, 0, 0, 0, g.shape[1] - turned.shape[1])), 0
    return conv_launch(g, kernel_layout(weight), None, None, 1, padding, dilation, False, 1.0, g.dtype, side)


def predict_launch(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return the four modules' maps, see `predict_kernel`; weight and bias in `predictor_layout`.

    They are contiguous where they are made in Gluon, else in channels_last memory.
    """
    n, c, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    if predicts_in_gluon(x):
        return gluon_predict_launch(x, weight, bias)
    maps = [empty_nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27)]
    bk = min(ROW_BYTES // x.dtype.itemsize, c & -c)
    copied = has_copy_engine(x.device)
    cfg = (PREDICTORS if x.dtype.itemsize == 2 else FEW_PIXELS) | ({} if copied else THREADS_LOAD)
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
    """Compute `gradients.activation_grad`, see there."""
    g = g.contiguous(memory_format=torch.channels_last)
    n, c, h, w = g.shape
    needed = out is not None or channels != c or dtype != g.dtype
    pixels = n * h * w
    programs, rows, rounds = gradient_parts(pixels, channels)
    through = empty_nhwc(n, h, w, channels, g, dtype) if needed else g.new_empty(0, dtype=dtype)
    sums = torch.empty(programs if need_bias else 0, c, device=g.device)
    with device_of(g):
        launcher(activation_grad_kernel, (programs,))(
            g,
            g if out is None else out,
            through,
            sums,
            pixels,
            C=c,
            CP=channels,
            BC=next_power_of_2(channels),
            BP=rows,
            ROUNDS=rounds,
            SLOPE=1.0 if out is None else slope,
            THROUGH=needed,
            SUMS=need_bias,
            num_warps=4,
        )
    return through, sums


def sum_rows_launch(rows: Tensor) -> Tensor:
    """Compute `gradients.sum_rows`, see there."""
    count, channels = rows.shape
    total = torch.empty(channels, device=rows.device)
    with device_of(rows):
        launcher(sum_rows_kernel, (ceil_div(channels, 8),))(
            rows, total, count, C=channels, BC=8, BP=next_power_of_2(count)
        )
    return total
