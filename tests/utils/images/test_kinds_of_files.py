"""Files of many kinds give the pixels that another library, or their own definition, gives."""

import struct
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from tests.support.pictures import VALUES, png
from utils.images.codecs import UnreadableError, inspect_image, read_image
from utils.images.photographs import read_picture, write_picture


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_in_planes_of_which_there_is_one(tmp_path, dtype):
    values = VALUES[..., 0].astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tag = tiff.pages[0].tags.get("PlanarConfiguration")
    if tag is None:  # another one takes its place
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            tag = tiff.pages[0].tags["ResolutionUnit"]
        content[tag.offset : tag.offset + 2] = struct.pack("<H", 284)
    content[tag.offset + 8 : tag.offset + 10] = struct.pack("<H", 2)
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels[..., 0], values)


def test_a_palette_image_without_its_palette_is_named(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        VALUES[..., 0].astype(np.uint8),
        photometric="palette",
        colormap=np.zeros((3, 256), np.uint16),
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tag = tiff.pages[0].tags["ColorMap"]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[tag.offset : tag.offset + 2] = struct.pack("<H", 65000)  # a tag that nobody knows
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UnreadableError, match="not supported: a palette image without its palette"):
        read_picture(tmp_path / "a.tif")


def test_a_picture_without_pixels_is_skipped(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VALUES[..., 0])
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        offsets = [tiff.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    for offset in offsets:
        content[offset : offset + 2] = b"\0\0"
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UnreadableError, match="cannot be read as an image"):
        inspect_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("channels", "photometric"), [(2, "minisblack"), (4, "rgb")])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_of_tiffs(tmp_path, channels, photometric, kind, dtype):
    stored, peak = VALUES[..., :channels].astype(dtype), np.iinfo(dtype).max
    stored[..., -1] |= peak // 2 + 1
    original = stored.copy()
    if kind == "assocalpha":
        stored[..., :-1] = np.rint(stored[..., :-1] * (stored[..., -1:] / peak))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, extrasamples=[kind])
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.pixels.astype(int) - original[..., : channels - 1]).max() <= 1
    if kind == "unspecified" and (channels == 2 or dtype == np.uint8):
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, original[..., -1])


def test_a_tiff_that_pillow_does_not_know_keeps_its_metadata(tmp_path):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    xmp, iptc = b'<x:xmpmeta dc:title="Title"/>', b"\x1c\x02\x78\x00\x05words"
    tags = [(34675, 7, len(profile), bytes(profile)), (700, 1, len(xmp), xmp), (33723, 7, len(iptc), iptc)]
    tags += [(271, 2, 0, "Maker"), (274, 3, 1, 6)]
    alpha = {"photometric": "minisblack", "extrasamples": [2], "resolution": (50, 40), "resolutionunit": "CENTIMETER"}
    for _ in range(2):
        tifffile.imwrite(tmp_path / "a.tif", VALUES[..., :2], **alpha, extratags=tags, append=True)
    picture = read_picture(tmp_path / "a.tif")
    assert (picture.frames, picture.metadata.notes, picture.metadata.profile) == (2, (), bytes(profile))
    write_picture(tmp_path / "b.png", picture.pixels.astype(np.float32) / 65535, picture)
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        assert (image.getexif()[271], image.getexif().get(274)) == ("Maker", None)
        assert b"Title" in image.info["xmp"]
        assert iptc.hex() in image.info["Raw profile type iptc"].replace("\n", "")
        assert [round(value) for value in image.info["dpi"]] == [127, 102]


KINDS = {"1": ["packbits", "group4"], "P": ["packbits"], "CMYK": ["tiff_lzw", "jpeg"], "YCbCr": ["tiff_lzw", "jpeg"]}


@pytest.mark.parametrize(("mode", "compression"), [(mode, each) for mode, several in KINDS.items() for each in several])
def test_other_tiffs_of_8_bits_are_what_pillow_reads(tmp_path, photo, mode, compression):
    if compression == "group4" and sys.version_info < (3, 11):
        pytest.skip("the last imagecodecs for Python 3.10 does not decode it")
    path = tmp_path / "a.tif"
    photo.convert(mode).save(path, compression=compression)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read_picture(path).pixels - expected).max() <= (mode == "YCbCr")


def test_what_is_not_read_of_8_bits_is_named(tmp_path):
    grey = VALUES[..., 0].astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack")
    for tag, value, found in ((262, 8, "8 bits per channel of CIELAB"), (259, 34676, "SGILOG compression")):
        content = bytearray((tmp_path / "a.tif").read_bytes())
        content[content.index(struct.pack("<HHI", tag, 3, 1)) + 8] = value & 255
        content[content.index(struct.pack("<HHI", tag, 3, 1)) + 9] = value >> 8
        (tmp_path / "b.tif").write_bytes(content)
        with pytest.raises(UnreadableError, match=f"b.tif is not supported: {found}; convert it"):
            read_picture(tmp_path / "b.tif")


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
