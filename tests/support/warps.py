"""Warps of whole frames, as references for the augmentation's crops."""

import random

import cv2
import numpy as np


class RecordingRandom(random.Random):
    """A generator that keeps the numbers it gave: `uniforms` and `integers`, in the order drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.uniforms: list[float] = []
        self.integers: list[int] = []

    def uniform(self, a: float, b: float) -> float:
        self.uniforms.append(super().uniform(a, b))
        return self.uniforms[-1]

    def randint(self, a: int, b: int) -> int:
        self.integers.append(super().randint(a, b))
        return self.integers[-1]


# The five warps of the whole frame, as albumentations of 2021 calls OpenCV for them; parameters in the order drawn.


def whole_flip(frame: np.ndarray) -> np.ndarray:
    return cv2.flip(frame, 1)


def whole_transpose(frame: np.ndarray) -> np.ndarray:
    return cv2.transpose(frame)


def whole_shift_scale_rotate(
    frame: np.ndarray, angle: float, scale: float, shift_x: float, shift_y: float
) -> np.ndarray:
    height, width = frame.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    matrix[0, 2] += shift_x * width
    matrix[1, 2] += shift_y * height
    return _affine(frame, matrix)


def whole_optical_distortion(frame: np.ndarray, k: float) -> np.ndarray:
    height, width = frame.shape[:2]
    camera = np.float32([[width, 0, width / 2], [0, height, height / 2], [0, 0, 1]])
    distortion = np.float32([k, k, 0, 0, 0])
    maps = cv2.initUndistortRectifyMap(camera, distortion, None, None, (width, height), cv2.CV_32FC1)
    return cv2.remap(frame, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def control_points(height: int, width: int) -> np.ndarray:
    x, y, reach = width // 2, height // 2, min(height, width) // 3
    return np.float32([[x + reach, y + reach], [x + reach, y - reach], [x - reach, y - reach]])


def whole_control_point_affine(frame: np.ndarray, *shifts: float) -> np.ndarray:
    points = control_points(*frame.shape[:2])
    return _affine(frame, cv2.getAffineTransform(points, points + np.float32(shifts).reshape(3, 2)))


def _affine(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    size = (frame.shape[1], frame.shape[0])
    return cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


WHOLE_FRAME = {
    "horizontal_flip": whole_flip,
    "transpose": whole_transpose,
    "shift_scale_rotate": whole_shift_scale_rotate,
    "optical_distortion": whole_optical_distortion,
    "control_point_affine": whole_control_point_affine,
}


def draw_whole_frame_patch(frame: np.ndarray, patch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Warp the whole frame by one of the five, pad and crop: the published augmentation, drawn independently."""
    name = rng.choice(list(WHOLE_FRAME))
    parameters = {
        "shift_scale_rotate": lambda: (rng.uniform(-45, 45), rng.uniform(0.9, 1.1), *rng.uniform(-0.0625, 0.0625, 2)),
        "optical_distortion": lambda: (rng.uniform(-0.05, 0.05),),
        "control_point_affine": lambda: rng.uniform(-50, 50, 6),
    }.get(name, lambda: ())()
    warped = pad(WHOLE_FRAME[name](frame, *parameters), patch_size)
    top, left = (rng.integers(size - patch_size + 1) for size in warped.shape[:2])
    return warped[top : top + patch_size, left : left + patch_size]


def pad(image: np.ndarray, patch_size: int) -> np.ndarray:
    """Reflect-pad (reflect-101) the sides that are shorter than `patch_size`, the frame in the middle."""
    missing = [max(patch_size - size, 0) for size in image.shape[:2]]
    return np.pad(image, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode="reflect")


def coordinate_frame(height: int, width: int) -> np.ndarray:
    """Return an H×W×3 float32 frame whose channels are each pixel's own x, y and 0."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], axis=-1).astype(np.float32)
