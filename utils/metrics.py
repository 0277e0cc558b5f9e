"""PSNR and SSIM by the five definitions in use for GoPro, each named after whose tables it can stand beside.

Every function takes two H×W×3 images, uint8 or float in [0, 1], and computes in float64.
"""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from utils.images import to_uint8

SMALLEST = 11  # px: the window of the SSIM
_K1, _K2 = 0.01, 0.03  # Wang et al. 2004


def _check(image: np.ndarray, reference: np.ndarray) -> None:
    if image.shape != reference.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected two H×W×3 images of one size, got {image.shape} and {reference.shape}")
    for array in (image, reference):
        if array.dtype != np.uint8 and not (
            np.issubdtype(array.dtype, np.floating) and array.min() >= 0.0 and array.max() <= 1.0
        ):
            raise ValueError(f"expected uint8, or float in [0, 1], got {array.dtype} {array.min()} to {array.max()}")


def _values(image: np.ndarray, peak: float) -> np.ndarray:
    """Return the image in float64 with values in [0, peak]; peak 255 rounds to what a saved PNG holds."""
    if peak == 255.0:
        return to_uint8(image).astype(np.float64)
    return image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)


def _gaussian(size: int = 11, sigma: float = 1.5) -> np.ndarray:
    return cv2.getGaussianKernel(size, sigma, cv2.CV_64F)


def _filter(weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a separable filter of H×W×3 images with replicate padding."""
    return lambda x: cv2.sepFilter2D(x, cv2.CV_64F, weights, weights, borderType=cv2.BORDER_REPLICATE)


def _valid_filter(weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a separable filter of H×W×3 images that keeps the positions where the window lies inside."""
    half, same_size = len(weights) // 2, _filter(weights)
    return lambda x: same_size(x)[half:-half, half:-half]


def _ssim(
    a: np.ndarray,
    b: np.ndarray,
    smooth: Callable[[np.ndarray], np.ndarray],
    data_range: float,
    sample_correction: float = 1.0,
) -> float:
    """Return the mean of the SSIM map (Wang et al. 2004, eq. 13) with local means taken by `smooth`."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_a, mean_b = smooth(a), smooth(b)
    var_a = sample_correction * (smooth(a * a) - mean_a**2)
    var_b = sample_correction * (smooth(b * b) - mean_b**2)
    cov = sample_correction * (smooth(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * cov + c2) / (var_a + var_b + c2)).mean())


def _check_window(image: np.ndarray, window: int) -> None:
    if min(image.shape[:2]) < window:
        raise ValueError(f"SSIM needs at least {window}×{window} px, got {image.shape[0]}×{image.shape[1]}")


def _psnr(image: np.ndarray, reference: np.ndarray, peak: float) -> float:
    _check(image, reference)
    mse = float(((_values(image, peak) - _values(reference, peak)) ** 2).mean())
    return float("inf") if mse == 0.0 else 10.0 * float(np.log10(peak**2 / mse))


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR in dB over all channels on uint8 values; comparable with MPRNet, Restormer, NAFNet, Stripformer.

    Infinite for equal images. ValueError where shapes or value ranges do not fit (so in all five).
    """
    return _psnr(image, reference, 255.0)


def psnr_float(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR in dB without rounding; comparable with the ASPDC paper, about 0.01 dB higher at 32 dB."""
    return _psnr(image, reference, 1.0)


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the standard SSIM (Wang et al. 2004, BasicSR): Gaussian 11×11, sigma 1.5, valid region, uint8 values."""
    _check(image, reference)
    _check_window(image, 11)
    return _ssim(_values(image, 255.0), _values(reference, 255.0), _valid_filter(_gaussian()), 255.0)


def ssim_released(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the SSIM of the released script, comparable with the ASPDC paper's 0.957 and 0.959.

    Uniform 7×7 windows, sample covariance, values in [0, 1] but a data range of 2, as scikit-image up to 0.19 assumed
    for floats.
    """
    _check(image, reference)
    _check_window(image, 7)
    window = np.full(7, 1 / 7)
    return _ssim(_values(image, 1.0), _values(reference, 1.0), _valid_filter(window), 2.0, 49 / 48)


def ssim_matlab(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the SSIM of MPRNet's, Restormer's and NAFNet's tables (MATLAB `ssim`): the image as an H×W×3 volume.

    Gaussian 11×11×11, sigma 1.5, replicate padding, uint8 values.
    """
    _check(image, reference)
    weights = _gaussian()
    half = len(weights) // 2
    # Along the three channels, replicate padding and the 11 taps together are one 3×3 matrix.
    mix = np.zeros((3, 3))
    for channel in range(3):
        for tap in range(-half, half + 1):
            mix[np.clip(channel + tap, 0, 2), channel] += weights[tap + half, 0]
    in_plane = _filter(weights)
    return _ssim(_values(image, 255.0), _values(reference, 255.0), lambda x: in_plane(x) @ mix, 255.0)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    function.__name__: function for function in (psnr, psnr_float, ssim, ssim_released, ssim_matlab)
}
COMPARABLE_WITH = {
    "psnr": "MPRNet, Restormer, NAFNet, Stripformer tables",
    "psnr_float": "the ASPDC paper",
    "ssim": "the standard (Wang et al. 2004, BasicSR)",
    "ssim_released": "the ASPDC paper",
    "ssim_matlab": "MPRNet, Restormer, NAFNet tables",
}


def score(image: np.ndarray, reference: np.ndarray, names: Iterable[str] = METRICS) -> dict[str, float]:
    """Return metrics of an image against its reference, by name; all five unless some are named."""
    return {name: METRICS[name](image, reference) for name in names}
