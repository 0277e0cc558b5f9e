"""The pixels of an open image file: libpng reads PNG, tifffile TIFF, Pillow the rest."""

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
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6  # TIFF's PhotometricInterpretation
_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}  # channels but for alpha
_DEEP = (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB)
_JPEG = 7  # its Compression, which tifffile decodes to RGB
_UNSIGNED, _FLOAT = 1, 3  # its SampleFormat
_UNSPECIFIED, _PREMULTIPLIED = 0, 1  # its ExtraSamples
_ICC_PROFILE = 34675
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What a damaged file lacks is in our message; they would write it to stderr, too.
for _library in ("imagecodecs", "tifffile", "PIL"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"(PIL|tifffile)\.")


def decode_png(content: bytes) -> np.ndarray:
    """Return a PNG as it is stored, H×W×C of 8 or 16 bits: grey, grey with alpha, RGB or RGBA.

    Without Python's lock, which Pillow takes for every chunk: threads that read keep the one that feeds a GPU waiting.
    """
    return np.atleast_3d(imagecodecs.png_decode(content))


def decode_tiff(file: BinaryIO) -> np.ndarray:
    """Return a TIFF as it is stored, H×W×C as `decode_png` does; CMYK by its profile.

    Not by Pillow, whose libtiff writes to stderr, leaves what was in memory where data is missing, and halves 16 bits.
    """
    import tifffile  # only few pictures need it

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        if len(page.dataoffsets) < math.prod(page.chunked):
            raise ValueError("strips or tiles are missing")
        stored = page.asarray(out=np.zeros(page.shape, page.dtype))  # damaged parts would be what was in memory
    values = np.atleast_3d(np.moveaxis(stored, 0, -1) if page.planarconfig == 2 and stored.ndim == 3 else stored)
    kind, bits, count = page.photometric, page.bitspersample, _COLOURS[page.photometric]
    if bits < 8 and kind != _PALETTE:
        values = values.astype(np.uint8) * np.uint8(255 // (2**bits - 1))
    colours, alpha = values[..., :count], values[..., count : count + 1]
    extra = page.extrasamples[0] if page.extrasamples else None
    if extra == _UNSPECIFIED and (count == 1 or bits == 8):
        alpha = alpha[..., :0]
    if kind == _MIN_IS_WHITE:
        colours = ~colours
    elif kind == _PALETTE:
        colours = (page.colormap.T[colours[..., 0]] >> 8).astype(np.uint8)
    elif kind == _CMYK or (kind == _YCBCR and page.compression != _JPEG):
        profile = page.tags.valueof(_ICC_PROFILE)
        colours = _rgb(Image.fromarray(np.ascontiguousarray(colours), "CMYK" if kind == _CMYK else "YCbCr"), profile)
    if alpha.shape[2] and extra == _PREMULTIPLIED:
        colours = _unmultiplied(colours, alpha)
    return np.concatenate([colours, alpha], axis=2) if alpha.shape[2] else colours


def _unmultiplied(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return colours that were multiplied by their alpha, of whole numbers, as they were before."""
    peak = np.iinfo(alpha.dtype).max
    divided = np.divide(colours * float(peak), alpha, out=np.zeros(colours.shape), where=alpha > 0)
    return np.rint(divided.clip(0, peak)).astype(alpha.dtype)


class TiffHeader(NamedTuple):
    """The header of a TIFF's first page.

    Attributes:
        height: in px, as stored.
        width: likewise.
        bits: per channel, 1 at least.
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
    bits, kind, numbers = page.bitspersample, page.photometric, page.sampleformat
    tag = page.tags.get("Orientation")
    named = getattr(kind, "name", kind)
    problem = None
    if page.imagelength * page.imagewidth > 2 * (Image.MAX_IMAGE_PIXELS or 0):  # as Pillow does
        problem = f"{page.imagewidth}×{page.imagelength} px are too many"
    elif numbers != _UNSIGNED:
        problem = f"{bits}-bit {'floating-point' if numbers == _FLOAT else 'signed'} numbers"
    elif bits not in (1, 2, 4, 8, 16) or kind not in (_DEEP if bits == 16 else _COLOURS):
        problem = f"{bits} bits per channel of {named}"
    elif kind == _PALETTE and page.colormap is None:
        problem = "a palette image without its palette"
    elif page.samplesperpixel < _COLOURS[kind]:
        problem = f"{named} of {page.samplesperpixel} channels"
    elif page.compression not in tifffile.TIFF.DECOMPRESSORS:
        problem = f"{getattr(page.compression, 'name', page.compression)} compression"
    elif kind == _YCBCR and page.compression != _JPEG and page.tags.valueof("YCbCrSubSampling") != (1, 1):
        problem = f"subsampled {named} that is not JPEG"
    return TiffHeader(page.imagelength, page.imagewidth, bits, tag.value if tag else 1, pages, problem)


def decode_with_pillow(image: Image.Image) -> np.ndarray:
    """Return an image of 8 bits a channel as it is stored, H×W×C as `decode_png` does; CMYK by its profile."""
    if image.mode == "CMYK":
        return _rgb(image, image.info.get("icc_profile"))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    return np.atleast_3d(np.array(image if image.mode == mode else image.convert(mode)))


def _rgb(image: Image.Image, profile: bytes | None) -> np.ndarray:
    """Return an image of CMYK or YCbCr as H×W×3 uint8."""
    if image.mode == "CMYK" and profile:
        with suppress(ImageCms.PyCMSError):  # a profile of another kind is not used
            srgb = ImageCms.createProfile("sRGB")
            return np.array(ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB"))
    return np.array(image.convert("RGB"))


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return an H×W×C image turned as its EXIF orientation says."""
    turns, mirrored = _UPRIGHT.get(orientation, (0, False))
    return np.ascontiguousarray(np.rot90(values[:, ::-1] if mirrored else values, turns))
