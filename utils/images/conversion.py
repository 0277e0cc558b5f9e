"""Images as arrays of integers, as floats from 0 to 1, and as the networks' tensors from -1 to 1."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

_ROWS_AT_ONCE = 256
_GAP = 4  # px


def to_tensor(image: np.ndarray, device: torch.device | None = None) -> Tensor:
    """Return an image, or a stack of them, as float32 in [-1, 1].

    Args:
        image: H×W×3, uint8 or uint16; or N×H×W×3.
        device: where the tensor is to be; None for the CPU.

    Returns:
        (3, H, W), contiguous; or (N, 3, H, W), channels last.
    """
    dtype = torch.uint8 if image.dtype == np.uint8 else torch.float32
    if device is not None and device.type == "cuda":
        # From pinned memory a copy does not wait for what the GPU does. NumPy copies in this thread alone: PyTorch's
        # threads would wait for the processors that other images take.
        pinned = torch.empty(image.shape, dtype=dtype, pin_memory=True)
        np.copyto(pinned.numpy(), image, casting="unsafe")
        values = pinned.to(device, non_blocking=True)
    else:
        values = torch.from_numpy(np.ascontiguousarray(image)).to(dtype)
    scaled = to_network_range(values, np.iinfo(image.dtype).max)
    return scaled.contiguous() if scaled.ndim == 3 else scaled


def to_network_range(values: Tensor, peak: int = 255) -> Tensor:
    """Return pixels from 0 to `peak`, (..., H, W, 3), as float32 in [-1, 1], (..., 3, H, W), as they lie in memory."""
    return values.movedim(-1, -3).float().div_(peak / 2).sub_(1.0)


def to_float_image(tensor: Tensor) -> np.ndarray:
    """Return a (3, H, W) or (N, 3, H, W) tensor in [-1, 1], clamped, as H×W×3 or N×H×W×3 float32 in [0, 1]."""
    return float_image_of(tensor)()


def float_image_of(tensor: Tensor) -> Callable[[], np.ndarray]:
    """Return a function that returns what `to_float_image` does: only the function waits for the GPU."""
    values = tensor.detach().float().clamp(-1.0, 1.0).add_(1.0).div_(2.0).movedim(-3, -1)
    if not values.is_cuda:
        return values.numpy
    pinned = torch.empty(values.shape, pin_memory=True).copy_(values.contiguous(), non_blocking=True)
    copied = torch.cuda.Event(blocking=True)
    copied.record(torch.cuda.current_stream(values.device))

    def wait() -> np.ndarray:
        copied.synchronize()
        return pinned.numpy()

    return wait


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round an image with values in [0, 1] to what a saved PNG holds; uint8 images pass unchanged."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.float32 and image.shape[2:] == (3,):  # one call: threads wait for Python's lock after each
        return cv2.convertScaleAbs(image, alpha=255)
    return _rounded(image, np.dtype(np.uint8))


def to_uint16(image: np.ndarray) -> np.ndarray:
    """Round a float image with values in [0, 1] to 16 bits."""
    return _rounded(image, np.dtype(np.uint16))


def _rounded(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values in [0, 1] as whole numbers up to a type's largest, some rows at a time: a copy takes gigabytes."""
    rounded = np.empty(image.shape, dtype)
    peak = image.dtype.type(np.iinfo(dtype).max)
    for top in range(0, len(image), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        rounded[rows] = np.rint(image[rows] * peak)
    return rounded


def side_by_side(images: list[np.ndarray]) -> np.ndarray:
    """Return H×W×3 uint8 images of one size next to each other, with a white gap between them."""
    white = np.full((images[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
    row = [images[0]]
    for image in images[1:]:
        row += [white, image]
    return np.concatenate(row, axis=1)
