"""How the convolution kernels are launched: forms of the weights, tiles, sizes."""

import math
from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor

from models.fused.triton_conv import conv_kernel, predict_kernel
from models.fused.triton_launch import INTERPRET, PDL, nhwc, on, product_precision

PREDICT_ROWS = 32  # of a module's predictors, of which 9 or 27 are used
JOINED_PARTS = 6  # that `conv_kernel` can read as one
# Timed on an H200 (docs/performance.md).
CONFIG = {"TH": 8, "TW": 16, "num_warps": 4, "STAGES": 3}
FEW_CHANNELS = CONFIG | {"TW": 32}  # fewer than 64 in and 64 out, in 16-bit types
EXACT = CONFIG | {"TW": 8}  # many channels in fp32
PREDICT_CONFIG = CONFIG | {"STAGES": 2}


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


def kernel_form(weight: Tensor, transposed: bool, parts: int = 1) -> Tensor:
    """Return a weight as `conv_kernel` takes it: a row of parts, taps and channels for every output."""
    if transposed:
        return phase_weight(weight)
    return weight.unflatten(1, (parts, -1)).permute(0, 1, 3, 4, 2).reshape(len(weight), -1).contiguous()


def conv_launch(
    parts: Sequence[Tensor],
    ready: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    slope: float,
    dtype: torch.dtype,
    config: dict | None = None,
) -> Tensor:
    """Return LReLU(conv(x) + residual) in channels_last memory; x is one tensor, or the channels of `JOINED_PARTS`.

    `ready` is the weight in `kernel_form`.
    """
    parts = [part.contiguous(memory_format=torch.channels_last) for part in parts]
    x, rest = parts[0], parts[1:] or [parts[0]] * (JOINED_PARTS - 1)
    n, c, h, w = x.shape
    outputs = ready.shape[0]
    if transposed:
        side, stride, padding, cout, (out_h, out_w) = 2, 1, 0, outputs // 4, (h, w)
    else:
        side, cout = math.isqrt(ready.shape[1] // (c * len(parts))), outputs
        out_h, out_w = convolved_size(h, w, side, stride, padding, dilation)
    scale = 2 if transposed else 1
    out = nhwc(n, out_h * scale, out_w * scale, cout, x, dtype)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    short = x.dtype.itemsize == 2
    few, many = (FEW_CHANNELS, CONFIG) if short else (CONFIG, EXACT)
    cfg = few if c * outputs < 64 * 64 else many
    cfg = cfg | (config or {})
    th, tw = cfg["TH"], cfg["TW"]
    tiles_x, tiles_y = triton.cdiv(out_w, tw), triton.cdiv(out_h, th)
    bn = cfg.get("BN") or padded_power(outputs, 16, 128)
    widest = 64 if short else 32  # 128 bytes
    bk = cfg.get("BK") or (min(widest, c & -c) if c % 16 == 0 else padded_power(ready.shape[1], 16, widest))
    copied = c % bk == 0 and c >= 64
    with on(x):
        conv_kernel[(n * tiles_x * tiles_y, triton.cdiv(outputs, bn))](
            x,
            *rest,
            TensorDescriptor.from_tensor(ready, [bn, bk]) if copied else ready,
            ready if bias is None else bias,
            out if residual is None else residual,
            out,
            h,
            w,
            out_h,
            out_w,
            tiles_x,
            tiles_y,
            C=c,
            PARTS=len(parts),
            COUT=outputs,
            SIDE=side,
            STRIDE=stride,
            DILATION=dilation,
            PADDING=padding,
            SLOPE=slope,
            BIAS=bias is not None,
            RESIDUAL=residual is not None,
            UP=transposed,
            TH=th,
            TW=tw,
            BN=bn,
            BK=bk,
            STAGES=cfg["STAGES"],
            COPIED=copied,
            PRECISION=cfg.get("PRECISION") or product_precision(x.dtype),
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            **{key: cfg[key] for key in ("num_warps", "maxnreg") if key in cfg},
            **PDL,
        )
    return out


def convolved_size(h: int, w: int, side: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Return the height and width of a convolution's result."""
    return tuple((size + 2 * padding - dilation * (side - 1) - 1) // stride + 1 for size in (h, w))


def predict_form(layers: Sequence[Sequence[Tensor]]) -> Tensor:
    """Stack each module's predictors, weights (out, C, 3, 3) or biases (out,), as `predict_kernel` takes them."""
    rows = [torch.cat([kernel_form(each, False) if each.dim() == 4 else each for each in module]) for module in layers]
    return torch.cat([F.pad(each, (0, 0) * (each.dim() - 1) + (0, PREDICT_ROWS - len(each))) for each in rows])


def predict_launch(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return the four modules' maps, see `predict_kernel`; weight and bias in `predict_form`."""
    cfg = PREDICT_CONFIG
    n, c, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    maps = [nhwc(n, h, w, channels, x, torch.float32) for channels in (9, 27, 27, 27)]
    bk = min(64 if x.dtype.itemsize == 2 else 32, c & -c)
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
            PRECISION=product_precision(x.dtype),
            UPCAST=INTERPRET and x.dtype == torch.bfloat16,
            **cfg,
            **PDL,
        )
    return maps
