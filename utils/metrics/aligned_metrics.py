"""PSNR and SSIM by RealBlur's protocol: the image is aligned to its sharp partner first (Rim et al., ECCV 2020).

RealBlur's two sides come from two cameras, and a network may undo a blur to another place than the sharp one has, so
its authors do not count shifts. As in their script: one factor fits the brightness; ECC (Evangelidis and Psarakis 2008)
finds the homography between the grey images; what it brings in from outside the image does not count.
"""

import cv2
import numpy as np

from utils.images.conversion import to_uint8
from utils.metrics.numpy_metrics import (
    GAUSSIAN,
    Ssim,
    check_shapes,
    check_values,
    check_window,
    local_mean,
    psnr_of,
    ssim_map,
)

ALIGNED = ("psnr_aligned", "ssim_aligned", "aligned")

_SSIM = Ssim(GAUSSIAN, peak=1.0, data_range=1.0)
_ECC_SMOOTHING = 5  # px
_ITERATIONS, _ITERATIONS_AT_ONCE = 100, 10
_MOST_MOVED = 1 / 8  # of the shorter side: a homography that moves a corner farther has lost the picture
_AT_REST = 0.001  # px in ten iterations: the other ones change no PSNR by 0.001 dB


def score_aligned(image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the metrics of `ALIGNED` of an H×W×3 image against its reference, both uint8 or float in [0, 1].

    `aligned` is 1. Where ECC finds no homography, it is 0, and the image is scored where it is. Its brightness is not
    fitted to a black reference: black is 0 times any image.

    Raises:
        ValueError: shapes or value ranges do not fit, or the image is too small for the SSIM.
    """
    check_shapes(image, reference)
    check_values(image)
    check_values(reference)
    check_window(_SSIM, *image.shape[:2])
    restored, sharp = (to_uint8(each).astype(np.float32) / 255 for each in (image, reference))
    if restored.any() and sharp.any():
        restored *= np.sum(sharp * restored) / np.sum(restored * restored)
    homography = _homography(restored, sharp)
    mask = np.ones_like(sharp)  # of one channel OpenCV 4.13 would warp it to another one
    if homography is not None:
        size, inverse = sharp.shape[1::-1], cv2.WARP_INVERSE_MAP
        cubic, nearest = cv2.INTER_CUBIC | inverse, cv2.INTER_NEAREST | inverse
        restored = cv2.warpPerspective(restored, homography, size, flags=cubic, borderMode=cv2.BORDER_REFLECT)
        mask = cv2.warpPerspective(mask, homography, size, flags=nearest)
    a, b = ((each * mask).astype(np.float64) for each in (restored, sharp))
    half = len(GAUSSIAN) // 2
    inside = mask[half:-half, half:-half].astype(np.float64)
    similarity = ssim_map(a, b, local_mean(_SSIM), _SSIM)
    return {
        "psnr_aligned": psnr_of(float(((a - b) ** 2).sum() / mask.sum(dtype=np.float64)), peak=1.0),
        "ssim_aligned": float((similarity * inside).sum() / inside.sum()),
        "aligned": float(homography is not None),
    }


def _homography(image: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """Return the 3×3 homography from places of the reference to those of the image, or None where ECC finds none."""
    template, grey = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (reference, image))
    everywhere = np.ones(grey.shape, np.uint8)
    homography = np.eye(3, dtype=np.float32)
    corners = at_first = _corners(homography, image)
    criteria = (cv2.TERM_CRITERIA_COUNT, _ITERATIONS_AT_ONCE, 0.0)
    for _ in range(0, _ITERATIONS, _ITERATIONS_AT_ONCE):  # ECC keeps nothing else from one iteration to the next
        try:
            _, homography = cv2.findTransformECC(
                template, grey, homography, cv2.MOTION_HOMOGRAPHY, criteria, everywhere, _ECC_SMOOTHING
            )
        except cv2.error as error:
            if error.code != cv2.Error.StsNoConv:  # "do not converge": of images of one colour, too
                raise
            return None
        before, corners = corners, _corners(homography, image)
        if np.abs(corners - before).max() < _AT_REST:
            break
    lost = not np.abs(corners - at_first).max() <= _MOST_MOVED * min(image.shape[:2])  # NaN is lost, too
    return None if lost else homography


def _corners(homography: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return where a homography takes the corners of an image, 4×2."""
    height, width = image.shape[:2]
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)]) @ homography.T
    return corners[:, :2] / corners[:, 2:]
