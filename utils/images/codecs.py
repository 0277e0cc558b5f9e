"""Images on disk, as arrays, and as the tensors the networks read: the only place that knows the conversions.

An image is an H×W×3 uint8 RGB array; a network reads and writes (N, 3, H, W) float32 in [-1, 1].
"""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

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
    """Return the suffixes of optional formats that Pillow can read here: AVIF, and HEIC with pillow-heif."""
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
_TIFF_SIGNATURES, _TIFF_START = (b"II*\0", b"MM\0*"), 8
_NO_IMAGE = "cannot be read as an image"
_ROWS_AT_ONCE = 256
# Of photographs, zlib's RLE makes no larger files than its search for repetitions at level 3, in less time.
PNG = {"format": "PNG", "compress_level": 1, "compress_type": zlib.Z_RLE}
# What Pillow's decoders raise for damaged files; RuntimeError is AVIF's.
DAMAGED = (
    *(OSError, SyntaxError, ValueError, RuntimeError, EOFError, LookupError, ArithmeticError, TypeError, struct.error),
    *(zlib.error, Image.DecompressionBombError),
)


class UnreadableError(UserError):
    """An image file that cannot be used; the message contains its name, the reason and what to do."""


@dataclass(frozen=True)
class ImageInfo:
    """The header of an image file.

    Attributes:
        height: in px, as displayed.
        width: likewise.
        mode: Pillow's colour mode.
        bits: a channel, 8 at least.
        orientation: of EXIF, 1 to 8; 1 is upright.
    """

    height: int
    width: int
    mode: str
    bits: int = 8
    orientation: int = 1


def inspect_image(path: Path, deep: bool = False) -> ImageInfo:
    """Read an image's header without decoding it; that of an unchanged file is read once.

    Args:
        path: the file.
        deep: whether 16 bits a channel will do as well as 8.

    Raises:
        UnreadableError: not an image, or one with another number of bits a channel.
    """
    with readable(path, _NO_IMAGE):
        status = _check_kind(path)
        info = _read_header(path, status.st_mtime_ns, status.st_size)
    _check_depth(path, info, deep)
    return info


@cache
def _read_header(path: Path, modified: int, size: int) -> ImageInfo:
    """Return a file's header; the arguments are the key of the cache."""
    with path.open("rb") as file, _identify(path, file) as image:
        return _header(image, file)


@contextmanager
def open_image(path: Path, deep: bool = False) -> Iterator[tuple[Image.Image, BinaryIO, ImageInfo]]:
    """Open an image file once, to be decoded inside the block; what decoders raise there names it.

    Args:
        path: the file.
        deep: whether 16 bits a channel will do as well as 8.

    Yields:
        the image as Pillow opens it, the file, and its header.

    Raises:
        UnreadableError: see `inspect_image`; or damaged, incomplete, too large for the memory.
    """
    with ExitStack() as stack:
        with readable(path, _NO_IMAGE):
            _check_kind(path)
            file = stack.enter_context(path.open("rb"))
            image = stack.enter_context(_identify(path, file))
            info = _header(image, file)
        _check_depth(path, info, deep)
        with readable(path):
            yield image, file, info


def peek(file: BinaryIO, size: int = -1) -> bytes:
    """Return so many of the first bytes of an open file, or all; its position stays where a decoder has left it."""
    position = file.tell()
    file.seek(0)
    start = file.read(size)
    file.seek(position)
    return start


def _identify(path: Path, file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        _check_not_float(path, file)
        raise UnidentifiedImageError(f"cannot identify image file {str(path)!r}") from error


def _header(image: Image.Image, file: BinaryIO) -> ImageInfo:
    (width, height), bits = image.size, 8
    # getexif() would decode a whole PNG in search of EXIF behind the pixels, where hardly any has it.
    has_exif = image.format != "PNG" or "exif" in image.info
    orientation = image.getexif().get(_ORIENTATION_TAG, 1) if has_exif else 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = max(image.tag_v2.get(_TIFF_DEPTH_TAG, (8,)))
    # Pillow would quietly halve the depth of a 16-bit RGB PNG or TIFF.
    if image.format == "PNG":
        bits = peek(file, _PNG_DEPTH_BYTE + 1)[_PNG_DEPTH_BYTE]
    size = (width, height) if orientation in _TURNED_ORIENTATIONS else (height, width)
    return ImageInfo(*size, image.mode, max(bits, 8), orientation)


def _check_depth(path: Path, info: ImageInfo, deep: bool) -> None:
    if (deep and info.bits == 16) or (info.bits == 8 and info.mode in _MODES_8_BIT):
        return
    found = f"has {info.bits} bits per channel" if info.bits != 8 else f"has the colour mode {info.mode}"
    if info.mode == "F":
        found = "holds floating-point numbers"
    raise UnreadableError(f"{path} {found}; convert it to an 8-bit {'or 16-bit ' * deep}RGB image")


def _check_kind(path: Path) -> os.stat_result:
    """Return a file's status; refuse kinds that Pillow would misread or not read."""
    suffix = path.suffix.lower()
    if suffix in RAW:
        raise UnreadableError(f"{path} is a camera's raw file; develop it, and give the 16-bit TIFF or PNG")
    if suffix in HEIC and suffix not in SUFFIXES:
        raise UnreadableError(f"{path} is HEIC, which needs pillow-heif; {INSTALL_HEIC}")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise UnreadableError(f"{path} is no file but a pipe, a folder or a device; remove it")
    return status


def _check_not_float(path: Path, file: BinaryIO) -> None:
    """Raise `UnreadableError` for a TIFF of floating-point numbers in colour, which Pillow does not know at all."""
    start = peek(file, _TIFF_START)
    if start[:4] not in _TIFF_SIGNATURES:
        return
    tags = TiffImagePlugin.ImageFileDirectory_v2(start)
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
        raise UnreadableError(f"{path} does not fit into memory; free some, or cut it into parts") from error
    except DAMAGED as error:
        raise UnreadableError(f"{path} {found} ({error}); replace or remove it") from error


def read_image(path: Path) -> np.ndarray:
    """Return an image file as H×W×3 uint8 RGB, upright by its EXIF; grey is repeated, alpha is dropped.

    Raises:
        UnreadableError: not an image, truncated or damaged, too large for the memory, or with other than 8 bits a
            channel.
    """
    with open_image(path) as (image, _, _):
        return upright_pixels(image, "RGB")


def upright_pixels(image: Image.Image, mode: str) -> np.ndarray:
    """Return an image as H×W×C uint8 in one of Pillow's modes with C channels, rotated according to its EXIF.

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
