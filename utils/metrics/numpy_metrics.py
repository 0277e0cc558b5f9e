"""PSNR and SSIM by the definitions in use for deblurring, each named after the tables that it is comparable with.

The definitions stand here as numbers, with what computes them on the CPU; `utils.metrics.torch_metrics` reads the same
ones for images on a GPU. Every function takes two H×W×3 images, uint8 or float in [0, 1], and computes in float64.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from torch import Tensor

from utils.images.conversion import to_uint8

MIN_SCORED_SIDE = 11  # px: the window of the SSIM
_K1, _K2 = 0.01, 0.03  # Wang et al. 2004

Values = TypeVar("Values", np.ndarray, Tensor)


@dataclass(frozen=True)
class Psnr:
    """A definition of the PSNR.

    Attributes:
        peak: 255 for values rounded to 8 bits, 1 for values in [0, 1].
        luma: of Y alone, see `LUMA`, rather than of the three channels together.
    """

    peak: float
    luma: bool = False


@dataclass(frozen=True)
class Ssim:
    """A definition of the SSIM (Wang et al. 2004, eq. 13).

    Attributes:
        window: weights of the separable window.
        peak: 255 for values rounded to 8 bits, 1 for values in [0, 1].
        data_range: L of the constants (0.01·L)² and (0.03·L)².
        luma: of Y alone, see `LUMA`, rather than the mean over the channels.
        volume: the window goes along the three channels, too, and images are padded by replication; otherwise each
            channel is one image and the window stays inside.
        sample_correction: factor of variances and covariance.
    """

    window: tuple[float, ...]
    peak: float
    data_range: float
    luma: bool = False
    volume: bool = False
    sample_correction: float = 1.0

    def channel_mix(self) -> np.ndarray:
        """Return what replicate padding and the window are together along three channels: 3×3, from × to."""
        half = len(self.window) // 2
        mix = np.zeros((3, 3))
        for channel in range(3):
            for tap in range(-half, half + 1):
                mix[np.clip(channel + tap, 0, 2), channel] += self.window[tap + half]
        return mix


GAUSSIAN = tuple(cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)[:, 0].tolist())
# Y of ITU-R BT.601 from R, G and B in [0, 255], as MATLAB's rgb2ycbcr computes it of floats: 16 to 235, not rounded.
LUMA, LUMA_OF_BLACK = (65.481 / 255, 128.553 / 255, 24.966 / 255), 16.0
PSNR = {"psnr": Psnr(255.0), "psnr_float": Psnr(1.0), "psnr_y": Psnr(255.0, luma=True)}
SSIM = {
    "ssim": Ssim(GAUSSIAN, peak=255.0, data_range=255.0),
    # scikit-image up to 0.19 took floats to range over 2
    "ssim_released": Ssim((1 / 7,) * 7, peak=1.0, data_range=2.0, sample_correction=49 / 48),
    "ssim_matlab": Ssim(GAUSSIAN, peak=255.0, data_range=255.0, volume=True),
    "ssim_y": Ssim(GAUSSIAN, peak=255.0, data_range=255.0, luma=True),
}


def check_shapes(image: np.ndarray, reference: np.ndarray) -> None:
    """Raise ValueError unless both are H×W×3 and of one size."""
    if image.shape != reference.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected two H×W×3 images of one size, got {image.shape} and {reference.shape}")


def check_values(image: np.ndarray | Tensor) -> None:
    """Raise ValueError unless an array or a tensor is uint8, or float in [0, 1]."""
    dtype = str(image.dtype).removeprefix("torch.")
    if dtype != "uint8" and not ("float" in dtype and image.min() >= 0.0 and image.max() <= 1.0):
        raise ValueError(f"expected uint8, or float in [0, 1], got {dtype} {image.min()} to {image.max()}")


def check_window(definition: Ssim, height: int, width: int) -> None:
    """Raise ValueError where a window that has to stay inside is larger than the image."""
    window = len(definition.window)
    if not definition.volume and min(height, width) < window:
        raise ValueError(f"SSIM needs at least {window}×{window} px, got {height}×{width}")


def ssim_map(a: Values, b: Values, smooth: Callable[[Values], Values], definition: Ssim) -> Values:
    """Return the SSIM at every position (Wang et al. 2004, eq. 13), with local means taken by `smooth`."""
    c1, c2 = (_K1 * definition.data_range) ** 2, (_K2 * definition.data_range) ** 2
    mean_a, mean_b = smooth(a), smooth(b)
    var_a = definition.sample_correction * (smooth(a * a) - mean_a**2)
    var_b = definition.sample_correction * (smooth(b * b) - mean_b**2)
    cov = definition.sample_correction * (smooth(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * cov + c2) / (var_a + var_b + c2)


def _values(image: np.ndarray, definition: Psnr | Ssim) -> np.ndarray:
    """Return the image, or its Y (H×W×1), in float64 up to the peak; 255 rounds RGB to what a saved PNG holds."""
    if definition.peak == 255.0:
        rounded = to_uint8(image).astype(np.float64)
        return (rounded @ LUMA + LUMA_OF_BLACK)[..., None] if definition.luma else rounded
    return image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)


def _check(image: np.ndarray, reference: np.ndarray) -> None:
    check_shapes(image, reference)
    check_values(image)
    check_values(reference)


def local_mean(definition: Ssim) -> Callable[[np.ndarray], np.ndarray]:
    """Return the filter of H×W×C images that a definition takes its local means by."""
    window, half = np.array(definition.window), len(definition.window) // 2
    mix = definition.channel_mix()

    def smooth(x: np.ndarray) -> np.ndarray:
        same_size = cv2.sepFilter2D(x, cv2.CV_64F, window, window, borderType=cv2.BORDER_REPLICATE)
        return same_size @ mix if definition.volume else same_size[half:-half, half:-half]

    return smooth


def psnr_of(mse: float, peak: float) -> float:
    """Return the PSNR in dB of a mean squared error, infinite for 0."""
    return float("inf") if mse == 0.0 else 10.0 * float(np.log10(peak**2 / mse))


def _psnr(image: np.ndarray, reference: np.ndarray, definition: Psnr) -> float:
    _check(image, reference)
    difference = _values(image, definition) - _values(reference, definition)
    return psnr_of(float((difference**2).mean()), definition.peak)


def _ssim(image: np.ndarray, reference: np.ndarray, definition: Ssim) -> float:
    _check(image, reference)
    check_window(definition, *image.shape[:2])
    a, b = _values(image, definition), _values(reference, definition)
    return float(ssim_map(a, b, local_mean(definition), definition).mean())


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR in dB over all channels on uint8 values; comparable with MPRNet, Restormer, NAFNet, Stripformer.

    Infinite for equal images. ValueError where shapes or value ranges do not fit (so in all of these).
    """
    return _psnr(image, reference, PSNR["psnr"])


