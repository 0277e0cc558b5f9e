"""How the convolution kernels in Gluon are launched, and where they take the place of the usual ones."""

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..common.launch import ceil_div, device_of, gluon_runs, launcher, next_power_of_2

if TYPE_CHECKING:
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor  # pyright: ignore[reportMissingImports]

FEWEST_UNITS = 3  # of a program: on an H200 that takes as long as `conv_kernel` or less; fewer have not been timed


@cache
def _programs(device: torch.device) -> int:
    """Return how many programs run at a time, one on each multiprocessor, or 0 where the kernel does not run."""
    return torch.cuda.get_device_properties(device).multi_processor_count if gluon_runs(device) else 0


def units_of_a_program(x: Tensor, weight: Tensor, residual: Tensor | None, dtype: torch.dtype) -> int:
    """Return the `share` for `gluon_conv_launch`, or 0 where it cannot take these or may not be faster.

    Args:
        x, weight, residual: as there, but of any type and alignment.
        dtype: of the result.
    """
    given = (x, weight) if residual is None else (x, weight, residual)
    if dtype.itemsize != 2 or any(each.dtype != dtype or each.data_ptr() % 16 for each in given):
        return 0
    n, _, h, w = x.shape
    programs = _programs(x.device)
    share = ceil_div(n * ceil_div(h, 8) * ceil_div(w, 8), programs) if programs else 0
    return share if share >= FEWEST_UNITS else 0


def _pixels(tensor: Tensor, rows: int = 8) -> "TensorDescriptor":
    """Describe an (N, C, H, W) tensor in channels_last memory in blocks of so many rows of 8 px and 64 channels."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor  # pyright: ignore[reportMissingImports]

    from .gluon_conv import BOX

    n, c, h, w = tensor.shape
    strides = [h * w * c, w * c, c, 1]  # PyTorch's own may be any where a size is 1
    return TensorDescriptor(tensor, [n, h, w, c], strides, [1, rows, 8, 64], BOX.value)


def gluon_conv_launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out: Tensor,
    slope: float,
    gradient: bool,
    share: int,
) -> None:
    """Write LReLU(conv(x) + bias + residual) into `out`, for a 3×3 convolution with stride 1 and padding 1.

    Args:
        x, residual, out: (N, 128, H, W) of one 16-bit type, in channels_last memory.
        weight: (128, 9 · 128) of that type, its `kernel_layout`.
        bias: (128,).
        slope: of the leaky ReLU; 1 is none.
        gradient: the result is the gradient of the input of a convolution with this weight, and x that of its output.
        share: how many units of 8×8 px a program takes.
    """
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor  # pyright: ignore[reportMissingImports]

    from .gluon_conv import FLAT, gluon_conv_kernel

    n, c, h, w = x.shape
    target, height, width = _pixels(out), ceil_div(h, 8), ceil_div(w, 8)
    with device_of(x):
        launcher(gluon_conv_kernel, (ceil_div(n * height * width, share),))(
            _pixels(x),
            _pixels(x, 2),
            TensorDescriptor(weight, [c, 9 * c], [9 * c, 1], [64, c] if gradient else [c, 64], FLAT.value),
            target if residual is None else _pixels(residual),
            target,
            weight if bias is None else bias,
            n * height * width,
            share,
            height,
            width,
            SLOPE=slope,
            BIAS=bias is not None,
            RESIDUAL=residual is not None,
            GRADIENT=gradient,
            num_warps=4,
        )


def narrow_in_gluon(x: Tensor, weight: Tensor) -> bool:
    """Return whether `gluon_narrow_launch` can take these, which are as there, but of any type and alignment."""
    short = x.dtype.itemsize == 2 and weight.dtype == x.dtype
    return short and x.data_ptr() % 16 == 0 and _programs(x.device) > 0


def gluon_narrow_launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, out: Tensor, slope: float, gradient: bool
) -> None:
    """Write LReLU(conv(x) + bias + residual) into `out`, for a 3×3 convolution with stride 1 and padding 1.

    Args:
        x: (N, 32, H, W) of a 16-bit type, in channels_last memory.
        weight: (out, 9 · 32) of that type, or with `gradient` (32, 9 · out), its `kernel_layout`.
        bias: (out,).
        residual, out: (N, out, H, W) of any type, in channels_last memory; out is 32 or less.
        slope, gradient: as for `gluon_conv_launch`.
    """
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor  # pyright: ignore[reportMissingImports]

    from .gluon_narrow import BOX, COLUMNS, ROWS, gluon_narrow_kernel

    n, c, h, w = x.shape
    outputs = out.shape[1]
    height, width = ceil_div(h, ROWS.value), ceil_div(w, COLUMNS.value)
    tiles = n * height * width
    with device_of(x):
        launcher(gluon_narrow_kernel, (min(tiles, _programs(x.device)),))(
            *(
                TensorDescriptor(x, [n, h, w, c], [h * w * c, w * c, c, 1], [1, rows, 32, c], BOX.value)
                for rows in (ROWS.value, 2)
            ),
            weight,
            weight if bias is None else bias,
            out if residual is None else residual,
            out,
            tiles,
            height,
            width,
            h,
            w,
            COUT=outputs,
            N=max(8, next_power_of_2(outputs)),
            SLOPE=slope,
            BIAS=bias is not None,
            RESIDUAL=residual is not None,
            GRADIENT=gradient,
            num_warps=4,
        )


def predicts_in_gluon(x: Tensor) -> bool:
    """Return whether `gluon_predict_launch` takes features (N, C, H, W): of any size, a fake tensor's, too."""
    return x.dtype.itemsize == 2 and x.shape[1] == 128 and _programs(x.device) > 0


def gluon_predict_launch(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return the four modules' maps, (N, 9 or 27, H, W) in fp32, which are contiguous.

    Args:
        x: (N, 128, H, W) of a 16-bit type, in channels_last memory.
        weight, bias: in `predictor_layout`, the weight of x's type.
    """
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor  # pyright: ignore[reportMissingImports]

    from .gluon_conv import FLAT
    from .gluon_predict import gluon_predict_kernel

    # The copy engine reads from multiples of 16 bytes on.
    x, weight = (each.clone() if each.data_ptr() % 16 else each for each in (x, weight))
    n, c, h, w = x.shape
    maps = [x.new_empty(n, channels, h, w, dtype=torch.float32) for channels in (9, 27, 27, 27)]
    height, width = ceil_div(h, 8), ceil_div(w, 8)
    share = ceil_div(n * height * width, _programs(x.device))
    with device_of(x):
        launcher(gluon_predict_kernel, (ceil_div(n * height * width, share),))(
            _pixels(x),
            _pixels(x, 2),
            _pixels(x, 4),
            TensorDescriptor(weight, [len(weight), 9 * c], [9 * c, 1], [32, 64], FLAT.value),
            bias,
            *maps,
            h,
            w,
            n * height * width,
            share,
            height,
            width,
            num_warps=4,
        )
    return maps
