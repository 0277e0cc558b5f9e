"""The definitions of `utils.metrics.numpy_metrics` in PyTorch, for images on a GPU.

All in float64: an SSIM's variances are small differences of large squares. On the CPU OpenCV is the faster one.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.metrics.numpy_metrics import (
    LUMA,
    LUMA_OF_BLACK,
    METRICS,
    PSNR,
    SSIM,
    Psnr,
    Ssim,
    check_shapes,
    check_values,
    check_window,
    ssim_map,
)

_STRIP = 2**21  # px at once: about a dozen maps of 50 MB, whatever the image's size
_IMAGE = (-3, -2, -1)


def score_on(
    device: torch.device, image: np.ndarray, reference: np.ndarray, names: Iterable[str] = METRICS
) -> dict[str, float]:
    """Return what `utils.metrics.numpy_metrics.score` returns, computed on a device.

    Args:
        device: where to compute.
        image: H×W×3, uint8 or float in [0, 1].
        reference: the same.
        names: some of `METRICS`.

    Raises:
        ValueError: as `utils.metrics.numpy_metrics.score`.
    """
    check_shapes(image, reference)
    image_tensor, reference_tensor = (
        torch.from_numpy(np.ascontiguousarray(each)).to(device).movedim(-1, -3) for each in (image, reference)
    )
    scores = score_tensors(image_tensor, reference_tensor, names)
    return dict(zip(scores, torch.stack(list(scores.values())).tolist(), strict=True)) if scores else {}


@torch.inference_mode()
def score_tensors(image: Tensor, reference: Tensor, names: Iterable[str] = METRICS) -> dict[str, Tensor]:
    """Return metrics of images against their references, by name.

    Args:
        image: (3, H, W) or (N, 3, H, W), uint8 or float in [0, 1].
        reference: the same, on the same device.
        names: some of `METRICS`.

    Returns:
        float64 on that device, one value, () or (N,), an image.

    Raises:
        ValueError: shapes or value ranges do not fit, or the images are too small for a window.
    """
    if image.shape != reference.shape or image.ndim not in (3, 4) or image.shape[-3] != 3:
        shapes = f"{tuple(image.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"expected two tensors of 3×H×W images of one size, got {shapes}")
    check_values(image)
    check_values(reference)
    return {
        name: _psnr(image, reference, PSNR[name]) if name in PSNR else _ssim(image, reference, SSIM[name])
        for name in names
    }


def _values(image: Tensor, definition: Psnr | Ssim) -> Tensor:
    """Return the image, or its Y (..., 1, H, W), in float64 up to the peak, as the NumPy metrics do."""
    if definition.peak == 1.0:
        return image.double() / 255.0 if image.dtype == torch.uint8 else image.double()
    rounded = image.double() if image.dtype == torch.uint8 else (image * 255.0).round().double()
    if not definition.luma:
        return rounded
    weights = torch.tensor(LUMA, dtype=torch.float64, device=image.device)[:, None, None]
    return (rounded * weights).sum(dim=-3, keepdim=True) + LUMA_OF_BLACK


def _strips(images: tuple[Tensor, ...], margin: int = 0, pad: bool = False) -> Iterator[list[Tensor]]:
    """Cut images into strips that share `margin` rows at either side; `pad` replicates borders by the margin first."""
    height, width = images[0].shape[-2:]
    if pad:
        rows, columns = (
            torch.arange(-margin, size + margin, device=images[0].device).clamp(0, size - 1) for size in (height, width)
        )
        images = tuple(each.index_select(-2, rows).index_select(-1, columns) for each in images)
        height, width = images[0].shape[-2:]
    step = max(_STRIP // width, 1)
    for top in range(0, height - 2 * margin, step):
        yield [each[..., top : top + step + 2 * margin, :] for each in images]


def _psnr(image: Tensor, reference: Tensor, definition: Psnr) -> Tensor:
    total, count = torch.zeros(image.shape[:-3], dtype=torch.float64, device=image.device), 0
    for a, b in _strips((image, reference)):
        difference = _values(a, definition) - _values(b, definition)
        total += (difference**2).sum(dim=_IMAGE)
        count += difference.shape[-3:].numel()
    return 10.0 * torch.log10(definition.peak**2 / (total / count))


def _ssim(image: Tensor, reference: Tensor, definition: Ssim) -> Tensor:
    height, width = image.shape[-2:]
    check_window(definition, height, width)
    margin = len(definition.window) // 2
    smooth = _filter(definition, image.device)
    total, count = torch.zeros(image.shape[:-3], dtype=torch.float64, device=image.device), 0
    for strips in _strips((image, reference), margin, definition.volume):
        a, b = (_values(each, definition) for each in strips)
        values = ssim_map(a, b, smooth, definition)
        total += values.sum(dim=_IMAGE)
        count += values.shape[-3:].numel()
    return total / count


def _filter(definition: Ssim, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the filter of (..., C, H, W) images that a definition takes its local means by, without padding."""
    channels = 1 if definition.luma else 3
    window = torch.tensor(definition.window, dtype=torch.float64, device=device).repeat(channels, 1)
    mix = torch.from_numpy(definition.channel_mix().T.copy()).to(device)

    def smooth(x: Tensor) -> Tensor:
        x = F.conv2d(x, window[:, None, :, None], groups=channels)
        x = F.conv2d(x, window[:, None, None, :], groups=channels)
        return (mix @ x.flatten(-2)).view_as(x) if definition.volume else x

    return smooth