def psnr_float(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR in dB without rounding; comparable with the ASPDC paper, about 0.01 dB higher at 32 dB."""
    return _psnr(image, reference, PSNR["psnr_float"])


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the standard SSIM (Wang et al. 2004, BasicSR): Gaussian 11×11, sigma 1.5, valid region, uint8 values."""
    return _ssim(image, reference, SSIM["ssim"])


def ssim_released(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the SSIM of the released script, comparable with the ASPDC paper's 0.957 and 0.959.

    Uniform 7×7 windows, sample covariance, values in [0, 1] but a data range of 2, as scikit-image up to 0.19 assumed
    for floats.
    """
    return _ssim(image, reference, SSIM["ssim_released"])


def ssim_matlab(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the SSIM of MPRNet's, Restormer's and NAFNet's tables (MATLAB `ssim`): the image as an H×W×3 volume.

    Gaussian 11×11×11, sigma 1.5, replicate padding, uint8 values.
    """
    return _ssim(image, reference, SSIM["ssim_matlab"])


def psnr_y(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR in dB of Y alone, `LUMA` of uint8 RGB, with a peak of 255 (BasicSR's `test_y_channel`)."""
    return _psnr(image, reference, PSNR["psnr_y"])


def ssim_y(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the standard SSIM of Y alone, `LUMA` of uint8 RGB (BasicSR's `test_y_channel`)."""
    return _ssim(image, reference, SSIM["ssim_y"])


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    function.__name__: function for function in (psnr, psnr_float, ssim, ssim_released, ssim_matlab, psnr_y, ssim_y)
}


def score(image: np.ndarray, reference: np.ndarray, names: Iterable[str] = METRICS) -> dict[str, float]:
    """Return metrics of an image against its reference, by name; all of them unless some are named."""
    return {name: METRICS[name](image, reference) for name in names}
