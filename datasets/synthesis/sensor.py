"""A camera's sensor: its response curve, noise and JPEG, for batches of images on any device.

Images are (N, 3, H, W) float32 in [0, 1]; parameters of the images are (N, 1, 1, 1).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.synthesis.jpeg import jpeg
from datasets.synthesis.motion import between, check_limits, draw

_SENSOR = 2  # a stream of random numbers
_GOPRO_GAMMA = 2.2
_HIGHLIGHT = 0.9  # from this value on a photograph's highlights are taken for brighter than it could record
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


class Response:
    """Invertible response curves: value = s(light ** (1 / gamma)) with logit s(u) = contrast * logit(u) + brightness.

    Contrast 1 and brightness 0 leave the power law; with gamma 1 that is GoPro's `blur`, with 2.2 its `blur_gamma`.

    Args:
        numbers: (6, N), see `numbers_of`, on the images' device.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._power, self._root, *self._back, self._contrast, self._odds = numbers[..., None, None, None]

    @staticmethod
    def numbers_of(gamma: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
        """Return the (6, N) numbers from which the curves of (N,) parameters are computed; a GPU is sent them."""
        back = 1 / contrast, torch.exp(brightness / contrast)
        return torch.stack([gamma, 1 / gamma, *back, contrast, torch.exp(-brightness)])

    def light(self, values: Tensor) -> Tensor:
        """Return the light in [0, 1] that gives the values."""
        return _sigmoid(values, *self._back) ** self._power

    def values(self, light: Tensor) -> Tensor:
        """Return the values that light in [0, 1] gives."""
        return _sigmoid(light**self._root, self._contrast, self._odds)


def _sigmoid(values: Tensor, contrast: Tensor, odds: Tensor) -> Tensor:
    high, low = values**contrast, odds * (1 - values) ** contrast
    return high / (high + low)


@dataclass(frozen=True)
class Cameras:
    """Random parameters of the cameras of N images.

    Attributes:
        numbers: (9, N) float32: those of `Response`, how much brighter highlights are, the noise's shot and read.
        keys: (N, 2) uint32, of the noise.
        brightened: (N,) bool, with highlights brighter than the photograph could record.
        compressed: (N,) bool, by JPEG.
        quality: (N,), of JPEG.
    """

    numbers: np.ndarray
    keys: np.ndarray
    brightened: np.ndarray
    compressed: np.ndarray
    quality: np.ndarray


def draw_cameras(seeds: Sequence[int], settings: SensorSettings) -> Cameras:
    """Draw the cameras of images from their seeds."""
    uniform, _ = draw(seeds, _SENSOR, 12, 0)
    kind, low = uniform[:, 0], settings.share_linear
    curved = kind >= low + settings.share_gamma
    gamma = np.where(curved, between(settings.gamma, uniform[:, 1]), np.where(kind < low, 1.0, _GOPRO_GAMMA))
    contrast = np.where(curved, between(settings.contrast, uniform[:, 2], logarithmic=True), 1.0)
    brightness = np.where(curved, between(settings.brightness, uniform[:, 3]), 0.0)
    brightened = (kind >= low) & (uniform[:, 4] < settings.share_highlights)
    highlights = np.where(brightened, between(settings.highlights, uniform[:, 5], logarithmic=True), 1.0)
    shot = between(settings.shot, uniform[:, 6], logarithmic=True)
    read = between(settings.read, uniform[:, 7], logarithmic=True)
    compressed = uniform[:, 8] < settings.share_jpeg
    quality = np.round(between(settings.quality, uniform[:, 9]))
    curves = Response.numbers_of(*torch.from_numpy(np.stack([gamma, contrast, brightness]).astype(np.float32)))
    numbers = np.stack([*curves.numpy(), highlights, shot, read]).astype(np.float32)
    return Cameras(numbers, (uniform[:, 10:] * 2**32).astype(np.uint32), brightened, compressed, quality)


class Sensor:
    """The sensors of a batch's cameras, for light and values.

    Args:
        numbers: (9, N), see `Cameras`, on the images' device.
        keys: (N, 2) int64 or int32, of 32 bits.
        steps: (N, 2, 8, 8), see `quantisation`, zeros for images that are not compressed; None if none is.
        brightened: whether any image has brighter highlights.
    """

    def __init__(self, numbers: Tensor, keys: Tensor, steps: Tensor | None, brightened: bool) -> None:
        self._response = Response(numbers[:6])
        self._highlights, self._shot, self._read = numbers[6:, :, None, None, None]
        self._keys, self._steps, self._brightened = keys, steps, brightened

    def light(self, values: Tensor) -> Tensor:
        """Return the light of a photograph's values in [0, 1]; where these are highest it may be above 1."""
        light = self._response.light(values)
        if not self._brightened:
            return light
        part = ((values.amax(dim=1, keepdim=True) - _HIGHLIGHT) / (1 - _HIGHLIGHT)).clamp_(min=0.0)
        return light * (1 + (self._highlights - 1) * part * part * (3 - 2 * part))

    def values(self, light: Tensor) -> Tensor:
        """Return the values in [0, 1] of light without noise, (..., N, 3, H, W)."""
        return self._response.values(light.clamp(0.0, 1.0))

    def record(self, values: Tensor) -> Tensor:
        """Return what is left of such values of N images in a file: with noise, of 8 bits, some compressed."""
        values = to_8_bits(add_noise(values, self._shot, self._read, self._keys))
        if self._steps is None:
            return values
        return torch.where(self._steps[:, :1, :1, :1] > 0, jpeg(values, self._steps), values)


def to_8_bits(values: Tensor) -> Tensor:
    """Round values in [0, 1] to those of 8 bits."""
    return (values * 255).round_().div_(255)


def add_noise(values: Tensor, shot: Tensor, read: Tensor, keys: Tensor) -> Tensor:
    """Add a sensor's noise: of variance shot * x + read² where x is the light in [0, 1] by the sRGB curve.

    Args:
        values: the images, sRGB.
        shot: the light of one electron, as a part of the full range.
        read: standard deviation.
        keys: (N, 2) int64 or int32, of 32 bits; an image's noise follows from its own.
    """
    light = torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    light = light + (shot * light + read**2).sqrt() * gaussian(keys, values.shape[1:])
    light = light.clamp(0.0, 1.0)
    return torch.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)


def gaussian(keys: Tensor, shape: torch.Size) -> Tensor:
    """Return (N, *shape) normal numbers that follow from (N, 2) keys of 32 bits and their places alone."""
    places = _hashed_places(shape.numel(), keys.is_cuda).to(keys.device, non_blocking=True)
    first, second = (_hash((places + keys.T[..., None]) & _MASK_32) + 0.5) / 2**32  # (N, places) each
    return ((-2 * first.log()).sqrt() * torch.cos(2 * torch.pi * second)).view(-1, *shape)


@functools.lru_cache(maxsize=1)
def _hashed_places(count: int, pinned: bool) -> Tensor:
    """Return the (count,) hashes of 0, 1, 2, ... on the CPU: one copy for a GPU instead of eleven launches.

    On the GPU they could not stay, since only one stream would know when they are there.
    """
    hashes = _hash(torch.arange(count))
    return hashes.pin_memory() if pinned else hashes


def _hash(x: Tensor) -> Tensor:
    """Return a one-to-one map of 32-bit integers, held in int64, without visible order (C. Wellons' lowbias32)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & _MASK_32
    return x ^ (x >> 16)
