"""Files of many kinds give the pixels that another library, or their own definition, gives; and keep their metadata."""

import io
import random
import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, features

from tests.support.processes import run_script
from utils.images.codecs import UnreadableError, inspect_image, read_image
from utils.images.metadata import png_chunks, read_metadata
from utils.images.photographs import read_picture, write_picture

VALUES = np.random.default_rng(0).integers(0, 65536, (48, 64, 4), dtype=np.uint16)


def displayed(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as Pillow turns one with that orientation."""
    indices = Image.fromarray(np.arange(stored.shape[0] * stored.shape[1], dtype=np.int32).reshape(stored.shape[:2]))
    indices.getexif()[0x0112] = orientation
    return stored.reshape(-1, *stored.shape[2:])[np.asarray(ImageOps.exif_transpose(indices))]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs_are_upright_and_their_header_says_their_size(tmp_path, orientation, dtype):
    path, stored = tmp_path / "a.tif", (VALUES[..., :3] >> (8 if dtype == np.uint8 else 0)).astype(dtype)
    tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, "H", 1, orientation)])
    expected = displayed(stored, orientation)
    np.testing.assert_array_equal(read_picture(path).pixels, expected)
    info = inspect_image(path, deep=True)
    assert (info.height, info.width) == expected.shape[:2]


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_deep_tiffs_of_any_layout(tmp_path, compression, layout, planar):
    path, stored = tmp_path / "a.tif", VALUES[..., :3]
    given = stored if planar == "contig" else np.moveaxis(stored, -1, 0)
    tifffile.imwrite(path, given, photometric="rgb", planarconfig=planar, compression=compression, **layout)
    for _ in range(2):
        np.testing.assert_array_equal(read_picture(path).pixels, stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_whose_lowest_value_is_white(tmp_path, dtype):
    stored = VALUES[..., 0].astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    picture = read_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels[..., 0], np.iinfo(dtype).max - stored)
    assert picture.grey


@pytest.mark.parametrize(("channels", "photometric"), [(2, "minisblack"), (4, "rgb")])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha", "unspecified"])
def test_alpha_of_deep_tiffs(tmp_path, channels, photometric, kind):
    stored = VALUES[..., :channels].copy()
    stored[..., -1] |= 0x8000
    original = stored.copy()
    if kind == "assocalpha":
        stored[..., :-1] = np.rint(stored[..., :-1] * (stored[..., -1:] / 65535.0))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, extrasamples=[kind])
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.pixels.astype(int) - original[..., : channels - 1]).max() <= 1
    if kind != "unspecified" or channels == 4:
        np.testing.assert_array_equal(picture.alpha, original[..., -1])


def test_a_tiff_that_pillow_does_not_know_says_what_it_loses(tmp_path):
    for _ in range(2):
        tifffile.imwrite(tmp_path / "a.tif", VALUES[..., :2], photometric="minisblack", extrasamples=[2], append=True)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.frames == 2
    assert "was dropped" in picture.metadata.notes[0]


def test_a_tiff_of_too_many_pixels_is_refused_before_they_are_allocated(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VALUES[..., :2], photometric="minisblack", extrasamples=[2])
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for tag, length in ((256, 64), (257, 48)):
        at = content.index(struct.pack("<HHI", tag, 4, 1) + struct.pack("<I", length)) + 8
        content[at : at + 4] = struct.pack("<I", 60000)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UnreadableError, match="60000×60000 px are too many"):
        read_picture(tmp_path / "a.tif")


def test_a_tiff_without_all_its_strips_is_damaged(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VALUES[..., :3], photometric="rgb", compression="lzw", rowsperstrip=8)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(struct.pack("<HHII", 257, 4, 1, 48)) + 8
    content[at : at + 4] = struct.pack("<I", 56)  # rows
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UnreadableError, match="damaged or incomplete .strips or tiles are missing"):
        read_picture(tmp_path / "a.tif")


def png(stored: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG by its definition: unfiltered rows, with chunks before them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in stored]
    else:
        digits = ["".join(f"{value:0{bits}b}" for value in row.ravel()) for row in stored]
        rows = [int(row, 2).to_bytes(len(row) // 8, "big") for row in digits]
    header = struct.pack(">IIBBBBB", stored.shape[1], stored.shape[0], bits, colour, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in body)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_pngs_keep_their_transparent_value(tmp_path, bits):
    stored = VALUES[..., 0] >> (16 - bits)
    path, clear = tmp_path / "a.png", int(stored[3, 4])
    path.write_bytes(png(stored, bits, 0, (b"tRNS", struct.pack(">H", clear))))
    picture = read_picture(path)
    peak = np.iinfo(picture.pixels.dtype).max
    np.testing.assert_array_equal(picture.pixels[..., 0], stored * (peak // (2**bits - 1)))
    np.testing.assert_array_equal(picture.alpha, np.where(stored == clear, 0, peak))
    write_picture(tmp_path / "b.png", picture.pixels.astype(np.float32) / peak, picture)
    again = read_picture(tmp_path / "b.png")
    assert again.grey
    np.testing.assert_array_equal(again.pixels, picture.pixels)
    np.testing.assert_array_equal(again.alpha, picture.alpha)


@pytest.mark.parametrize(("colour", "channels"), [(4, 2), (6, 4), (2, 3)])
def test_deep_pngs_and_their_animations(tmp_path, colour, channels):
    animated = (b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", struct.pack(">5I2H2B", 0, 64, 48, 0, 0, 1, 1, 0, 0))
    (tmp_path / "a.png").write_bytes(png(VALUES[..., :channels], 16, colour, *animated))
    picture = read_picture(tmp_path / "a.png")
    assert picture.grey == (channels == 2)
    np.testing.assert_array_equal(picture.pixels, VALUES[..., :1].repeat(3, 2) if channels == 2 else VALUES[..., :3])
    assert channels == 3 or (picture.alpha == VALUES[..., channels - 1]).all()


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


def test_cmyk_is_converted_by_its_profile(tmp_path, photo):
    photo.convert("CMYK").save(tmp_path / "a.jpg", icc_profile=grey_cmyk_profile())
    picture = read_picture(tmp_path / "a.jpg")
    assert np.ptp(picture.pixels) == 0
    photo.convert("CMYK").save(tmp_path / "b.jpg")
    assert np.ptp(read_picture(tmp_path / "b.jpg").pixels) > 100
    assert (picture.metadata.profile, picture.metadata.notes) == (None, ())


@pytest.mark.parametrize(("flags", "bits"), [(0x0C, 8), (0x4C, 10), (0x6C, 12)])
def test_bits_that_an_avif_loses_are_reported(photo, flags, bits):
    content = b"\0\0\0\x20ftypavif" + bytes(40) + b"av1C" + bytes((0x81, 0x20, flags, 0))
    notes = read_metadata(photo, content, grey=False).notes
    assert notes == ((f"it has {bits} bits per channel, of which 8 are kept",) if bits > 8 else ())


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


def test_the_small_inputs_that_failed(shared):
    """By a TIFF library, or as their README says."""
    folder = shared / "cases" / "pictures"
    for name, orientation in (("orient2", 2), ("orient6", 6)):
        path = folder / f"{name}.tif"
        np.testing.assert_array_equal(read_picture(path).pixels, displayed(tifffile.imread(path), orientation))
    planar = np.moveaxis(tifffile.imread(folder / "planar_raw.tif"), 0, -1)
    np.testing.assert_array_equal(read_picture(folder / "planar_raw.tif").pixels, planar)
    blurry, sharp = (read_image(folder / "pair_tiff" / side / "a.tif") for side in ("blur", "sharp"))
    assert blurry.shape == sharp.shape
    clear = read_picture(folder / "grey16_transparent.png")
    assert (clear.grey, clear.pixels.dtype, int((clear.alpha == 0).all(1).sum())) == (True, np.uint16, 16)
    with pytest.raises(UnreadableError, match="palette_without_PLTE"):
        read_picture(folder / "palette_without_PLTE.png")


FUZZ = """
import random, resource, sys
from pathlib import Path
from utils.images.codecs import UnreadableError
from utils.images.photographs import read_picture
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30, resource.RLIM_INFINITY))
def outcome(path):
    try:
        picture = read_picture(path)
        return picture.pixels.tobytes(), picture.alpha is None
    except UnreadableError as error:
        return str(error)
