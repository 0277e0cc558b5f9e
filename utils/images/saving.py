"""How restored pictures are saved: as PNG, which loses nothing, or as JPEG or WebP, which are smaller."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from utils.images.codecs import UnreadableError
from utils.images.metadata import EXIF_PREFIX, IPTC_KEY, IPTC_RESOURCE, METRES_PER_INCH, XMP_KEY, Metadata


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        name: as people write it.
        ending: of its files' names.
        max_side: px, of its pictures.
    """

    name: str
    ending: str
    max_side: int


FORMATS = {
    "png": Format("PNG", ".png", 2**31 - 1),
    "jpeg": Format("JPEG", ".jpg", 65_500),
    "webp": Format("WebP", ".webp", 16_383),
}
_MARKER = 65_533  # bytes that a marker of JPEG holds
_MAX_BYTES = {
    "exif": _MARKER - len(EXIF_PREFIX),
    "xmp": _MARKER - 29,
    "extra": _MARKER - 28,
}  # of JPEG, less their names


@dataclass(frozen=True)
class SaveSettings:
    """See the flags of D_testing.py with these names."""

    output_format: str = "png"
    quality: int = 95
    suffix: str = ""
    strip_metadata: bool = False

    @property
    def format(self) -> Format:
        """What the name of the format stands for."""
        return FORMATS[self.output_format]

    @property
    def ending(self) -> str:
        """What the names of the files end in."""
        return f"{self.suffix}{self.format.ending}"

    def record(self) -> dict[str, Any]:
        """Return what differs from the defaults, for the settings of a run: earlier versions wrote nothing else."""
        return {name: value for name, value in asdict(self).items() if value != getattr(SaveSettings, name)}

    def check_size(self, path: Path, image: np.ndarray) -> None:
        """Raise `UnreadableError` for an H×W×3 image, read from a file, that is too large for the format."""
        height, width = image.shape[:2]
        if max(height, width) > self.format.max_side:
            raise UnreadableError(
                f"{path} is {width}×{height} px, and {self.format.name} holds at most {self.format.max_side:,} a side; "
                "give --output_format png"
            )


PNG = SaveSettings()


def encode_lossy(values: np.ndarray, metadata: Metadata, settings: SaveSettings) -> tuple[bytes, list[str]]:
    """Return a picture as JPEG or WebP, and what the format does not hold of it.

    Args:
        values: H×W×C uint8: grey, grey with alpha, RGB or RGBA by its channels.
        metadata: to be kept as far as the format can.
        settings: format and quality.
    """
    jpeg, lost = settings.output_format == "jpeg", []
    if jpeg and values.shape[2] in (2, 4):
        lost.append("its transparency")
        values = values[..., :-1]
    grey = values.shape[2] < 3
    kept: dict[str, Any] = {}
    if metadata.profile and grey and not jpeg:  # WebP has no grey
        lost.append("its colour profile of grey")
    elif metadata.profile:
        kept["icc_profile"] = metadata.profile
    for name, what, value in _parts(metadata):
        if name is None or (name in ("dpi", "extra") and not jpeg):
            lost.append(what)
        elif jpeg and name in _MAX_BYTES and len(value) > _MAX_BYTES[name]:
            lost.append(f"{what} of {len(value):,} bytes")
        else:
            kept[name] = value
    if "exif" in kept:
        kept["exif"] = EXIF_PREFIX + kept["exif"]
    if "extra" in kept:
        kept["extra"] = photoshop_marker(kept["extra"])
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values))
    file = io.BytesIO()
    image.save(file, settings.format.name, quality=settings.quality, subsampling=0, **kept)
    return file.getvalue(), list(dict.fromkeys(lost))


def _parts(metadata: Metadata) -> Iterator[tuple[str | None, str, Any]]:
    """Yield what the chunks of PNG hold: Pillow's name of it, None where it has none, the reader's, and the value."""
    colours_are_known = metadata.profile is not None or metadata.of(b"sRGB") is not None
    for kind, data in metadata.chunks:
        if kind == b"eXIf":
            yield "exif", "its EXIF data", data
        elif kind == b"pHYs":
            across, down, unit = struct.unpack(">IIB", data)
            yield "dpi" if unit else None, "its pixel density", (across * METRES_PER_INCH, down * METRES_PER_INCH)
        elif kind == b"sRGB" or (kind in (b"gAMA", b"cHRM") and colours_are_known):
            continue
        elif kind in (b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI"):
            yield None, "its colour space", data
        elif data.startswith(XMP_KEY + b"\0"):
            yield "xmp", "its XMP", _text(kind, data)
        elif data.startswith(IPTC_KEY + b"\0"):
            yield "extra", "its IPTC", bytes.fromhex(_text(kind, data).split(maxsplit=2)[2].decode())
        else:
            yield None, "its texts", data


def _text(kind: bytes, data: bytes) -> bytes:
    """Return the text of a chunk, without its key."""
    rest = data.partition(b"\0")[2]
    if kind == b"zTXt":
        return zlib.decompress(rest[1:])
    if kind == b"tEXt":
        return rest
    text = rest[2:].split(b"\0", 2)[2]  # after a language, and the key in that
    return zlib.decompress(text) if rest[0] else text


def photoshop_marker(iptc: bytes) -> bytes:
    """Return the marker of JPEG that holds IPTC data, as one of Photoshop's resources."""
    resource = b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    content = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
