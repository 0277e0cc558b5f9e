"""Layouts in which the convolution kernels read weights, and sizes that launches and fake results share."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.launch import ceil_div, next_power_of_2

PREDICTOR_ROWS = 64  # of one dilation's predictors, of which 27 are used, for dilation 1 another 9 from row 32 on
PROGRAMS = 264  # two for each multiprocessor of an H100 or H200


class ConvWeights(NamedTuple):
    """Parameters of one convolution, or of several whose outputs are concatenated.

    Attributes:
        weights: as they are trained.
        biases: as they are trained.
        kernel_weight: the weights in the type of the products and in `kernel_layout`.
        kernel_bias: the biases in one tensor.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    kernel_weight: Tensor
    kernel_bias: Tensor


def weight_and_bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return the parameters of a convolution; all those of the networks have a bias."""
    assert layer.bias is not None
    return layer.weight, layer.bias


def conv_weights(layers: Sequence[nn.Conv2d | nn.ConvTranspose2d], dtype: torch.dtype) -> ConvWeights:
    """Return the weights of one convolution, or of several whose outputs are concatenated, for `fused_conv`.

    Args:
        layers: of one geometry.
        dtype: of the products.
    """
    weights, biases = (list(each) for each in zip(*map(weight_and_bias, layers), strict=True))
    weight, bias = (each[0].detach() if len(each) == 1 else torch.cat(each).detach() for each in (weights, biases))
    transposed = isinstance(layers[0], nn.ConvTranspose2d)
    return ConvWeights(weights, biases, kernel_layout(weight.to(dtype), transposed), bias)


def kernel_layout(weight: Tensor, transposed: bool = False) -> Tensor:
    """Return a weight as `conv_kernel` takes it: a row of taps and channels for every output.

    In fp32 these are the upper digits, which TF32 has, and the rows of the lower ones follow.
    """
    rows = phase_weight(weight) if transposed else weight.permute(0, 2, 3, 1).flatten(1).contiguous()
    return _in_parts(rows)


def _in_parts(rows: Tensor) -> Tensor:
    if weight_parts(rows.dtype) == 1:
        return rows
    upper = ((rows.view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)
    return torch.cat([upper, rows - upper])


def weight_parts(dtype: torch.dtype) -> int:
    """Return in how many parts the kernels read weights of a type."""
    return 2 if dtype == torch.float32 else 1


def as_weight(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Return what `kernel_layout` made of a weight of this shape, (out, in, k, k), as such a weight."""
    _, inputs, *side = shape
    return rows.view(-1, *side, inputs).permute(0, 3, 1, 2)


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


def predictor_layout(modules: Sequence[Sequence[Tensor]]) -> Tensor:
    """Stack the four modules' predictors, weights (out, C, 3, 3) or biases (out,), as `predict_kernel` takes them."""
    rows = [
        torch.cat([each.permute(0, 2, 3, 1).flatten(1) if each.dim() == 4 else each for each in module])
        for module in modules
    ]

    def filled(values: Tensor, length: int) -> Tensor:
        return F.pad(values, (0, 0) * (values.dim() - 1) + (0, length - len(values)))

    half = PREDICTOR_ROWS // 2
    by_dilation = [torch.cat([filled(rows[1], half), filled(rows[0], half)]), rows[2], rows[3]]
    stacked = torch.cat([filled(each, PREDICTOR_ROWS) for each in by_dilation])
    return _in_parts(stacked) if stacked.dim() == 2 else stacked


def gradient_parts(pixels: int, channels: int) -> tuple[int, int, int]:
    """Return how many programs sum a bias' gradient, and how many rows of pixels each takes, how many times."""
    rows = max(1, 4096 // next_power_of_2(channels))
    rounds = ceil_div(pixels, rows * PROGRAMS)
    return ceil_div(pixels, rows * rounds), rows, rounds


def convolved_size(h: int, w: int, side: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Return the height and width of a convolution's result."""
    out_h, out_w = ((size + 2 * padding - dilation * (side - 1) - 1) // stride + 1 for size in (h, w))
    return out_h, out_w
