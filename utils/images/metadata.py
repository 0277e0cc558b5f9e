"""What a picture carries besides its pixels, as chunks of PNG: colour profile, EXIF, XMP, IPTC, pixel density."""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import ExifTags, Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(PNG_SIGNATURE) + 25  # of the IHDR chunk, which always comes first
_HEAD, _END = struct.Struct(">I4s"), struct.Struct(">I")  # length and kind before, checksum behind a chunk's data
EXIF_PREFIX, XMP_KEY, IPTC_KEY = b"Exif\x00\x00", b"XML:com.adobe.xmp", b"Raw profile type iptc"
# Chunks of a PNG that stay as they are: the kinds of colour and light, the density, texts.
_OF_COLOURS = (b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI")
_KEPT = (*_OF_COLOURS, b"pHYs", b"tEXt", b"zTXt", b"iTXt")
_EXIF_AS_TEXT = (b"Raw profile type exif", b"Raw profile type APP1")
_EXIF_KEYS = {"exif", "Raw profile type exif"}  # where Pillow finds it before it has decoded a PNG
IPTC_RESOURCE = 0x0404  # of Photoshop's
_RESOURCE_IN_TIFF = re.compile(rb"8BIM\x04\x04\0\0(....)", re.DOTALL)  # its number, no name, its length
_TIFF_XMP, _TIFF_IPTC, _TIFF_PHOTOSHOP, _TIFF_PROFILE = 700, 33723, 34377, 34675
_PER_CM = 3  # TIFF's ResolutionUnit
# What of a TIFF's tags is about the picture; the others are about how the file stores it.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)
METRES_PER_INCH = 0.0254
_SRGB, _UNSPECIFIED = (1, 13), 2  # colour primaries and transfer function (ITU-T H.273)
_HDR = {16: "PQ", 18: "HLG"}  # transfer functions

Chunk = tuple[bytes, bytes]


class Metadata(NamedTuple):
    """What belongs to a picture.

    Attributes:
        profile: its ICC profile, or None.
        chunks: the rest, kinds and data.
        notes: what was dropped and why, for the user.
    """

    profile: bytes | None = None
    chunks: tuple[Chunk, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, kind: bytes) -> bytes | None:
        """Return the data of the first chunk of a kind."""
        return next((data for each, data in self.chunks if each == kind), None)

    def of_colours(self) -> "Metadata":
        """Return what says which colours the pixels mean, without the rest."""
        return self._replace(chunks=tuple(chunk for chunk in self.chunks if chunk[0] in _OF_COLOURS))


NOTHING = Metadata()


def png_chunks(content: bytes) -> Iterator[Chunk]:
    """Yield the kinds and data of a PNG's chunks but for its pixels, as far as it goes."""
    for kind, chunk in _whole_chunks(content):
        if kind != b"IDAT":
            yield kind, content[chunk.start + _HEAD.size : chunk.stop - _END.size]


def pixels_alone(content: bytes) -> bytes:
    """Return a PNG without what is not needed for its pixels: but for critical chunks and transparent values."""
    needed = (content[chunk] for kind, chunk in _whole_chunks(content) if kind[:1].isupper() or kind == b"tRNS")
    return PNG_SIGNATURE + b"".join(needed)


def _whole_chunks(content: bytes) -> Iterator[tuple[bytes, slice]]:
    """Yield the kinds and places of a PNG's chunks, with length and checksum."""
    position = len(PNG_SIGNATURE)
    while position + _HEAD.size <= len(content):
        length, kind = _HEAD.unpack_from(content, position)
        end = position + _HEAD.size + length + _END.size
        yield kind, slice(position, end)
        position = end


def with_chunks(png: bytes, metadata: Metadata) -> bytes:
    """Return a PNG with the metadata in it."""
    chunks = list(metadata.chunks)
    if metadata.profile:
        chunks.insert(0, (b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.profile)))
    added = [_HEAD.pack(len(data), kind) + data + _END.pack(zlib.crc32(kind + data)) for kind, data in chunks]
    return png[:_HEADER_END] + b"".join(added) + png[_HEADER_END:]


