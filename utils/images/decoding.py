"""The pixels of an open image file: libpng reads PNG, tifffile TIFFs of 16 bits per channel, Pillow the rest."""

import io
import logging
import math
import warnings
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image, ImageCms

# By EXIF orientation: quarter turns counter-clockwise, after mirroring left and right.
_UPRIGHT = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2  # TIFF's PhotometricInterpretation
_UNSIGNED, _FLOAT = 1, 3  # its SampleFormat
_UNSPECIFIED, _PREMULTIPLIED = 0, 1  # its ExtraSamples
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What a damaged file lacks is in our message; they would write it to stderr, too.
for _library in ("imagecodecs", "tifffile", "PIL"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_png(content: bytes) -> np.ndarray:
    """Return a PNG as it is stored, H×W×C of 8 or 16 bits: grey, grey with alpha, RGB or RGBA.

    Without Python's lock, which Pillow takes for every chunk: threads that read keep the one that feeds a GPU waiting.
    """
    return np.atleast_3d(imagecodecs.png_decode(content))


def decode_deep_tiff(file: BinaryIO) -> np.ndarray:
    """Return a TIFF of 16 bits a channel as it is stored, H×W×C as `decode_png` does."""
    import tifffile  # only few pictures need it

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        if len(page.dataoffsets) < math.prod(page.chunked):
            raise ValueError("strips or tiles are missing")
        stored = page.asarray(out=np.zeros(page.shape, page.dtype))  # damaged parts would be what was in memory
        values = np.atleast_3d(np.moveaxis(stored, 0, -1) if page.planarconfig == 2 else stored)
        if page.photometric == _MIN_IS_WHITE:
            values = ~values
        colours = 3 if page.photometric == _RGB else 1
        kind = page.extrasamples[0] if page.extrasamples else None
    if values.shape[2] == colours or (kind == _UNSPECIFIED and colours == 1):
        return values[..., :colours]
    values = values[..., : colours + 1]
    return _unmultiplied(values) if kind == _PREMULTIPLIED else values


def _unmultiplied(values: np.ndarray) -> np.ndarray:
    """Return colours that were multiplied by their alpha as they were before."""
    alpha = values[..., -1:].astype(np.float64)
    colours = np.divide(values[..., :-1] * 65535.0, alpha, out=np.zeros(values[..., :-1].shape), where=alpha > 0)
    return np.concatenate([np.rint(colours.clip(0, 65535)).astype(np.uint16), values[..., -1:]], axis=2)


class TiffHeader(NamedTuple):
    """The header of a TIFF's first page.

    Attributes:
        height: in px, as stored.
        width: likewise.
        bits: per channel.
        orientation: as in EXIF, 1 to 8.
        pages: in the file.
        problem: what it holds that is not read, in words; None where it is read.
    """

    height: int
    width: int
    bits: int
    orientation: int
    pages: int
    problem: str | None


def read_tiff_header(file: BinaryIO) -> TiffHeader:
    """Read the header of a TIFF; the file's position stays.

    Raises:
        Exception: of any type, if it is damaged.
    """
    import tifffile

    position = file.tell()
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page, pages = tiff.pages[0], len(tiff.pages)
    file.seek(position)
    bits, kind = page.bitspersample, page.sampleformat
    tag = page.tags.get("Orientation")
    problem = None
    if page.imagelength * page.imagewidth > 2 * (Image.MAX_IMAGE_PIXELS or 0):  # as Pillow does
        problem = f"{page.imagewidth}×{page.imagelength} px are too many"
    elif kind != _UNSIGNED:
        problem = f"{bits}-bit {'floating-point' if kind == _FLOAT else 'signed'} numbers"
    elif bits > 8 and (bits != 16 or page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB)):
        problem = f"{bits} bits per channel of {getattr(page.photometric, 'name', page.photometric)}"
    return TiffHeader(page.imagelength, page.imagewidth, bits, tag.value if tag else 1, pages, problem)


def decode_with_pillow(image: Image.Image) -> np.ndarray:
    """Return an image of 8 bits a channel as it is stored, H×W×C as `decode_png` does; CMYK by its profile."""
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK" and profile:
        with suppress(ImageCms.PyCMSError):  # a profile of another kind is not used
            srgb = ImageCms.createProfile("sRGB")
            return np.array(ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB"))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    return np.atleast_3d(np.array(image if image.mode == mode else image.convert(mode)))


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return an H×W×C image turned as its EXIF orientation says."""
    turns, mirrored = _UPRIGHT.get(orientation, (0, False))
    return np.ascontiguousarray(np.rot90(values[:, ::-1] if mirrored else values, turns))
