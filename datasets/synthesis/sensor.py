"""A camera's sensor: its response curve, noise and JPEG, for batches of images on any device.

Images are (N, 3, H, W) float32 in [0, 1]; parameters of the images are (N, 1, 1, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.synthesis.motion import between, check_limits, draw
from datasets.synthesis.rendering import send

_SENSOR = 2  # a stream of random numbers
_GOPRO_GAMMA = 2.2
_HIGHLIGHT = 0.9  # from this value on a photograph's highlights are taken for brighter than it could record
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
_MASK_32 = 0xFFFFFFFF
# Beyond these a picture is one colour, or no longer a number; quality is libjpeg's.
_LIMITS = {
    **{"gamma": (0.1, 10.0), "contrast": (0.1, 10.0), "brightness": (-5.0, 5.0), "highlights": (0.01, 1e3)},
    **{"shot": (1e-12, 1.0), "read": (1e-12, 1.0), "quality": (1.0, 100.0)},
}


@dataclass(frozen=True)
class SensorSettings:
    """What cameras are drawn; pairs are (lowest, highest), shares are of images.

    Attributes:
        share_linear: averaged as the values are, as GoPro's `blur`.
        share_gamma: averaged in the light of a gamma of 2.2, as GoPro's `blur_gamma`. The remaining images are
            averaged in the light of a random response curve.
        gamma: of the random curves, uniform.
        contrast: slope of the random curves' tone mapping in the middle, log-uniform.
        brightness: shift of its logit, uniform.
        share_highlights: of the images averaged in light, with highlights brighter than the photograph could record.
        highlights: how much brighter, log-uniform.
        shot: see `add_noise`, log-uniform: 2e-4 is 1.8 grey levels (standard deviation) in mid-grey.
        read: see there, log-uniform: 1e-3 is 3.3 grey levels in black.
        share_jpeg: compressed.
        quality: of JPEG, uniform.
    """

    share_linear: float = 0.7
    share_gamma: float = 0.15
    gamma: tuple[float, float] = (1.8, 2.6)
    contrast: tuple[float, float] = (0.8, 1.25)
    brightness: tuple[float, float] = (-0.4, 0.4)
    share_highlights: float = 0.5
    highlights: tuple[float, float] = (1.0, 10.0)
    shot: tuple[float, float] = (1e-6, 2e-4)
    read: tuple[float, float] = (1e-5, 1e-3)
    share_jpeg: float = 0.1
    quality: tuple[float, float] = (60.0, 95.0)

    def __post_init__(self) -> None:
        for name, limits in _LIMITS.items():
            check_limits(name, getattr(self, name), *limits)


@dataclass(frozen=True)
class Response:
    """Invertible response curves: value = s(light ** (1 / gamma)) with logit s(u) = contrast * logit(u) + brightness.

    Contrast 1 and brightness 0 leave the power law; with gamma 1 that is GoPro's `blur`, with 2.2 its `blur_gamma`.
    """

    gamma: Tensor
    contrast: Tensor
    brightness: Tensor

    def light(self, values: Tensor) -> Tensor:
        """Return the light in [0, 1] that gives the values."""
        return _sigmoid(values, 1 / self.contrast, -self.brightness / self.contrast) ** self.gamma

    def values(self, light: Tensor) -> Tensor:
        """Return the values that light in [0, 1] gives."""
        return _sigmoid(light ** (1 / self.gamma), self.contrast, self.brightness)


def _sigmoid(values: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    high, low = values**contrast, torch.exp(-brightness) * (1 - values) ** contrast
    return high / (high + low)


class Sensor:
    """Random parameters of a batch's cameras, for light and values.

    Args:
        seeds: of the N images.
        settings: what is drawn.
        device: where the images are.

    Attributes:
        brightened: (N,) bool: images with highlights brighter than the photograph could record.
    """

    def __init__(self, seeds: Sequence[int], settings: SensorSettings, device: torch.device) -> None:
        uniform, _ = draw(seeds, _SENSOR, 12, 0)
        kind, low = uniform[:, 0], settings.share_linear
        curved = kind >= low + settings.share_gamma
        gamma = np.where(curved, between(settings.gamma, uniform[:, 1]), np.where(kind < low, 1.0, _GOPRO_GAMMA))
        contrast = np.where(curved, between(settings.contrast, uniform[:, 2], logarithmic=True), 1.0)
        brightness = np.where(curved, between(settings.brightness, uniform[:, 3]), 0.0)
        self.brightened = (kind >= low) & (uniform[:, 4] < settings.share_highlights)
        highlights = np.where(self.brightened, between(settings.highlights, uniform[:, 5], logarithmic=True), 1.0)
        shot = between(settings.shot, uniform[:, 6], logarithmic=True)
        read = between(settings.read, uniform[:, 7], logarithmic=True)
        self._compressed = np.flatnonzero(uniform[:, 8] < settings.share_jpeg)
        quality = np.round(between(settings.quality, uniform[:, 9]))
        numbers = np.stack([gamma, contrast, brightness, highlights, shot, read, quality]).astype(np.float32)
        numbers = send(numbers, device)[..., None, None, None]
        self._response = Response(*numbers[:3])
        self._highlights, self._shot, self._read, self._quality = numbers[3:]
        self._keys = send((uniform[:, 10:] * 2**32).astype(np.int64), device)

    def light(self, values: Tensor) -> Tensor:
        """Return the light of a photograph's values in [0, 1]; where these are highest it may be above 1."""
        part = ((values.amax(dim=1, keepdim=True) - _HIGHLIGHT) / (1 - _HIGHLIGHT)).clamp_(min=0.0)
        return self._response.light(values) * (1 + (self._highlights - 1) * part * part * (3 - 2 * part))

    def values(self, light: Tensor) -> Tensor:
        """Return the values, of 8 bits in [0, 1], of light without noise."""
        return _to_8_bits(self._response.values(light.clamp(0.0, 1.0)))

    def record(self, light: Tensor) -> Tensor:
        """Return the values, of 8 bits in [0, 1], that light leaves in a file."""
        values = self._response.values(light.clamp(0.0, 1.0))
        values = _to_8_bits(add_noise(values, self._shot, self._read, self._keys))
        if len(self._compressed):
            chosen = send(self._compressed, values.device)
            values[chosen] = jpeg(values[chosen], self._quality[chosen])
        return values


