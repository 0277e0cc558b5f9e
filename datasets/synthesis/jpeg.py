"""Baseline JPEG, as libjpeg compresses and decodes it, for batches of images on any device."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
# ITU-T T.81, tables K.1 and K.2.
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *4 * ((99,) * 8,),
)


def quantisation(quality: np.ndarray) -> np.ndarray:
    """Return (N, 2, 8, 8) float32, the steps of the coefficients of luma and chroma, frequency down and across.

    Args:
        quality: (N,), 1 to 100, as libjpeg and Pillow count.
    """
    quality = quality.astype(np.float32)[:, None, None, None]
    scale = np.where(quality < 50, 5000 * (1 / quality), 200 - 2 * quality)
    tables = np.array([_LUMA_TABLE, _CHROMA_TABLE], np.float32)
    return np.floor((tables * scale + 50) / 100).clip(1, 255)


def jpeg(values: Tensor, steps: Tensor) -> Tensor:
    """Return images as compressed by baseline JPEG with 4:2:0 chroma and decoded again.

    Args:
        values: the images, (N, 3, H, W) in [0, 1]; the blocks begin at the upper left corner.
        steps: (N, 2, 8, 8), see `quantisation`.
    """
    height, width = values.shape[-2:]
    values = F.pad(values, (0, -width % 16, 0, -height % 16), mode="replicate") * 255
    luma = sum(weight * values[:, i] for i, weight in enumerate(_LUMA))
    assert isinstance(luma, Tensor)  # not the 0 of an empty sum
    blue, red = ((values[:, i] - luma) / (2 - 2 * _LUMA[i]) for i in (2, 0))
    chroma = F.avg_pool2d(torch.stack([blue, red], dim=1), 2)
    basis = _cosines(values.is_cuda).to(values.device, non_blocking=True)
    luma = _quantise(luma[:, None] - 128, steps[:, :1], basis)[:, 0] + 128
    chroma = _quantise(chroma, steps[:, 1:], basis)
    blue, red = F.interpolate(chroma, scale_factor=2, mode="bilinear").unbind(1)  # libjpeg's "fancy" upsampling
    red, blue = luma + (2 - 2 * _LUMA[0]) * red, luma + (2 - 2 * _LUMA[2]) * blue
    green = (luma - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
    decoded = torch.stack([red, green, blue], dim=1)[..., :height, :width]
    return decoded.round().clamp(0, 255) / 255


def _quantise(planes: Tensor, steps: Tensor, basis: Tensor) -> Tensor:
    """Round the coefficients of the 8×8 cosine transforms of (N, C, H, W) planes to (N, 1, 8, 8) steps."""
    n, c, height, width = planes.shape
    steps = steps[:, :, None, None]
    blocks = planes.round().clamp(-128, 127).view(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    blocks = (_product(_product(blocks, basis).mT, basis).mT / steps).round() * steps
    blocks = _product(_product(blocks, basis.mT).mT, basis.mT).mT
    return blocks.transpose(3, 4).reshape(planes.shape).round().clamp(-128, 127)


def _product(blocks: Tensor, matrix: Tensor) -> Tensor:
    """Return blocks @ matrixᵀ; by sums, since PyTorch may compute matrix products in TF32 or bf16."""
    return (blocks[..., None, :] * matrix).sum(dim=-1)


@functools.lru_cache(maxsize=2)
def _cosines(pinned: bool) -> Tensor:
    """Return the orthonormal 8×8 DCT-II on the CPU: rows are frequencies."""
    i = torch.arange(8)
    rows = torch.cos(torch.pi * (2 * i[None] + 1) * i[:, None] / 16) / 2
    rows = torch.cat([rows[:1] / 2**0.5, rows[1:]])
    return rows.pin_memory() if pinned else rows
