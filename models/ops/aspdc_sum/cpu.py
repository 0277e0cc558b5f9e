"""The ASPDC sum on the CPU, from PyTorch's own vectorised parts: no compiler is needed.

Σ_i a_i · (W_i · columns_i + b_i) is one matrix product over all modules, taps and channels. A column is a weighted sum
of up to four rows of C contiguous values (the pixels around a sampling point), which is what an embedding bag computes,
on all cores and with wide loads. The weights of that sum hold the bilinear weight, the modulation and the attention.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .reference import KERNEL_SIZE, TAPS

# Pixels whose columns are made and multiplied at a time: 4.5 MiB in fp32 at 128 channels, which stay in the cache.
COLUMN_PIXELS = 1024
# Pixels whose sampling points are computed at a time: enough that the cost of starting each operation does not count.
POINT_PIXELS = 16 * COLUMN_PIXELS


def aspdc_sum_cpu(
    f: Tensor,
    maps: Sequence[Tensor],
    attention: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """Compute `op.aspdc_sum`, see there, on checked arguments."""
    batch, channels, height, width = f.shape
    # A border of zeros: one pixel before and two after, since a point may lie on the first of them.
    rows = F.pad(f.permute(0, 2, 3, 1), (0, 0, 1, 2, 1, 2)).reshape(-1, channels)
    kernels = [weight.permute(2, 3, 1, 0).reshape(TAPS * channels, -1).to(f.dtype) for weight in weights]
    attention = _rows(attention)
    offsets = [_rows(each[:, :-TAPS]) for each in maps]  # no columns where a module has none
    modulations = [torch.sigmoid(_rows(each[:, -TAPS:])) for each in maps]
    y, x, first = _grid(batch, height, width, f.device)

    out = []
    for start in range(0, len(first), POINT_PIXELS):
        here = slice(start, start + POINT_PIXELS)
        bags = [
            _bags(
                offset[here],
                modulation[here] * attention[here, i : i + 1],
                y[here],
                x[here],
                first[here],
                height,
                width,
            )
            for i, (offset, modulation) in enumerate(zip(offsets, modulations, strict=True))
        ]
        bias = attention[here].to(f.dtype) @ torch.stack(list(biases)).to(f.dtype)  # (points, out)
        for part in range(0, len(bias), COLUMN_PIXELS):
            chunk = slice(part, part + COLUMN_PIXELS)
            total = bias[chunk]
            for (indices, shares), kernel in zip(bags, kernels, strict=True):
                columns = F.embedding_bag(
                    indices[chunk].flatten(0, 1),
                    rows,
                    per_sample_weights=shares[chunk].flatten(0, 1).to(f.dtype),
                    mode="sum",
                )
                total = torch.addmm(total, columns.view(-1, TAPS * channels), kernel)
            out.append(total)
    return torch.cat(out).view(batch, height, width, -1).permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """Return (N, K, H, W) as (N·H·W, K) in fp32 or, where it is more already, in its type: coordinates need that."""
    dtype = torch.promote_types(maps.dtype, torch.float32)
    return maps.permute(0, 2, 3, 1).flatten(0, 2).to(dtype)


def _grid(batch: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each tap of each pixel, (N·H·W, 9), its y and x, and (N·H·W, 1) the first row of its image."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    reach = torch.arange(KERNEL_SIZE) - KERNEL_SIZE // 2
    taps_y, taps_x = reach.repeat_interleave(KERNEL_SIZE), reach.repeat(KERNEL_SIZE)
    first = torch.arange(batch).repeat_interleave(height * width) * ((height + 3) * (width + 3))
    return (
        (y.reshape(-1, 1) + taps_y).float().repeat(batch, 1).to(device),
        (x.reshape(-1, 1) + taps_x).float().repeat(batch, 1).to(device),
        first.view(-1, 1).to(device),
    )


def _bags(
    offset: Tensor, scale: Tensor, y: Tensor, x: Tensor, first: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return which rows each tap of each pixel sums, (P, 9, corners), and with which weights, shape alike."""
    row_length = width + 3
    if offset.shape[1] == 0:  # on the grid: one pixel, no interpolation
        index = ((y + 1) * row_length + (x + 1)).long() + first
        return index.unsqueeze(-1), scale.unsqueeze(-1)
    y, x = _on_map(y + offset[:, 0::2], height), _on_map(x + offset[:, 1::2], width)
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    upper = scale * (1 - down)
    lower = scale * down
    index = ((top + 1) * row_length + (left + 1)).long() + first
    corners = torch.tensor([0, 1, row_length, row_length + 1], device=index.device)
    shares = torch.stack((upper * (1 - right), upper * right, lower * (1 - right), lower * right), dim=-1)
    return index.unsqueeze(-1) + corners, shares


def _on_map(position: Tensor, size: int) -> Tensor:
    """Move points that sample only zeros, and NaN, onto the border of zeros; the rest keep value and gradient.

    `clamp` would do, but whether it passes a gradient on exactly at its bounds depends on PyTorch's version.
    """
    return torch.where((position >= -1) & (position <= size), position, -1.0)
