"""Photographs with all that belongs to them: depth, transparency, colour profile, EXIF."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.common.files import atomic_write
from utils.images.codecs import PNG, PNG_SIGNATURE, open_image, peek, to_uint8, to_uint16, upright_pixels

_ORIENTATION = 0x0112
_EXIF_PREFIX = b"Exif\x00\x00"
# What of a TIFF's tags is about the picture; the others are about how the file stores it.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)
_COLOUR_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"pHYs", b"tIME"}
_CHUNK_HEAD = struct.Struct(">I4s")  # length of its data, kind
_CHUNK_END = struct.Struct(">I")  # checksum of kind and data
_GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")
# By EXIF orientation: quarter turns counter-clockwise, after mirroring left and right.
_UPRIGHT = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}


@dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes:
        pixels: H×W×3 RGB, upright, uint8, or uint16 where the file has 16 bits a channel; grey is repeated.
        alpha: H×W of the same type, or None for an opaque picture.
        grey: whether the file has one colour channel.
        profile: ICC profile, or None.
        exif: EXIF data without an orientation, or None.
        frames: pages or frames in the file, of which these are the first one's pixels.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    profile: bytes | None = None
    exif: bytes | None = None
    frames: int = 1


def read_picture(path: Path) -> Picture:
    """Read an image file with all that belongs to it.

    Raises:
        UnreadableError: not an image, truncated or damaged, too large for the memory, or with other than 8 or 16 bits a
            channel.
    """
    with open_image(path, deep=True) as (image, file, info):
        # A profile speaks of the file's channels; those of CMYK are converted.
        profile = None if image.mode == "CMYK" else image.info.get("icc_profile")
        # The further images of a phone's JPEG (MPO) are previews and depth, no pages.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        plain = (image.format, image.mode, info.bits) == ("PNG", "RGB", 8)
        if plain and (values := _decode_plain(peek(file))) is not None:
            return Picture(values, profile=profile)
        if info.bits == 16:
            orientation = image.getexif().get(_ORIENTATION, 1)
            values = _decode_deep(peek(file), orientation)
        else:
            values = upright_pixels(image, "RGBA" if image.has_transparency_data else "RGB")
        return Picture(*_split(values), info.mode in _GREY, profile, _exif(image), frames)


def _decode_plain(content: bytes) -> np.ndarray | None:
    """Return an 8-bit RGB PNG as H×W×3; None where it is damaged or holds more than colours, for Pillow to read.

    Pillow takes Python's lock for every chunk and on the way into NumPy, more than 5 ms for a 1280×720 frame of GoPro:
    threads that read so keep the one that feeds a GPU waiting. OpenCV allocates what a chunk's length asks for, up to
    4 GiB, and libpng writes to stderr what it finds damaged: neither gets a file that is cut short or whose checksums
    are wrong.
    """
    position, kind = len(PNG_SIGNATURE), b""
    try:
        while position < len(content):
            length, kind = _CHUNK_HEAD.unpack_from(content, position)
            end = position + _CHUNK_HEAD.size + length
            (checksum,) = _CHUNK_END.unpack_from(content, end)
            if kind not in _COLOUR_CHUNKS or checksum != zlib.crc32(memoryview(content)[position + 4 : end]):
                return None
            position = end + _CHUNK_END.size
        if kind != b"IEND":
            return None
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (struct.error, cv2.error):
        return None


def _exif(image: Image.Image) -> bytes | None:
    """Return an image's EXIF data without its orientation; None where nothing is left."""
    exif = image.getexif()
    exif.pop(_ORIENTATION, None)
    if image.format == "TIFF":
        for tag in set(exif) - set(_DESCRIPTIVE):
            del exif[tag]
    return exif.tobytes() if len(exif) else None


def _decode_deep(content: bytes, orientation: int) -> np.ndarray:
    """Return a 16-bit image as H×W×3 or H×W×4, upright; Pillow would halve its depth."""
    try:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise (MemoryError if error.code == cv2.Error.StsNoMem else ValueError)(str(error)) from error
    if values is None or values.dtype != np.uint16:
        raise ValueError("not decoded" if values is None else f"values of type {values.dtype}")
    if values.ndim == 2:
        values = values[..., None].repeat(3, axis=2)
    elif values.shape[2] == 2:
        values = values[..., [0, 0, 0, 1]]
    else:
        values = values[..., [2, 1, 0, *range(3, values.shape[2])]]
    turns, mirrored = _UPRIGHT.get(orientation, (0, False))
    return np.ascontiguousarray(np.rot90(values[:, ::-1] if mirrored else values, turns))


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    alpha = values[..., 3] if values.shape[2] == 4 else None
    return np.ascontiguousarray(values[..., :3]), alpha


def write_picture(path: Path, restored: np.ndarray, like: Picture) -> None:
    """Write a restored picture as PNG with the depth, transparency, profile and EXIF of the one it was made from.

    Args:
        path: ends in .png.
        restored: H×W×3 float32 in [0, 1].
        like: what it was made from.

    Raises:
        UserError: it cannot be written.
    """
    deep = like.pixels.dtype == np.uint16
    values = to_uint16(restored) if deep else to_uint8(restored)
    if like.grey:
        values = np.rint(values.mean(axis=2, keepdims=True)).astype(values.dtype)
    if like.alpha is not None:
        values = np.concatenate([values, like.alpha[..., None]], axis=2)
    with atomic_write(path) as temporary:
        if deep:
            _write_deep(temporary, values, like)
        else:
            Image.fromarray(values.squeeze()).save(temporary, **PNG, icc_profile=like.profile, exif=like.exif)


def _write_deep(path: Path, values: np.ndarray, like: Picture) -> None:
    channels = values.shape[2]
    if channels == 2:  # OpenCV writes no grey with alpha
        values = values[..., [0, 0, 0, 1]]
    elif channels > 2:
        values = values[..., [2, 1, 0, *range(3, channels)]]
    kinds, contents = [], []
    if like.exif:
        kinds.append(cv2.IMAGE_METADATA_EXIF)
        contents.append(np.frombuffer(like.exif.removeprefix(_EXIF_PREFIX), np.uint8))
    if like.profile:
        kinds.append(cv2.IMAGE_METADATA_ICCP)
        contents.append(np.frombuffer(like.profile, np.uint8))
    written, encoded = cv2.imencodeWithMetadata(".png", np.ascontiguousarray(values), kinds, contents)
    if not written:
        raise OSError("OpenCV could not encode it as PNG")
    encoded.tofile(path)