def _to_8_bits(values: Tensor) -> Tensor:
    return (values * 255).round_().div_(255)


def add_noise(values: Tensor, shot: Tensor, read: Tensor, keys: Tensor) -> Tensor:
    """Add a sensor's noise: of variance shot * x + read² where x is the light in [0, 1] by the sRGB curve.

    Args:
        values: the images, sRGB.
        shot: the light of one electron, as a part of the full range.
        read: standard deviation.
        keys: (N, 2) int64 of 32 bits; an image's noise follows from its own.
    """
    light = torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    light = light + (shot * light + read**2).sqrt() * gaussian(keys, values.shape[1:])
    light = light.clamp(0.0, 1.0)
    return torch.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)


def gaussian(keys: Tensor, shape: torch.Size) -> Tensor:
    """Return (N, *shape) normal numbers that follow from (N, 2) int64 keys of 32 bits and their places alone."""
    indices = _hash(torch.arange(shape.numel(), device=keys.device))
    first, second = ((_hash((indices + key) & _MASK_32).float() + 0.5) / 2**32 for key in keys.T.unsqueeze(-1))
    return ((-2 * first.log()).sqrt() * torch.cos(2 * torch.pi * second)).view(-1, *shape)


def _hash(x: Tensor) -> Tensor:
    """Return a one-to-one map of 32-bit integers, held in int64, without visible order (C. Wellons' lowbias32)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & _MASK_32
    return x ^ (x >> 16)


def jpeg(values: Tensor, quality: Tensor) -> Tensor:
    """Return images as compressed by baseline JPEG with 4:2:0 chroma and decoded again.

    Args:
        values: the images; the blocks begin at the upper left corner.
        quality: 1 to 100, as libjpeg and Pillow count.
    """
    height, width = values.shape[-2:]
    values = F.pad(values, (0, -width % 16, 0, -height % 16), mode="replicate") * 255
    luma = sum(weight * values[:, i] for i, weight in enumerate(_LUMA))
    assert isinstance(luma, Tensor)  # not the 0 of an empty sum
    blue, red = ((values[:, i] - luma) / (2 - 2 * _LUMA[i]) for i in (2, 0))
    chroma = F.avg_pool2d(torch.stack([blue, red], dim=1), 2)
    luma = _quantise(luma[:, None] - 128, quality, _LUMA_TABLE)[:, 0] + 128
    chroma = _quantise(chroma, quality, _CHROMA_TABLE)
    blue, red = F.interpolate(chroma, scale_factor=2, mode="bilinear").unbind(1)  # libjpeg's "fancy" upsampling
    red, blue = luma + (2 - 2 * _LUMA[0]) * red, luma + (2 - 2 * _LUMA[2]) * blue
    green = (luma - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
    decoded = torch.stack([red, green, blue], dim=1)[..., :height, :width]
    return decoded.round().clamp(0, 255) / 255


def _quantise(planes: Tensor, quality: Tensor, table: tuple[tuple[int, ...], ...]) -> Tensor:
    """Round the coefficients of the 8×8 cosine transforms of (N, C, H, W) planes with values around 0."""
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = send(np.array(table, np.float32), planes.device)  # frequency down, frequency across
    steps = ((steps * scale + 50) / 100).floor().clamp(1, 255)[:, :, None, None]
    basis = _cosines(planes.device)
    n, c, height, width = planes.shape
    blocks = planes.round().clamp(-128, 127).view(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    blocks = (_product(_product(blocks, basis).mT, basis).mT / steps).round() * steps
    blocks = _product(_product(blocks, basis.mT).mT, basis.mT).mT
    return blocks.transpose(3, 4).reshape(planes.shape).round().clamp(-128, 127)


def _product(blocks: Tensor, matrix: Tensor) -> Tensor:
    """Return blocks @ matrixᵀ; by sums, since PyTorch may compute matrix products in TF32 or bf16."""
    return (blocks[..., None, :] * matrix).sum(dim=-1)


def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal 8×8 DCT-II: rows are frequencies."""
    i = torch.arange(8, device=device)
    rows = torch.cos(torch.pi * (2 * i[None] + 1) * i[:, None] / 16) / 2
    return torch.cat([rows[:1] / 2**0.5, rows[1:]])
