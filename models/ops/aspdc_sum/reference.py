"""The definition of an ASPDC's sum in plain PyTorch (paper, section 3.1; DCNv2, Zhu et al., CVPR 2019, eq. 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

KERNEL_SIZE = 3
TAPS = KERNEL_SIZE**2
MODULES = 4


def bilinear_samples(f: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return f, (N, C, H, W), between its pixels: at the positions y and x in px, (N, H', W') each; zero outside."""
    height, width = f.shape[-2:]
    top, left = y.floor(), x.floor()
    total = torch.zeros_like(f[..., :1, :1])
    for row, row_share in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, column_share in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            pixels = f.flatten(2).gather(2, index.flatten(1).unsqueeze(1).expand(-1, f.shape[1], -1))
            total = total + pixels.unflatten(2, index.shape[1:]) * (row_share * column_share * inside).unsqueeze(1)
    return total


def deform_conv(f: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the 3×3 modulated deformable convolution: out(p) = Σ_k W_k · m_k(p) · f(p + p_k + Δ_k(p)) + b.

    Args:
        f: (N, C, H, W).
        offsets: (N, 18, H, W) in px: y, x of each row-major tap.
        modulation: (N, 9, H, W).
        weight: (out, C, 3, 3).
        bias: (out,).

    Returns:
        (N, out, H, W).
    """
    height, width = f.shape[-2:]
    y = torch.arange(height, dtype=f.dtype, device=f.device).view(-1, 1)
    x = torch.arange(width, dtype=f.dtype, device=f.device)
    total = bias.view(1, -1, 1, 1)
    for k in range(TAPS):
        row, column = k // KERNEL_SIZE - 1, k % KERNEL_SIZE - 1
        samples = bilinear_samples(f, y + row + offsets[:, 2 * k], x + column + offsets[:, 2 * k + 1])
        products = torch.einsum("oc,nchw->nohw", weight[:, :, row + 1, column + 1], samples)
        total = total + modulation[:, k : k + 1] * products
    return total


def weighted_sum(
    f: Tensor, maps: Sequence[Tensor], attention: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Return Σ_i a_i · (modulated deformable convolution i of f); the arguments are those of `op.aspdc_sum`.

    Args:
        f: (N, C, H, W).
        maps: M times (N, 27, H, W), offsets and modulations before their sigmoid, or (N, 9, H, W) without offsets.
        attention: (N, M, H, W).
        weights: M times (out, C, 3, 3).
        biases: M times (out,).

    Returns:
        (N, out, H, W).
    """
    total = f.new_zeros(())
    for i, (predicted, weight, bias) in enumerate(zip(maps, weights, biases, strict=True)):
        offsets, modulation = predicted[:, :-TAPS], torch.sigmoid(predicted[:, -TAPS:])
        if not offsets.shape[1]:
            offsets = torch.zeros_like(modulation).repeat(1, 2, 1, 1)
        total = total + attention[:, i : i + 1] * deform_conv(f, offsets, modulation, weight, bias)
    return total
