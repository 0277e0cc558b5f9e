"""Layouts in which the convolution kernels read weights, and the size of their results."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PREDICTOR_ROWS = 64  # of one dilation's predictors, of which 27 are used, for dilation 1 another 9 from row 32 on

ConvWeights = tuple[Tensor, Tensor, Tensor]  # weight, bias, and the weight in the layout of the kernel


def weight_and_bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return the parameters of a convolution; all those of the networks have a bias."""
    assert layer.bias is not None
    return layer.weight, layer.bias


def conv_weights(layers: Sequence[nn.Conv2d | nn.ConvTranspose2d], dtype: torch.dtype) -> ConvWeights:
    """Return the weights of one convolution, or of several whose outputs are concatenated, for `fused_conv`."""
    weights, biases = zip(*map(weight_and_bias, layers), strict=True)
    weight, bias = (each[0] if len(each) == 1 else torch.cat(each) for each in (weights, biases))
    weight, bias = weight.to(dtype), bias.to(dtype)
    return weight, bias, kernel_layout(weight.detach(), isinstance(layers[0], nn.ConvTranspose2d))


def kernel_layout(weight: Tensor, transposed: bool = False) -> Tensor:
    """Return a weight as `conv_kernel` takes it: a row of taps and channels for every output."""
    return phase_weight(weight) if transposed else weight.permute(0, 2, 3, 1).reshape(len(weight), -1).contiguous()


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
    rows = [torch.cat([kernel_layout(each) if each.dim() == 4 else each for each in module]) for module in modules]

    def filled(values: Tensor, length: int) -> Tensor:
        return F.pad(values, (0, 0) * (values.dim() - 1) + (0, length - len(values)))

    half = PREDICTOR_ROWS // 2
    by_dilation = [torch.cat([filled(rows[1], half), filled(rows[0], half)]), rows[2], rows[3]]
    return torch.cat([filled(each, PREDICTOR_ROWS) for each in by_dilation])


def convolved_size(h: int, w: int, side: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Return the height and width of a convolution's result."""
    out_h, out_w = ((size + 2 * padding - dilation * (side - 1) - 1) // stride + 1 for size in (h, w))
    return out_h, out_w