whole, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
content, rng, target = whole.read_bytes(), random.Random(seed), whole.with_name("mutated" + whole.suffix)
for i in range(count):
    mutated = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        mutated[rng.randrange(min(len(mutated), rng.choice((64, 512, 10**9))))] = rng.randrange(256)
    target.write_bytes(mutated[: rng.randrange(len(mutated))] if rng.random() < 0.1 else mutated)
    outcomes = [outcome(target) for _ in range(2)]
    lacks = any(isinstance(each, str) and "does not fit into memory" in each for each in outcomes)  # may come and go
    assert lacks or outcomes[0] == outcomes[1], (i, [each if isinstance(each, str) else "" for each in outcomes])
print("done")
"""


def fuzz(tmp_path, photo, suffix: str, count: int) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix.startswith("deep"):
        path = tmp_path / f"a.{suffix[5:]}"
        if suffix == "deep.tif":
            tifffile.imwrite(path, VALUES[..., :3], photometric="rgb", compression="lzw")
        else:
            path.write_bytes(png(VALUES, 16, 6))
    else:
        photo.save(path)
    result = run_script("-c", FUZZ, str(path), str(random.Random(suffix).randrange(1000)), str(count))
    # libtiff, inside Pillow, writes some of its own to stderr.
    noise = [line for line in result.stderr.splitlines() if not line.startswith(("TIFF", "LibTIFF"))]
    assert (result.returncode, result.stdout, noise) == (0, "done\n", [])


FORMATS = ["png", "jpg", "tif", "webp", "bmp", "deep.tif", "deep.png", *(["avif"] if features.check("avif") else [])]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_files_changed_at_random_are_read_or_refused(tmp_path, photo):
    for suffix in FORMATS:
        fuzz(tmp_path, photo, suffix, 7)


@pytest.mark.large
@pytest.mark.parametrize("suffix", FORMATS)
def test_thousands_of_files_changed_at_random(tmp_path, photo, suffix):
    fuzz(tmp_path, photo, suffix, 2000)
