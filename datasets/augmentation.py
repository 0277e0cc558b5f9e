"""The published augmentation: one of five warps of the frame, equally likely, then a random crop.

These are albumentations' defaults of 2021 (some of them no longer exist there). Each warp is a coordinate map known in
closed form, so the crop is sampled from the frame directly; the result has the distribution of warping the whole frame
and cropping after, at the cost of the crop. Bilinear, reflect-101 borders.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# albumentations would look for a newer version over the network when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np

SHIFT, SCALE, ROTATION = 0.0625, 0.1, 45.0  # of the frame's size; around 1; in degrees
DISTORTION = 0.05
CONTROL_POINT_SHIFT = 50.0  # px

Coordinates = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Warp:
    """A frame warp: the size of its result in px, and where each of its pixels (x, y) comes from in the frame."""

    height: int
    width: int
    source: Callable[[np.ndarray, np.ndarray], Coordinates]


def horizontal_flip(height: int, width: int, rng: random.Random) -> Warp:
    """Mirror left and right."""
    return Warp(height, width, lambda x, y: (width - 1 - x, y))


def transpose(height: int, width: int, rng: random.Random) -> Warp:
    """Swap rows and columns."""
    return Warp(width, height, lambda x, y: (y, x))


def shift_scale_rotate(height: int, width: int, rng: random.Random) -> Warp:
    """Rotate by up to ±45° about the centre, scale by 0.9 to 1.1, shift by up to ±6.25 % of each side."""
    angle = rng.uniform(-ROTATION, ROTATION)
    scale = rng.uniform(1.0 - SCALE, 1.0 + SCALE)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    matrix[:, 2] += rng.uniform(-SHIFT, SHIFT) * width, rng.uniform(-SHIFT, SHIFT) * height
    return _affine(height, width, matrix)


def optical_distortion(height: int, width: int, rng: random.Random) -> Warp:
    """Distort radially with k1 = k2 uniform in ±0.05, a camera of fx = W, fy = H and a centred principal point."""
    k = rng.uniform(-DISTORTION, DISTORTION)

    def source(x: np.ndarray, y: np.ndarray) -> Coordinates:
        # The formula of cv2.initUndistortRectifyMap, whose new camera has its principal point between the end pixels.
        u, v = (x - (width - 1) / 2) / width, (y - (height - 1) / 2) / height
        r2 = u * u + v * v
        radial = 1.0 + k * r2 + k * r2 * r2
        return u * radial * width + width / 2, v * radial * height + height / 2

    return Warp(height, width, source)


def control_point_affine(height: int, width: int, rng: random.Random) -> Warp:
    """Move three control points around the centre by up to ±50 px each: the affine part of the 2021 elastic transform.

    Its displacement field is skipped: with the defaults it stays within about 0.02 px (docs/fidelity.md, D).
    """
    reach = min(height, width) // 3
    x, y = width // 2, height // 2
    points = np.array([(x + reach, y + reach), (x + reach, y - reach), (x - reach, y - reach)], np.float32)
    shifts = [[rng.uniform(-CONTROL_POINT_SHIFT, CONTROL_POINT_SHIFT) for _ in "xy"] for _ in points]
    return _affine(height, width, cv2.getAffineTransform(points, points + np.array(shifts, np.float32)))


def _affine(height: int, width: int, forward: np.ndarray) -> Warp:
    inverse = cv2.invertAffineTransform(forward)
    return Warp(
        height,
        width,
        lambda x, y: (
            inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2],
            inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2],
        ),
    )


def _enlarged(warp: Warp, factor: float) -> Warp:
    def source(x: np.ndarray, y: np.ndarray) -> Coordinates:
        return warp.source((x + 0.5) / factor - 0.5, (y + 0.5) / factor - 0.5)

    return Warp(round(warp.height * factor), round(warp.width * factor), source)


WARPS = (horizontal_flip, shift_scale_rotate, transpose, optical_distortion, control_point_affine)


def _window(size: int, patch_size: int, rng: random.Random) -> np.ndarray:
    """Return the positions in [0, size) of a random window; a smaller side is centred and reflected (reflect-101)."""
    padding = max(patch_size - size, 0)
    start = rng.randint(0, size + padding - patch_size) - padding // 2
    positions = np.arange(start, start + patch_size)
    period = max(2 * (size - 1), 1)
    positions %= period
    return np.minimum(positions, period - positions) if size > 1 else np.zeros_like(positions)


class WarpedCrop(A.DualTransform):
    """Sample a patch_size × patch_size crop of a randomly warped frame.

    Every target of one call gets the same map. `warps` may be narrowed for tests. The warped frame is enlarged by a
    factor uniform between 1 and `enlargement`.
    """

    def __init__(
        self, patch_size: int, enlargement: float = 1.0, warps: tuple[Callable[..., Warp], ...] = WARPS
    ) -> None:
        super().__init__(p=1.0)
        self.patch_size = patch_size
        self.enlargement = enlargement
        self.warps = warps

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw a warp and a window; return the crop's source positions as two float32 P×P maps."""
        warp = self.py_random.choice(self.warps)(*params["shape"][:2], self.py_random)
        if self.enlargement > 1.0:
            warp = _enlarged(warp, self.py_random.uniform(1.0, self.enlargement))
        rows = _window(warp.height, self.patch_size, self.py_random)
        columns = _window(warp.width, self.patch_size, self.py_random)
        x, y = np.meshgrid(columns.astype(np.float64), rows.astype(np.float64), sparse=True)
        map_x, map_y = (np.float32(each) for each in np.broadcast_arrays(*warp.source(x, y)))
        return {"map_x": map_x, "map_y": map_y}

    def apply(self, img: np.ndarray, map_x: np.ndarray, map_y: np.ndarray, **params: Any) -> np.ndarray:
        """Return the P×P×C crop of an H×W×C frame."""
        return cv2.remap(img, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


class PairAugmentation:
    """The published augmentation of a blurry frame and, where there is one, its sharp partner, with one map for both.

    Args:
        patch_size: side of the square patches in px.
        enlargement: frames are enlarged by a factor between 1 and this one; the published augmentation has none.
    """

    def __init__(self, patch_size: int, enlargement: float = 1.0) -> None:
        self._transform = A.Compose([WarpedCrop(patch_size, enlargement)], additional_targets={"sharp": "image"})

    def __call__(self, blurry: np.ndarray, sharp: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the P×P×3 patches of H×W×3 uint8 frames; the same seed gives the same patches."""
        self._transform.set_random_seed(seed)
        patches = self._transform(image=blurry) if sharp is None else self._transform(image=blurry, sharp=sharp)
        return patches["image"], patches.get("sharp")