def read_metadata(image: Image.Image | None, content: bytes, grey: bool) -> Metadata:
    """Return what belongs to an image; what is damaged is dropped, with a note.

    Args:
        image: that Pillow has opened, of any format; None for a TIFF that it does not know.
        content: of its file.
        grey: whether its pixels have one colour channel.
    """
    notes: list[str] = []
    if image is None:
        try:
            image = _with_tags(content)
        except Exception as error:
            return Metadata(notes=(f"its metadata is damaged and was dropped ({error})",))
    profile = _profile(image, grey, notes)
    if image.format == "PNG":
        chunks = [chunk for chunk in map(_upright_text, png_chunks(content)) if chunk[0] in _KEPT]
        chunks = [(kind, data) for kind, data in chunks if not data.startswith(_EXIF_AS_TEXT)]
    else:
        chunks = [*_texts(image, content), *_density(image), *_colours(content)]
    if exif := _exif(image, notes):
        chunks.append((b"eXIf", exif))
    if (bits := _bits(content)) > 8:
        transfers = [_HDR[data[1]] for kind, data in chunks if kind == b"cICP" and data[1] in _HDR]
        of = f" of high dynamic range ({transfers[0]})" if transfers else ""
        notes.append(f"it has {bits} bits per channel{of}, of which 8 are kept")
    return Metadata(profile, tuple(chunks), tuple(notes))


def _with_tags(content: bytes) -> Image.Image:
    """Return an image without pixels that has the tags of a TIFF as one that Pillow has opened would have them."""
    image = Image.new("L", (0, 0))
    image.format = "TIFF"
    tags = image.getexif()
    tags.load(content)
    inches = 2.54 if tags.get(ExifTags.Base.ResolutionUnit) == _PER_CM else 1
    density = [float(tags.get(tag, 0)) * inches for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)]
    image.info |= {"icc_profile": tags.get(_TIFF_PROFILE), "xmp": tags.get(_TIFF_XMP), "dpi": density}
    return image


def show_late_exif(image: Image.Image, content: bytes) -> None:
    """Let Pillow know of EXIF data that stands behind a PNG's pixels: it would decode them in search of it."""
    for kind, data in png_chunks(content):
        if kind == b"eXIf":
            image.info["exif"] = data


def orientation_of(image: Image.Image) -> int:
    """Return the orientation in an image's EXIF data, 1 to 8; 1, upright, where there is none or it is damaged."""
    if image.format == "PNG" and not _EXIF_KEYS & image.info.keys():
        return 1  # Pillow would decode the whole image in search of it
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever damaged data makes of Pillow: the pixels are none the worse
        return 1
    return found if found in range(1, 9) else 1


def _profile(image: Image.Image, grey: bool, notes: list[str]) -> bytes | None:
    profile = image.info.get("icc_profile")
    if not profile:
        if "icc_profile" in image.info and image.format == "PNG":  # Pillow could not inflate it
            notes.append("its colour profile is damaged and was dropped")
        return None
    cmyk = image.mode == "CMYK"  # whose pixels were converted
    if profile[36:40] != b"acsp":
        notes.append("its colour profile is damaged and was dropped")
        return None
    space = profile[16:20].decode("ascii", "replace").strip()
    if space != ("CMYK" if cmyk else "GRAY" if grey else "RGB"):
        notes.append(f"its colour profile is for {space}, not for these pixels, and was dropped")
        return None
    return None if cmyk else profile


