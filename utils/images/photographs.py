"""Photographs with all that belongs to them: depth, transparency, colour profile, EXIF and other metadata."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.common.files import atomic_write
from utils.images.codecs import decode, encode_png, open_image, peek
from utils.images.conversion import to_uint8, to_uint16
from utils.images.decoding import read_tiff_header
from utils.images.metadata import NOTHING, Metadata, read_metadata, with_chunks
from utils.images.saving import PNG, SaveSettings, encode_lossy


@dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes:
        pixels: H×W×3 RGB, upright, uint8, or uint16 where the file has 16 bits a channel; grey is repeated.
        alpha: H×W of the same type, or None for an opaque picture.
        grey: whether the file has one colour channel.
        metadata: colour profile, EXIF without an orientation, and the rest.
        frames: pages or frames in the file, of which these are the first one's pixels.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    metadata: Metadata = NOTHING
    frames: int = 1


def read_picture(path: Path) -> Picture:
    """Read an image file with all that belongs to it.

    Raises:
        UnreadableError: not an image, truncated or damaged, too large for the memory, or with other than 8 or 16 bits a
            channel.
    """
    with open_image(path, deep=True) as opened:
        values = decode(opened)
        channels = values.shape[2]
        grey = channels < 3
        alpha = np.ascontiguousarray(values[..., -1]) if channels in (2, 4) else None
        pixels = values[..., :1].repeat(3, axis=2) if grey else np.ascontiguousarray(values[..., :3])
        image = opened.image
        if image is None:
            frames = read_tiff_header(opened.file).pages
        else:
            # The further images of a phone's JPEG (MPO) are previews and depth, no pages.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        metadata = read_metadata(image, peek(opened.file), grey)
        if opened.bare:
            metadata = metadata._replace(notes=("its metadata is damaged and was dropped", *metadata.notes))
        return Picture(pixels, alpha, grey, metadata, frames)


def write_picture(path: Path, restored: np.ndarray, like: Picture, settings: SaveSettings = PNG) -> tuple[str, ...]:
    """Write a restored picture with the depth, transparency and metadata of the one it was made from.

    Args:
        path: ends as files of the format do.
        restored: H×W×3 float32 in [0, 1].
        like: what it was made from.
        settings: the format, and whether metadata is written; of colours it is in any case.

    Returns:
        what the format does not hold, a note for the user, or nothing.

    Raises:
        UserError: it cannot be written.
    """
    png, deep = settings.output_format == "png", like.pixels.dtype == np.uint16
    values = to_uint16(restored) if png and deep else to_uint8(restored)
    if like.grey:
        values = np.rint(values.mean(axis=2, keepdims=True)).astype(values.dtype)
    if like.alpha is not None:
        alpha = (like.alpha >> 8).astype(np.uint8) if deep and not png else like.alpha
        values = np.concatenate([values, alpha[..., None]], axis=2)
    metadata = like.metadata.of_colours() if settings.strip_metadata else like.metadata
    lost: list[str] = []
    if png:
        content = with_chunks(encode_png(values), metadata)
    else:
        content, lost = encode_lossy(values, metadata, settings)
        lost = ["8 of its 16 bits per channel"] * deep + lost
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return (f"saved as {settings.format.name} without {', '.join(lost)}",) if lost else ()
