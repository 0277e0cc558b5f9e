"""What belongs to a picture stays with it, or is dropped with a note: colours, profile, EXIF, XMP, IPTC, density."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, features

from tests.support.pictures import VALUES, png
from utils.images.metadata import png_chunks, read_metadata
from utils.images.photographs import read_picture, write_picture


def through(path, target):
    """Restore a picture to itself, and return what Pillow finds in the file."""
    picture = read_picture(path)
    write_picture(target, picture.pixels.astype(np.float32) / np.iinfo(picture.pixels.dtype).max, picture)
    with Image.open(target) as image:
        image.load()
        return picture, image


def test_colour_and_light_of_a_png_stay(tmp_path):
    chunks = [(b"gAMA", struct.pack(">I", 100_000)), (b"cICP", bytes((9, 16, 0, 1))), (b"cLLI", bytes(8))]
    (tmp_path / "a.png").write_bytes(png(VALUES[..., :3], 16, 2, *chunks))
    through(tmp_path / "a.png", tmp_path / "b.png")
    assert [chunk for chunk in png_chunks((tmp_path / "b.png").read_bytes()) if chunk in chunks] == chunks


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_the_colour_space_of_an_avif_stays(tmp_path, photo):
    photo.save(tmp_path / "a.avif")
    content = (tmp_path / "a.avif").read_bytes()
    at = content.index(b"colrnclx") + 8
    (tmp_path / "a.avif").write_bytes(content[:at] + struct.pack(">HH", 9, 16) + content[at + 4 :])
    through(tmp_path / "a.avif", tmp_path / "b.png")
    assert (b"cICP", bytes((9, 16, 0, 1))) in list(png_chunks((tmp_path / "b.png").read_bytes()))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_xmp_and_density_stay_and_the_orientation_in_them_is_that_of_the_pixels(tmp_path, photo, suffix):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="Title"/></x:xmpmeta>'
    exif = photo.getexif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    path, options = tmp_path / f"a.{suffix}", {"xmp": xmp} if suffix in ("jpg", "webp") else {}
    if suffix == "tif":
        options["tiffinfo"] = {700: xmp, 0x010F: "Maker"}
    photo.save(path, **options, dpi=(300, 200), exif=exif)
    _, image = through(path, tmp_path / "b.png")
    if options:
        assert b"Title" in image.info["xmp"]
        assert b'Orientation="6"' not in image.info["xmp"]
    if suffix != "webp":  # which has none
        assert [round(value) for value in image.info["dpi"]] == [300, 200]
    assert image.getexif()[0x010F] == "Maker"
    assert image.getexif().get(0x0112, 1) == 1


def test_iptc_stays(tmp_path, photo):
    record = b"\x1c\x02\x78\x00\x05words"
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
    buffer = io.BytesIO()
    photo.save(buffer, format="JPEG")
    segment = b"Photoshop 3.0\0" + resource
    jpeg = buffer.getvalue()
    segment = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    _, image = through(tmp_path / "a.jpg", tmp_path / "b.png")
    assert record.hex() in image.info["Raw profile type iptc"].replace("\n", "")


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("where", ["bytes", "numbers", "Photoshop's"])
def test_iptc_of_a_tiff_stays(tmp_path, byteorder, where):
    record = b"\x1c\x02\x78\x00\x05words\x1c\x02"
    resource = b"8BIM\x03\xed\0\0" + bytes(8) + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
    numbers = struct.unpack(f"{byteorder}3I", record)
    tag = {"bytes": (33723, 7, 12, record, True), "numbers": (33723, 4, 3, numbers, True),
           "Photoshop's": (34377, 7, len(resource), resource, True)}[where]  # fmt: skip
    tifffile.imwrite(tmp_path / "a.tif", VALUES[..., :3], byteorder=byteorder, photometric="rgb", extratags=[tag])
    _, image = through(tmp_path / "a.tif", tmp_path / "b.png")
    assert record.hex() in image.info["Raw profile type iptc"].replace("\n", "")


def grey_cmyk_profile() -> bytes:
    """Return a profile in which all mixes of inks are the same grey."""
    curve, identity = bytes(range(256)), struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + 4 * curve + 16 * bytes((128, 128, 128)) + 3 * curve
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    table += bytes(-len(table) % 4)
    tags = struct.pack(">I", 2) + b"A2B0" + struct.pack(">II", 156, len(table))
    tags += b"wtpt" + struct.pack(">II", 156 + len(table), len(white))
    head = bytearray(128)
    head[:4], head[8:12] = struct.pack(">I", 156 + len(table) + len(white)), bytes((2, 0x20, 0, 0))
    head[12:24], head[36:40], head[68:80] = b"prtrCMYKLab ", b"acsp", struct.pack(">3i", 63190, 65536, 54061)
    return bytes(head) + tags + table + white


BROKEN_CHUNKS = {  # kind, data, whether its checksum is right
    "checksum of a text": (b"tEXt", b"Author\0me", False),
    "checksum of EXIF": (b"eXIf", b"MM\0*\0\0\0\x08\0\0", False),
    "length of gAMA": (b"gAMA", b"\0", True),
    "length of pHYs": (b"pHYs", b"\0\0", True),
    "length of acTL": (b"acTL", b"\0", True),
    "profile without a name's end": (b"iCCP", b"name", True),
    "profile that does not inflate": (b"iCCP", b"name\0\0no zlib", True),
    "EXIF without a header": (b"eXIf", b"garbage!", True),
    "EXIF as text in bad hexadecimals": (b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzz zz\n", True),
}


@pytest.mark.parametrize("case", BROKEN_CHUNKS)
@pytest.mark.parametrize("channels", [3, 4])
def test_pngs_that_are_damaged_in_metadata_alone_are_restored_with_a_note(tmp_path, case, channels):
    kind, data, right = BROKEN_CHUNKS[case]
    content = bytearray(png(VALUES[..., :channels] & 255, 8, 2 if channels == 3 else 6, (kind, data)))
    end = content.index(kind) + len(kind) + len(data)
    content[end] ^= not right  # of the checksum
    (tmp_path / "a.png").write_bytes(content)
    picture, _ = through(tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(picture.pixels, VALUES[..., :3] & 255)
    assert (picture.alpha is None) == (channels == 3)
    assert any("damaged and was dropped" in note for note in picture.metadata.notes), picture.metadata.notes


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_exif_of_which_no_tag_can_be_read_is_dropped_with_a_note(tmp_path, photo, suffix):
    photo.save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    picture, _ = through(tmp_path / f"a.{suffix}", tmp_path / "b.png")
    assert "its EXIF data is damaged and was dropped (no tag can be read)" in picture.metadata.notes


def test_cmyk_is_converted_by_its_profile(tmp_path, photo):
    photo.convert("CMYK").save(tmp_path / "a.jpg", icc_profile=grey_cmyk_profile())
    picture = read_picture(tmp_path / "a.jpg")
    assert np.ptp(picture.pixels) == 0
    photo.convert("CMYK").save(tmp_path / "b.jpg")
    assert np.ptp(read_picture(tmp_path / "b.jpg").pixels) > 100
    assert (picture.metadata.profile, picture.metadata.notes) == (None, ())


@pytest.mark.parametrize(
    ("box", "bits"),
    [
        *((b"av1C" + bytes((0x81, 0x20, flags, 0)), bits) for flags, bits in ((0x0C, 8), (0x4C, 10), (0x6C, 12))),
        *((b"hvcC" + bytes(17) + bytes((0xF8 + bits - 8, 0)), bits) for bits in (8, 10, 12)),
    ],
)
@pytest.mark.parametrize(("transfer", "named"), [(16, "PQ"), (18, "HLG"), (1, "")])
def test_bits_that_an_avif_or_heic_loses_are_reported(photo, box, bits, transfer, named):
    content = b"\0\0\0\x20ftypheic" + bytes(40) + b"colrnclx" + struct.pack(">HH", 9, transfer) + bytes(40) + box
    notes = read_metadata(photo, content + box[:4] + bytes(30), grey=False).notes  # and a thumbnail's, of 8 bits
    of = f" of high dynamic range ({named})" if named else ""
    assert notes == ((f"it has {bits} bits per channel{of}, of which 8 are kept",) if bits > 8 else ())


def test_a_heic_of_10_bits_keeps_its_colour_space_and_says_what_it_loses(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    values = np.ascontiguousarray(VALUES[..., :3])
    encoded = heif.from_bytes("RGB;16", (64, 48), values.tobytes())
    encoded.save(tmp_path / "a.heic", color_primaries=9, transfer_characteristics=16, matrix_coefficients=9)
    picture, _ = through(tmp_path / "a.heic", tmp_path / "b.png")
    assert picture.metadata.notes == ("it has 10 bits per channel of high dynamic range (PQ), of which 8 are kept",)
    assert (b"cICP", bytes((9, 16, 0, 1))) in picture.metadata.chunks


def test_a_profile_of_colours_is_not_used_for_cmyk(tmp_path, photo):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.convert("CMYK").save(tmp_path / "a.jpg", icc_profile=srgb)  # a profile of the wrong kind
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.metadata.profile is None
    assert picture.metadata.notes == ("its colour profile is for RGB, not for these pixels, and was dropped",)


@pytest.mark.parametrize("damage", ["resolution", "profile of grey", "profile"])
def test_damaged_metadata_is_dropped_with_a_note(tmp_path, photo, request, damage):
    path = tmp_path / "a.jpg"
    if damage == "resolution":
        shared = request.getfixturevalue("shared")
        path.write_bytes((shared / "cases" / "pictures" / "exif_resolution_as_text.jpg").read_bytes())
    else:
        profile = b"no profile at all" if damage == "profile" else bytearray(
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())  # fmt: skip
        if isinstance(profile, bytearray):
            profile[16:20] = b"GRAY"
        photo.save(path, icc_profile=bytes(profile))
    picture, image = through(path, tmp_path / "b.png")
    (note,) = picture.metadata.notes
    assert "dropped" in note
    assert "icc_profile" not in image.info
    with Image.open(path) as source:
        np.testing.assert_array_equal(picture.pixels, np.asarray(source))