def _exif(image: Image.Image, notes: list[str]) -> bytes | None:
    """Return an image's EXIF data without its orientation; None where nothing is left."""
    try:
        if image.format == "PNG" and not _EXIF_KEYS & image.info.keys():
            return None
        exif = image.getexif()
        if not len(exif) and any(image.info.get(key) for key in _EXIF_KEYS):  # Pillow skips what it cannot read
            raise ValueError("no tag can be read")
        exif.pop(ExifTags.Base.Orientation, None)
        if image.format == "TIFF":
            for tag in set(exif) - set(_DESCRIPTIVE):
                del exif[tag]
        return exif.tobytes().removeprefix(EXIF_PREFIX) if len(exif) else None
    except Exception as error:
        notes.append(f"its EXIF data is damaged and was dropped ({error})")
        return None


def _texts(image: Image.Image, content: bytes) -> Iterator[Chunk]:
    """Yield the XMP and IPTC of an image that is no PNG."""
    if xmp := image.info.get("xmp"):
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        yield _upright_text((b"iTXt", XMP_KEY + bytes(5) + xmp))
    if iptc := _iptc(image, content):
        lines = re.sub(r"(.{72})", r"\1\n", iptc.hex())
        yield b"zTXt", IPTC_KEY + b"\0\0" + zlib.compress(f"\niptc\n{len(iptc):8}\n{lines}\n".encode())


def _iptc(image: Image.Image, content: bytes) -> bytes | None:
    """Return the IPTC data of a JPEG, or of a TIFF: in a tag of its own, of any type, or among Photoshop's."""
    if image.format != "TIFF":
        return image.info.get("photoshop", {}).get(IPTC_RESOURCE)
    import tifffile  # only few pictures need it; Pillow reads the tag wrongly where it is of numbers, as is usual

    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        tags = {code: tiff.pages[0].tags.get(code) for code in (_TIFF_IPTC, _TIFF_PHOTOSHOP)}
    iptc, photoshop = (tag and content[tag.valueoffset :][: tag.valuebytecount] for tag in tags.values())
    if not iptc and photoshop and (resource := _RESOURCE_IN_TIFF.search(photoshop)):
        return photoshop[resource.end() :][: int.from_bytes(resource[1], "big")]
    return iptc


def _upright_text(chunk: Chunk) -> Chunk:
    """Return a chunk with the orientation in its XMP set to that of the pixels, which are turned."""
    kind, data = chunk
    return kind, re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", data) if kind == b"iTXt" else data


def _density(image: Image.Image) -> Iterator[Chunk]:
    try:
        across, down = (round(float(value) / METRES_PER_INCH) for value in image.info.get("dpi", (0, 0)))
    except (TypeError, ValueError, OverflowError):
        return
    if 0 < across < 2**31 and 0 < down < 2**31:
        yield b"pHYs", struct.pack(">IIB", across, down, 1)


def _colours(content: bytes) -> Iterator[Chunk]:
    """Yield the colour space that AVIF and HEIC name by numbers, where it is not sRGB."""
    if content[4:8] == b"ftyp" and (found := re.search(rb"colrnclx(..)(..)", content[: 2**16], re.DOTALL)):
        primaries, transfer = (int.from_bytes(value, "big") for value in found.groups())
        if (primaries, transfer) != _SRGB and _UNSPECIFIED not in (primaries, transfer):
            yield b"cICP", bytes((primaries, transfer, 0, 1))


def _bits(content: bytes) -> int:
    """Return the bits per channel of AVIF and HEIC, of which Pillow keeps 8; 8 of all else."""
    if content[4:8] != b"ftyp":
        return 8
    boxes = content[: 2**16]  # several where there are tiles, a thumbnail or transparency
    avif = [flags[0] for flags in re.findall(rb"av1C..(.)", boxes, re.DOTALL)]
    heic = [depth[0] for depth in re.findall(rb"hvcC.{17}(.)", boxes, re.DOTALL)]
    more = [2 * bool(each & 0x40) + 2 * bool(each & 0x20) for each in avif] + [each & 7 for each in heic]
    return 8 + max(more, default=0)
