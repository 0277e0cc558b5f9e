"""Image files as arrays of H×W×3, and back."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError, features

from utils.common.errors import SystemLacksError, UserError, blame_system
from utils.common.files import atomic_write
from utils.images.decoding import (
    TIFF_SIGNATURES,
    decode_png,
    decode_tiff,
    decode_with_pillow,
    read_tiff_header,
    upright,
)
from utils.images.metadata import PNG_SIGNATURE, orientation_of, pixels_alone, show_late_exif

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
_MODES_8_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", ""}
Image.MAX_IMAGE_PIXELS = 10**9  # a photograph of 100 megapixels is no attack
_PNG_DEPTH_BYTE = 24  # of the IHDR chunk, which always comes first
_TURNED_ORIENTATIONS = (5, 6, 7, 8)  # swap height and width
_NO_IMAGE = "cannot be read as an image"


class UnreadableError(UserError):
    """An image file that cannot be used; the message contains its name, the reason and what to do."""


@dataclass(frozen=True)
class ImageInfo:
    """The header of an image file.

    Attributes:
        height: in px, as displayed.
        width: likewise.
        mode: Pillow's colour mode; empty for a TIFF that Pillow does not know.
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
    with path.open("rb") as file:
        image, content = _identify(path, file)
        with image or nullcontext():
            return _header(image, content)


class OpenedImage(NamedTuple):
    """An open image file.

    Attributes:
        image: as Pillow has it; None for a TIFF that Pillow does not know.
        file: its content.
        info: its header.
        bare: whether the content is that of the file without its metadata, for which Pillow does not open it.
    """

    image: Image.Image | None
    file: BinaryIO
    info: ImageInfo
    bare: bool = False


@contextmanager
def open_image(path: Path, deep: bool = False) -> Iterator[OpenedImage]:
    """Open an image file once, to be decoded inside the block; what decoders raise there names it.

    Args:
        path: the file.
        deep: whether 16 bits a channel will do as well as 8.

    Raises:
        UnreadableError: see `inspect_image`; or damaged, incomplete, too large for the memory.
    """
    with ExitStack() as stack:
        with readable(path, _NO_IMAGE):
            _check_kind(path)
            file = stack.enter_context(path.open("rb"))
            image, content = _identify(path, file)
            stack.enter_context(image or nullcontext())
            info = _header(image, content)
        _check_depth(path, info, deep)
        with readable(path):
            yield OpenedImage(image, content, info, bare=content is not file)


def decode(opened: OpenedImage) -> np.ndarray:
    """Return an open image as H×W×C of 8 or 16 bits, upright: grey, grey with alpha, RGB or RGBA.

    Raises:
        Exception: of any type, if it is damaged; `open_image` turns it into an `UnreadableError`.
    """
    image, file, info, _ = opened
    if image and image.format == "PNG":
        content = peek(file)
        show_late_exif(image, content)  # the header does not tell of it
        return upright(decode_png(content), orientation_of(image))
    if image is None or image.format == "TIFF":
        return upright(decode_tiff(file), info.orientation)
    return upright(decode_with_pillow(image), info.orientation)


def peek(file: BinaryIO, size: int = -1) -> bytes:
    """Return so many of the first bytes of an open file, or all; its position stays where a decoder has left it."""
    position = file.tell()
    file.seek(0)
    start = file.read(size)
    file.seek(position)
    return start


def _identify(path: Path, file: BinaryIO) -> tuple[Image.Image | None, BinaryIO]:
    """Return what Pillow makes of a file, and its content: None for a TIFF that Pillow does not know.

    Of a PNG that it does not open because of metadata, it is that of the pixels alone.
    """
    start = peek(file, len(PNG_SIGNATURE))
    if start.startswith(TIFF_SIGNATURES):
        if problem := read_tiff_header(file).problem:
            raise UnreadableError(f"{path} is not supported: {problem}; convert it to an 8-bit or 16-bit RGB image")
        with suppress(UnidentifiedImageError):
            return Image.open(file), file
        return None, file
    try:
        return Image.open(file), file
    except Exception:  # of any type, by the chunk
        if start == PNG_SIGNATURE:
            bare = io.BytesIO(pixels_alone(peek(file)))
            with suppress(Exception):
                return Image.open(bare), bare
        raise


def _header(image: Image.Image | None, file: BinaryIO) -> ImageInfo:
    if image is None or image.format == "TIFF":
        height, width, bits, orientation, *_ = read_tiff_header(file)
    else:
        (width, height), bits, orientation = image.size, 8, orientation_of(image)
    if image and image.format == "PNG":  # Pillow would quietly halve the depth of 16 bits
        bits = peek(file, _PNG_DEPTH_BYTE + 1)[_PNG_DEPTH_BYTE]
    if not width or not height:
        raise ValueError("it has no pixels")
    size = (width, height) if orientation in _TURNED_ORIENTATIONS else (height, width)
    return ImageInfo(*size, image.mode if image else "", max(bits, 8), orientation)


def _check_depth(path: Path, info: ImageInfo, deep: bool) -> None:
    if (deep and info.bits == 16) or (info.bits == 8 and info.mode in _MODES_8_BIT):
        return
    found = f"has {info.bits} bits per channel" if info.bits != 8 else f"has the colour mode {info.mode}"
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


@contextmanager
def readable(path: Path, found: str = "is damaged or incomplete") -> Iterator[None]:
    """Turn what decoders raise for a file that cannot be used into an `UnreadableError` that names it.

    Raises:
        SystemLacksError: see `blame_system`.
    """
    try:
        yield
    except (UnreadableError, SystemLacksError):
        raise
    except MemoryError as error:
        raise UnreadableError(f"{path} does not fit into memory; free some, or cut it into parts") from error
    except UnidentifiedImageError as error:  # its text names a Python object
        raise UnreadableError(f"{path} {found} (no known kind of image); replace or remove it") from error
    except Exception as error:  # decoders raise anything, and it is this file's problem
        blame_system(error, path)
        raise UnreadableError(f"{path} {found} ({error}); replace or remove it") from error


def read_image(path: Path) -> np.ndarray:
    """Return an image file as H×W×3 uint8 RGB, upright by its EXIF; grey is repeated, alpha is dropped.

    Raises:
        UnreadableError: not an image, truncated or damaged, too large for the memory, or with other than 8 bits a
            channel.
    """
    with open_image(path) as opened:
        values = decode(opened)
        return values[..., :1].repeat(3, axis=2) if values.shape[2] < 3 else np.ascontiguousarray(values[..., :3])


def encode_png(values: np.ndarray) -> bytes:
    """Return an H×W×C image of 8 or 16 bits as PNG: grey, grey with alpha, RGB or RGBA by its channels."""
    # Of photographs, zlib's RLE makes no larger files than its search for repetitions at level 3, in less time. Of
    # their rows, libpng's search among all filters chooses Paeth's nearly always, in 1.6 times the time.
    options = {"strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.PAETH}
    return bytes(imagecodecs.png_encode(values, level=1, **options))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an H×W×3 uint8 RGB image as PNG, complete or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(encode_png(image))
