"""Exposures: the mean of sub-frames sampled from a photograph under each one's motion, in chunks on any device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.synthesis.motion import HARMONICS, Motion

_SAMPLES_AT_ONCE = {"cpu": 2**22, "cuda": 3 * 2**23}  # pixels of images' sub-frames: bounds the memory


@dataclass(frozen=True)
class Exposure:
    """The motion of N images and of the P regions of all of them, on the images' device.

    Attributes:
        maps: (N + P, T, 3, 3), of the images, then of the regions: from places inside the margin, in px, to where they
            come from in `grid_sample`'s range.
        weights: (N, T), each sub-frame's share of the exposure.
        outlines: (P, 7 + 2 * HARMONICS): as in `Regions`, but the whole width of the edge, the root of the axes' ratio,
            and cosine and sine of their angle.
        pasted: (P,), 1.0 for regions with content of the mirrored image, else 0.0.
        ruler: 0, 1, 2, ..., at least as many as an image's longer side has px.
        regions: which image each is a region of; those in front come last.
    """

    maps: Tensor
    weights: Tensor
    outlines: Tensor
    pasted: Tensor
    ruler: Tensor
    regions: Sequence[int]


def exposure_arrays(motion: Motion, height: int, width: int, margin: int) -> list[np.ndarray]:
    """Return all but the last attribute of the `Exposure` of a motion.

    Args:
        motion: of images of this size.
        height: px, with the margin.
        width: px, with the margin.
        margin: px at each border.
    """
    shift = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1]])
    normalise = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    shown = np.arange(motion.counts.max()) < motion.counts[:, None]
    maps = normalise @ np.concatenate([motion.camera, motion.regions.maps]) @ shift
    outlines = torch.from_numpy(motion.regions.outlines.astype(np.float32))
    (edge, axes, angle), rest = outlines[:, 3:6].T, outlines[:, 6:]
    form = torch.stack([2 * edge, axes.sqrt(), angle.cos(), angle.sin()], dim=1)
    outlines = torch.cat([outlines[:, :3], form, rest], dim=1).numpy()
    ruler = np.arange(max(height, width, 2 + HARMONICS))
    return [maps, shown / motion.counts[:, None], outlines, motion.regions.pasted, ruler]


def inside(images: Tensor, margin: int) -> Tensor:
    """Return (N, C, H, W) images without their margins, as a view."""
    return images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]


def average(light: Tensor, exposure: Exposure, margin: int) -> tuple[Tensor, Tensor]:
    """Return the mean over the exposure and the middle sub-frame of (N, 3, H, W) light, without the margin.

    Args:
        light: linear, of any range.
        exposure: of the images.
        margin: px at each border.
    """
    n, regions = len(light), exposure.regions
    middle = inside(light, margin).clone(memory_format=torch.contiguous_format)
    height, width = middle.shape[-2:]
    cut_outs = None
    if regions:
        cut_outs = _cut_out(torch.stack([light[image] for image in regions]), exposure)
        _cover(middle, inside(cut_outs, margin), regions)
    samples = _SAMPLES_AT_ONCE.get(light.device.type, _SAMPLES_AT_ONCE["cpu"])
    size, sums = max(1, samples // (n * height * width)), []
    for maps, weights in zip(exposure.maps.split(size, dim=1), exposure.weights.split(size, dim=1), strict=True):
        grids = _grids(maps, exposure.ruler[:height, None], exposure.ruler[:width])
        frames = _warp(light, grids[:n])
        if cut_outs is not None:
            _cover(frames, _warp(cut_outs, grids[n:]), regions)
        sums.append(frames.mul_(weights[:, None, :, None, None]).sum(dim=2))
    return reduce(torch.add, sums), middle


def _cover(images: Tensor, cut_outs: Tensor, regions: Sequence[int]) -> None:
    """Put cut-outs (P, 4, ...) before their images (N, 3, ...), in place."""
    colours, opacity = cut_outs.split((3, 1), dim=1)
    for image, colour, clear in zip(regions, colours.unbind(), (1 - opacity).unbind(), strict=True):
        images[image].mul_(clear).add_(colour)  # by views: indices would have to be brought to a GPU


def _cut_out(light: Tensor, exposure: Exposure) -> Tensor:
    """Return (P, 4, H, W): the content of regions times their opacity, and the opacity, of images (P, 3, H, W)."""
    height, width = light.shape[-2:]
    x, y, radius, edge, stretch, cosine, sine = exposure.outlines[:, :7].T[..., None, None]
    bumps, phases = exposure.outlines[:, 7:, None, None].split(HARMONICS, dim=1)
    down, across = exposure.ruler[:height, None] - y, exposure.ruler[:width] - x
    along = (across * cosine + down * sine) * stretch
    aside = (down * cosine - across * sine) / stretch
    orders = exposure.ruler[2 : 2 + HARMONICS, None, None]
    waves = bumps * torch.cos(orders * torch.atan2(aside, along)[:, None] + phases)  # P, HARMONICS, H, W
    within = radius * (1 + waves.sum(dim=1)).clamp(min=0.2) - torch.hypot(along, aside)
    opacity = (0.5 + within / edge).clamp_(0.0, 1.0)
    opacity = (opacity * opacity * (3 - 2 * opacity))[:, None]
    content = torch.where(exposure.pasted.bool()[:, None, None, None], light.flip(-1), light)
    return torch.cat([content * opacity, opacity], dim=1)


def _grids(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return (n, T, H, W, 2), where pixels at y (H, 1) and x (W,) of sub-frames come from by (n, T, 3, 3) maps."""
    first, second, third = maps.movedim(2, 0)[..., None, None].unbind(3)  # 3, n, T, 1, 1 each
    places = first * x + (second * y + third)
    return (places[:2] / places[2]).movedim(0, -1)


def _warp(images: Tensor, grids: Tensor) -> Tensor:
    """Return (n, C, T, H, W): (n, C, ...) images sampled at (n, T, H, W, 2), bilinearly, reflected outside."""
    warped = F.grid_sample(images, grids.flatten(1, 2), padding_mode="reflection", align_corners=False)
    return warped.unflatten(2, grids.shape[1:3])
