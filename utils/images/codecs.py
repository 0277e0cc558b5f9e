"""Images on disk, as arrays, and as the tensors the networks read: the only place that knows the conversions.

An image is an H×W×3 uint8 RGB array; a network reads and writes (N, 3, H, W) float32 in [-1, 1].
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from utils.common.errors import UserError
from utils.common.files import atomic_write

HEIC = (".heic", ".heif", ".hif")
INSTALL_HEIC = "run `pip install pillow-heif==1.8.1`"
# What cameras write. Many are TIFFs in which Pillow finds a thumbnail.
RAW = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)


def optional_formats() -> tuple[str, ...]:
    """Return the suffixes of what Pillow can read besides as it is installed: AVIF, and HEIC with pillow-heif."""
    suffixes = (".avif",) if features.check("avif") else ()
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports] (optional)
    except ImportError:
        return suffixes
    pillow_heif.register_heif_opener()
    return (*suffixes, *HEIC)


SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", *optional_formats())
_MODES_8_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
Image.MAX_IMAGE_PIXELS = 10**9  # a photograph of 100 megapixels is no attack
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_BYTE = 24  # of the IHDR chunk, which always comes first
_ORIENTATION_TAG = 0x0112
_TURNED_ORIENTATIONS = (5, 6, 7, 8)  # swap height and width
_TIFF_DEPTH_TAG, _TIFF_FORMAT_TAG, _FLOAT_FORMAT = 258, 339, 3
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
_FLOATS = ", floating-point numbers"
_ROWS_AT_ONCE = 256
# Of photographs, zlib's RLE makes no larger files than its search for repetitions at level 3, in less time.
PNG = {"format": "PNG", "compress_level": 1, "compress_type": zlib.Z_RLE}
# What Pillow's decoders raise for damaged files; RuntimeError is AVIF's.
DAMAGED = (
    *(OSError, SyntaxError, ValueError, RuntimeError, EOFError, LookupError, ArithmeticError, TypeError, struct.error),
    *(zlib.error, Image.DecompressionBombError),
)


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
    _check_kind(path)
    with readable(path, "cannot be read as an image"):
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise UnreadableError(f"{path} is no file but a pipe, a folder or a device; remove it")
        with path.open("rb") as file:
            start = file.read(_PNG_DEPTH_BYTE + 1)
        try:
            opened = Image.open(path)
        except UnidentifiedImageError:
            _check_not_float(path, start)
            raise
        with opened as image:
            (width, height), mode = image.size, image.mode
            # getexif() would decode a whole PNG in search of EXIF behind the pixels, where hardly any has it.
            has_exif = image.format != "PNG" or "exif" in image.info
            turned = has_exif and image.getexif().get(_ORIENTATION_TAG, 1) in _TURNED_ORIENTATIONS
            bits = 8
            if image.format == "TIFF" and isinstance(image, TiffImagePlugin.TiffImageFile):
                bits = max(image.tag_v2.get(_TIFF_DEPTH_TAG, (8,)))
    # Pillow would quietly halve the depth of a 16-bit RGB PNG or TIFF.
    if start.startswith(PNG_SIGNATURE) and start[_PNG_DEPTH_BYTE] > 8:
        bits = 16
    if not (deep and bits == 16) and (bits > 8 or mode not in _MODES_8_BIT):
        found = f"mode {mode}{_FLOATS * (mode == 'F')}"
        expected, into = ("8 or 16", "8-bit or 16-bit") if deep else ("8", "8-bit")
        raise UnreadableError(
            f"{path} does not have {expected} bits a channel ({found}); convert it to an {into} RGB image"
        )
    return ImageInfo(*((width, height) if turned else (height, width)), mode, 16 if bits > 8 else 8)


def _check_kind(path: Path) -> None:
    """Raise `UnreadableError` for a kind of file, by its name, that Pillow would misread or not read."""
    suffix = path.suffix.lower()
    if suffix in RAW:
        raise UnreadableError(f"{path} is a camera's raw file; develop it, and give the 16-bit TIFF or PNG")
    if suffix in HEIC and suffix not in SUFFIXES:
        raise UnreadableError(f"{path} is HEIC, which needs pillow-heif; {INSTALL_HEIC}")


def _check_not_float(path: Path, start: bytes) -> None:
    """Raise `UnreadableError` for a TIFF of floating-point numbers in colour, which Pillow does not know at all."""
    if start[:4] not in _TIFF_SIGNATURES:
        return
    with path.open("rb") as file:
        tags = TiffImagePlugin.ImageFileDirectory_v2(start[:8])
        file.seek(tags.next)
        tags.load(file)
    if _FLOAT_FORMAT in tags.get(_TIFF_FORMAT_TAG, ()):
        bits = max(tags.get(_TIFF_DEPTH_TAG, (32,)))
        raise UnreadableError(f"{path} holds floating-point numbers of {bits} bits; convert it to a 16-bit RGB image")


@contextmanager
def readable(path: Path, found: str = "is damaged or incomplete") -> Iterator[None]:
    """Turn what decoders raise for a file that cannot be used into an `UnreadableError` that names it."""
    try:
        yield
    except MemoryError as error:
        raise UnreadableError(f"{path} does not fit into the free memory; free some, or cut it into parts") from error
    except DAMAGED as error:
        raise UnreadableError(f"{path} {found} ({error}); replace or remove it") from error


def read_image(path: Path) -> np.ndarray:
    """Return an image file as H×W×3 uint8 RGB, upright by its EXIF; grey is repeated, alpha is dropped.

    Raises:
        UnreadableError: not an image, truncated or damaged, too large for the memory, or with other than 8 bits a
            channel.
    """
    inspect_image(path)
    with readable(path), Image.open(path) as image:
        return upright_pixels(image, "RGB")


def upright_pixels(image: Image.Image, mode: str) -> np.ndarray:
    """Return an image as H×W×C uint8 in one of Pillow's modes with C channels, turned as its EXIF says.

    The image itself is turned, and not converted to the mode that it has: Pillow would copy it for either.
    """
    ImageOps.exif_transpose(image, in_place=True)
    return np.array(image if image.mode == mode else image.convert(mode))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an H×W×3 uint8 RGB image as PNG, complete or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, **PNG)


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
    return image if image.dtype == np.uint8 else _rounded(image, np.dtype(np.uint8))


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


def side_by_side(images: list[np.ndarray], gap: int = 4) -> np.ndarray:
    """Return H×W×3 uint8 images of one size next to each other, with a white gap of `gap` px between them."""
    white = np.full((images[0].shape[0], gap, 3), 255, dtype=np.uint8)
    row = [images[0]]
    for image in images[1:]:
        row += [white, image]
    return np.concatenate(row, axis=1)
