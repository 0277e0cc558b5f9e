"""How the convolution kernels are launched: forms of the weights, tiles, sizes."""

import math
from collections.abc import Sequence

import torch
import triton  # pyright: ignore[reportMissingImports] (optional)
from torch import Tensor
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor  # pyright: ignore[reportMissingImports] (optional)

from models.ops.aspdc_sum.triton_launch import INTERPRET, nhwc, on, product_precision
from models.ops.common.launching import launcher
from models.ops.conv.triton_conv import conv_kernel, predict_kernel

PREDICT_ROWS = 64  # of the predictors of one dilation, of which 27 are used, for dilation 1 another 9 from row 32 on
# Timed on an H200 (docs/performance.md).
CONFIG = {"TH": 8, "TW": 16, "num_warps": 4, "STAGES": 3}
FEW_CHANNELS = CONFIG | {"TW": 32}  # fewer than 64 in and 64 out, in 16-bit types
EXACT = CONFIG | {"TW": 8}  # many channels in fp32


def padded_power(size: int, smallest: int, largest: int) -> int:
    """Return the smallest power of two that holds `size`, within limits."""
    power = int(triton.next_power_of_2(size))  # int: Triton's type leaves open a kernel's constant
    return min(max(power, smallest), largest)


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


def kernel_form(weight: Tensor, transposed: bool = False) -> Tensor:
    """Return a weight as `conv_kernel` takes it: a row of taps and channels for every output."""
    return phase_weight(weight) if transposed else weight.permute(0, 2, 3, 1).reshape(len(weight), -1).contiguous()


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
    """Return LReLU(conv(x) + residual) in channels_last memory; `kernel_weight` is the weight's `kernel_form`."""
    x = x.contiguous(memory_format=torch.channels_last)
    n, c, h, w = x.shape
    outputs, side = kernel_weight.shape[0], math.isqrt(kernel_weight.shape[1] // c)
    if transposed:
        stride, padding, out_h, out_w = 1, 0, h, w
    else:
        out_h, out_w = convolved_size(h, w, side, stride, padding, dilation)
    cout, scale = (outputs // 4, 2) if transposed else (outputs, 1)
    out = nhwc(n, out_h * scale, out_w * scale, cout, x, dtype)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    short = x.dtype.itemsize == 2
    few, many = (FEW_CHANNELS, CONFIG) if short else (CONFIG, EXACT)
    cfg = few if c * outputs < 64 * 64 else many
    tiles_x, tiles_y = triton.cdiv(out_w, cfg["TW"]), triton.cdiv(out_h, cfg["TH"])
    bn = padded_power(outputs, 16, 128)
    widest = 64 if short else 32  # 128 bytes
    bk = min(widest, c & -c) if c % 16 == 0 else padded_power(kernel_weight.shape[1], 16, widest)
    copied = c % 16 == 0 and c >= 64
    with on(x):
        launcher(conv_kernel, (n * tiles_x * tiles_y, triton.cdiv(outputs, bn)))(
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


def convolved_size(h: int, w: int, side: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Return the height and width of a convolution's result."""
    out_h, out_w = ((size + 2 * padding - dilation * (side - 1) - 1) // stride + 1 for size in (h, w))
    return out_h, out_w


def predict_form(modules: Sequence[Sequence[Tensor]]) -> Tensor:
    """Stack the four modules' predictors, weights (out, C, 3, 3) or biases (out,), as `predict_kernel` takes them."""
    rows = [torch.cat([kernel_form(each) if each.dim() == 4 else each for each in module]) for module in modules]

    def filled(values: Tensor, length: int) -> Tensor:
        return F.pad(values, (0, 0) * (values.dim() - 1) + (0, length - len(values)))

    half = PREDICT_ROWS // 2
    by_dilation = [torch.cat([filled(rows[1], half), filled(rows[0], half)]), rows[2], rows[3]]
    return torch.cat([filled(each, PREDICT_ROWS) for each in by_dilation])


def predict_launch(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return the four modules' maps, see `predict_kernel`; weight and bias in `predict_form`."""
    n, c, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    maps = [nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27)]
    bk = min(64 if x.dtype.itemsize == 2 else 32, c & -c)
    tiles_x, tiles_y = triton.cdiv(w, CONFIG["TW"]), triton.cdiv(h, CONFIG["TH"])
    with on(x):
        launcher(predict_kernel, (n * tiles_x * tiles_y, 3))(
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
            PRECISION=product_precision(x.dtype),
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            **CONFIG,
        )
    return maps
