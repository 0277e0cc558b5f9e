"""Exposures: the mean of sub-frames sampled from a photograph under each one's motion, in chunks on any device."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.synthesis.motion import HARMONICS, Motion, Region

_SAMPLES_AT_ONCE = {"cpu": 2**22, "cuda": 2**25}  # pixels of sub-frames: bounds the memory


def send(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array on a device, without waiting for what a GPU has to do before."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def crop(images: Tensor, margin: int) -> Tensor:
    """Return a copy of (N, C, H, W) images without their margins."""
    inner = images[..., margin : images.shape[-2] - margin, margin : images.shape[-1] - margin]
    return inner.clone(memory_format=torch.contiguous_format)


def average(light: Tensor, motion: Motion, margin: int) -> tuple[Tensor, Tensor]:
    """Return the mean over the exposure and the middle sub-frame of (N, 3, H, W) light, without the margin.

    Args:
        light: linear, of any range.
        motion: of each image.
        margin: px at each border.
    """
    n, _, height, width = light.shape
    inner = height - 2 * margin, width - 2 * margin
    middle = crop(light, margin)
    layers = []
    for region in motion.regions:
        images = send(region.images, light.device)
        cut_out = _cut_out(light[images], region)
        layers.append((images, cut_out, _sampling_maps(region.maps, light, margin)))
        colour, alpha = crop(cut_out, margin).split((3, 1), dim=1)
        middle[images] = middle[images] * (1 - alpha) + colour
    camera = _sampling_maps(motion.camera, light, margin)
    shown = np.arange(motion.counts.max()) < motion.counts[:, None]
    weights = send((shown / motion.counts[:, None]).astype(np.float32), light.device)
    total = torch.zeros_like(middle)
    samples = _SAMPLES_AT_ONCE.get(light.device.type, _SAMPLES_AT_ONCE["cpu"])
    size = max(1, samples // (n * inner[0] * inner[1]))
    for start in range(0, camera.shape[1], size):
        part = slice(start, start + size)
        frames = _warp(light, camera[:, part], inner)
        for images, cut_out, maps in layers:
            colour, alpha = _warp(cut_out, maps[:, part], inner).split((3, 1), dim=1)
            frames[images] = frames[images] * (1 - alpha) + colour
        total += frames.mul_(weights[:, None, part, None, None]).sum(dim=2)
    return total, middle


def _cut_out(light: Tensor, region: Region) -> Tensor:
    """Return (n, 4, H, W): the content of regions times their opacity, and the opacity."""
    height, width = light.shape[-2:]
    outline = send(region.outline.astype(np.float32), light.device)
    x, y, radius, edge, axes, angle = outline[:, :6].T[..., None, None]
    bumps, phases = outline[:, 6:].T[..., None, None].split(HARMONICS)
    down = torch.arange(height, device=light.device)[:, None] - y
    across = torch.arange(width, device=light.device) - x
    along = (across * angle.cos() + down * angle.sin()) * axes.sqrt()
    aside = (down * angle.cos() - across * angle.sin()) / axes.sqrt()
    direction = torch.atan2(aside, along)
    waves = sum(bumps[k] * torch.cos((2 + k) * direction + phases[k]) for k in range(HARMONICS))
    assert isinstance(waves, Tensor)  # not the 0 of an empty sum
    inside = radius * (1 + waves).clamp(min=0.2) - torch.hypot(along, aside)
    opacity = (0.5 + inside / (2 * edge)).clamp_(0.0, 1.0)
    opacity = (opacity * opacity * (3 - 2 * opacity))[:, None]
    pasted = send(region.pasted, light.device)[:, None, None, None]
    content = torch.where(pasted, light.flip(-1), light)
    return torch.cat([content * opacity, opacity], dim=1)


def _sampling_maps(maps: np.ndarray, light: Tensor, margin: int) -> Tensor:
    """Return maps (n, T, 3, 3) in px as ones from places inside the margin to `grid_sample`'s range, on the device."""
    height, width = light.shape[-2:]
    shift = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1]])
    normalise = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return send((normalise @ maps @ shift).astype(np.float32), light.device)


def _warp(images: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (n, C, T, *size): (n, C, H, W) images sampled under (n, T, 3, 3) maps, bilinearly, reflected outside."""
    y = torch.arange(size[0], device=images.device, dtype=images.dtype)[:, None]
    x = torch.arange(size[1], device=images.device, dtype=images.dtype)
    rows = maps[..., None, None, :, :].unbind(-2)  # n, T, 1, 1, 3
    u, v, w = (row[..., 0] * x + (row[..., 1] * y + row[..., 2]) for row in rows)
    grid = torch.stack([u / w, v / w], dim=-1)  # n, T, height, width, 2
    warped = F.grid_sample(images, grid.flatten(1, 2), padding_mode="reflection", align_corners=False)
    return warped.unflatten(2, grid.shape[1:3])
