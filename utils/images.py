"""Images on disk, as arrays, and as the tensors the networks read: the only place that knows the conversions.

An image is an H×W×3 uint8 RGB array; a network reads and writes (N, 3, H, W) float32 in [-1, 1].
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from utils.errors import UserError
from utils.files import atomic_write


def optional_formats() -> tuple[str, ...]:
    """Return the suffixes of what Pillow can read besides as it is installed: AVIF, and HEIC with pillow-heif."""
    suffixes = (".avif",) if features.check("avif") else ()
    try:
        import pillow_heif
    except ImportError:
        return suffixes
    pillow_heif.register_heif_opener()
    return (*suffixes, ".heic", ".heif")


SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", *optional_formats())
_MODES_8_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
Image.MAX_IMAGE_PIXELS = 10**9  # a photograph of 100 megapixels is no attack
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_BYTE = 24  # of the IHDR chunk, which always comes first
_ORIENTATION_TAG = 0x0112
_TURNED_ORIENTATIONS = (5, 6, 7, 8)  # swap height and width
_TIFF_DEPTH_TAG = 258


class UnreadableError(UserError):
    """An image file that cannot be used; the message names it and says why and what to do."""


@dataclass(frozen=True)
class ImageInfo:
    """What an image file's header says: height and width in px as displayed, Pillow's colour mode, bits a channel."""

    height: int
    width: int
    mode: str
    bits: int = 8


def inspect_image(path: Path, deep: bool = False) -> ImageInfo:
    """Read an image's header without decoding it.

    Args:
        path: the file.
        deep: whether 16 bits a channel will do as well as 8.

    Raises:
        UnreadableError: not an image, or one with another number of bits a channel.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_PNG_DEPTH_BYTE + 1)
        with Image.open(path) as image:
            (width, height), mode = image.size, image.mode
            # getexif() would decode a whole PNG in search of EXIF behind the pixels, where hardly any has it.
            has_exif = image.format != "PNG" or "exif" in image.info
            turned = has_exif and image.getexif().get(_ORIENTATION_TAG, 1) in _TURNED_ORIENTATIONS
            bits = max(image.tag_v2.get(_TIFF_DEPTH_TAG, (8,))) if image.format == "TIFF" else 8
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{path} cannot be read as an image ({error}); replace or remove it") from error
    # Pillow would quietly halve the depth of a 16-bit RGB PNG or TIFF.
    if start.startswith(_PNG_SIGNATURE) and start[_PNG_DEPTH_BYTE] > 8:
        bits = 16
    if not (deep and bits == 16) and (bits > 8 or mode not in _MODES_8_BIT):
        raise UnreadableError(f"{path} does not have 8 bits a channel (mode {mode}); convert it to an 8-bit RGB image")
    return ImageInfo(*((width, height) if turned else (height, width)), mode, 16 if bits > 8 else 8)


def read_image(path: Path) -> np.ndarray:
    """Return an image file as H×W×3 uint8 RGB, upright by its EXIF; grey is repeated, alpha is dropped.

    Raises:
        UnreadableError: not an image, truncated or damaged, or with other than 8 bits a channel.
    """
    inspect_image(path)
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError(f"{path} is damaged or incomplete ({error}); replace or remove it") from error


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an H×W×3 uint8 RGB image as PNG, complete or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=3)


def to_tensor(image: np.ndarray, device: torch.device | None = None) -> Tensor:
    """Return an image, or a stack of them, as float32 in [-1, 1].

    Args:
        image: H×W×3, uint8 or uint16; or N×H×W×3.
        device: where the tensor is to be; None for the CPU.

    Returns:
        (3, H, W), contiguous; or (N, 3, H, W), channels last.
    """
    half = np.iinfo(image.dtype).max / 2
    values = torch.from_numpy(np.ascontiguousarray(image))
    values = values.to(device) if image.dtype == np.uint8 else values.float().to(device)
    values = values.movedim(-1, -3)
    return (values.contiguous() if values.ndim == 3 else values).float().div_(half).sub_(1.0)


def to_float_image(tensor: Tensor) -> np.ndarray:
    """Return a (3, H, W) or (N, 3, H, W) tensor in [-1, 1], clamped, as H×W×3 or N×H×W×3 float32 in [0, 1]."""
    values = tensor.detach().float().clamp(-1.0, 1.0).add_(1.0).div_(2.0).movedim(-3, -1)
    if not values.is_cuda:
        return values.numpy()
    pinned = torch.empty(values.shape, pin_memory=True)  # several times faster to copy into than other memory
    return pinned.copy_(values.contiguous()).numpy()


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round an image with values in [0, 1] to what a saved PNG holds; uint8 images pass unchanged."""
    return image if image.dtype == np.uint8 else np.rint(image * 255.0).astype(np.uint8)


def to_uint16(image: np.ndarray) -> np.ndarray:
    """Round a float image with values in [0, 1] to 16 bits."""
    return np.rint(image * np.float32(65535.0)).astype(np.uint16)


def side_by_side(images: list[np.ndarray], gap: int = 4) -> np.ndarray:
    """Return H×W×3 uint8 images of one size next to each other, with a white gap of `gap` px between them."""
    white = np.full((images[0].shape[0], gap, 3), 255, dtype=np.uint8)
    row = [images[0]]
    for image in images[1:]:
        row += [white, image]
    return np.concatenate(row, axis=1)
