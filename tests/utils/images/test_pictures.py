"""Photographs as they come: depth, transparency, profiles, EXIF, formats, broken files."""

import os
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, features

from tests.support.samples import SAMPLE
from utils.images import codecs, conversion, decoding
from utils.images.codecs import UnreadableError, optional_formats, read_image, write_png
from utils.images.photographs import read_picture, write_picture

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION, MAKER, EXPOSURE = 0x0112, 0x010F, (0x8769, 0x829A)


def deep(photo) -> np.ndarray:
    """H×W×3 uint16 RGB with digits below the eighth bit."""
    return np.asarray(photo).astype(np.uint16) * 257 + np.arange(72, dtype=np.uint16)[None, :, None]


def through(path, like):
    """Write a picture as if it had been restored to itself, and read it again."""
    peak = np.iinfo(like.pixels.dtype).max
    write_picture(path, like.pixels.astype(np.float32) / peak, like)
    return read_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [8, 16])
def test_pictures_are_upright_and_keep_profile_and_exif(tmp_path, photo, orientation, depth):
    exif = photo.getexif()
    exif[MAKER], exif[ORIENTATION] = "Maker", orientation
    exif.get_ifd(EXPOSURE[0])[EXPOSURE[1]] = 0.01
    path = tmp_path / "a.png"
    if depth == 8:
        photo.save(path, exif=exif, icc_profile=PROFILE)
    else:
        kinds = [cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_ICCP]
        contents = [exif.tobytes().removeprefix(b"Exif\x00\x00"), PROFILE]
        contents = [np.frombuffer(content, np.uint8) for content in contents]
        assert cv2.imwriteWithMetadata(str(path), deep(photo)[..., ::-1], kinds, contents)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    picture = read_picture(path)
    assert picture.pixels.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert (picture.pixels >> (depth - 8) == upright).all()
    again = through(tmp_path / "b.png", picture)
    assert (again.pixels == picture.pixels).all()
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["icc_profile"] == PROFILE
        kept = image.getexif()
        assert (kept[MAKER], kept.get(ORIENTATION)) == ("Maker", None)
        assert kept.get_ifd(EXPOSURE[0])[EXPOSURE[1]] == pytest.approx(0.01)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_stay_16_bits(tmp_path, photo, suffix, channels):
    values = np.dstack([deep(photo), deep(photo)[..., 0]])[..., :channels]
    path = tmp_path / f"a.{suffix}"
    assert cv2.imwrite(str(path), values[..., 0] if channels == 1 else values[..., [2, 1, 0, 3][:channels]])
    picture = read_picture(path)
    assert (picture.pixels == values[..., :3]).all()  # grey is repeated
    assert picture.grey == (channels == 1)
    again = through(tmp_path / "b.png", picture)
    assert again.pixels.dtype == np.uint16
    assert (again.pixels == picture.pixels).all()
    assert again.grey == picture.grey
    assert (again.alpha is None) == (channels < 4)
    assert channels < 4 or (again.alpha == values[..., 3]).all()


@pytest.mark.parametrize(("mode", "saved"), [("L", "L"), ("LA", "LA"), ("RGBA", "RGBA"), ("P", "RGB"), ("1", "L")])
def test_grey_stays_grey_and_alpha_passes_through(tmp_path, photo, mode, saved):
    source = photo.convert(mode)
    if mode in ("LA", "RGBA"):
        source.putalpha(Image.fromarray(np.arange(48 * 72, dtype=np.uint32).astype(np.uint8).reshape(48, 72)))
    source.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    again = through(tmp_path / "b.png", picture)
    assert (again.pixels == picture.pixels).all()
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == saved
        if mode in ("LA", "RGBA"):
            assert (np.asarray(image.getchannel("A")) == np.asarray(source.getchannel("A"))).all()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif", "bmp", *(["avif"] if features.check("avif") else [])])
def test_formats_that_pillow_reads(tmp_path, photo, suffix):
    photo.save(tmp_path / f"a.{suffix}")
    assert (read_picture(tmp_path / f"a.{suffix}").pixels == read_image(tmp_path / f"a.{suffix}")).all()
    assert suffix != "avif" or ".avif" in optional_formats()
    assert read_picture(tmp_path / f"a.{suffix}").pixels.flags.writeable  # or PyTorch warns


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_with_its_exif_and_not_turned_twice(tmp_path, photo, orientation):
    """In HEIC the image itself has its rotation; its EXIF orientation has no meaning."""
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    assert {".heic", ".heif"} <= set(optional_formats())  # also lets Pillow write it
    exif = photo.getexif()
    exif[MAKER], exif[ORIENTATION] = "Maker", orientation
    photo.save(tmp_path / "a.heic", quality=95, exif=exif)
    picture = read_picture(tmp_path / "a.heic")
    assert np.abs(picture.pixels.astype(int) - np.asarray(photo)).mean() < 2  # the compression's loss
    write_picture(tmp_path / "b.png", picture.pixels.astype(np.float32) / 255, picture)
    with Image.open(tmp_path / "b.png") as image:
        assert (image.getexif()[MAKER], image.getexif().get(ORIENTATION)) == ("Maker", None)


def with_chunk(png: bytes, kind: bytes, data: bytes, before: bytes) -> bytes:
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    place = png.index(before) - 4
    return png[:place] + chunk + png[place:]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (b"gAMA", struct.pack(">I", 100_000)),  # linear
        (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),  # of P3
        (b"sRGB", b"\0"),
        (b"sBIT", b"\5\6\5"),
        (b"PLTE", bytes(range(48))),  # a proposal, for screens of few colours
        (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        (b"tIME", struct.pack(">H5B", 2022, 6, 19, 12, 0, 0)),
        (b"iCCP", b"its name\0\0" + zlib.compress(PROFILE)),
    ],
)
def test_a_plain_png_is_what_pillow_reads(tmp_path, photo, kind, data):
    path = tmp_path / "a.png"
    photo.save(path)
    path.write_bytes(with_chunk(path.read_bytes(), kind, data, b"IDAT"))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, np.asarray(photo))
    assert (picture.alpha, picture.grey) == (None, False)
    assert picture.metadata.profile == (PROFILE if kind == b"iCCP" else None)
    kept = kind in (b"gAMA", b"cHRM", b"sRGB", b"pHYs")
    assert picture.metadata.chunks == (((kind, data),) if kept else ())


def test_a_png_of_more_than_colours_keeps_it(tmp_path, photo):
    photo.save(tmp_path / "a.png", transparency=photo.getpixel((0, 0)))
    alpha = np.where((np.asarray(photo) == photo.getpixel((0, 0))).all(axis=2), 0, 255)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").alpha, alpha)
    photo.save(tmp_path / "b.png", save_all=True, append_images=[ImageOps.invert(photo)])
    animated = read_picture(tmp_path / "b.png")
    assert animated.frames == 2
    np.testing.assert_array_equal(animated.pixels, np.asarray(photo))


def test_exif_behind_the_pixels_of_a_png_turns_them(tmp_path, photo):
    path = tmp_path / "a.png"
    photo.save(path)
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = 6, "Maker"
    path.write_bytes(with_chunk(path.read_bytes(), b"eXIf", exif.tobytes().removeprefix(b"Exif\x00\x00"), b"IEND"))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, np.rot90(np.asarray(photo), -1))
    assert b"Maker" in (picture.metadata.of(b"eXIf") or b"")


@pytest.mark.parametrize("damage", ["a bit", "half", "a length", "too few rows"])
def test_a_damaged_png_is_named(tmp_path, photo, capfd, damage):
    path = tmp_path / "a.png"
    photo.save(path)
    png = bytearray(path.read_bytes())
    if damage == "half":
        del png[len(png) // 2 :]
    elif damage == "a length":
        png[png.index(b"IDAT") - 4] = 0xFF
    elif damage == "too few rows":  # with a right checksum
        rows = struct.pack(">II", 72, 2 * 48)
        png[16:24], png[29:33] = rows, struct.pack(">I", zlib.crc32(png[12:16] + rows + png[24:29]))
    else:
        png[png.index(b"IDAT") + 40] ^= 8
    path.write_bytes(png)
    for read in (read_picture, read_image):
        with pytest.raises(UnreadableError, match=r"a\.png is damaged or incomplete .*; replace or remove it"):
            read(path)
    assert capfd.readouterr() == ("", "")  # libraries write nothing of their own


def test_a_photographs_png_is_no_larger_than_one_made_by_searching(tmp_path):
    picture = read_image(SAMPLE)
    write_png(tmp_path / "a.png", picture)
    Image.fromarray(picture).save(tmp_path / "b.png", compress_level=3)
    assert (tmp_path / "a.png").stat().st_size < (tmp_path / "b.png").stat().st_size
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_an_intact_tiff_of_another_kind_is_not_called_damaged(tmp_path, photo, capfd):
    values, path = np.asarray(photo), tmp_path / "a.tif"
    kinds = {
        "32-bit floating-point numbers": (values.astype(np.float32), "rgb"),
        "16-bit signed numbers": (values.astype(np.int16), "rgb"),
        "8-bit signed numbers": ((values // 2).astype(np.int8), "rgb"),
        "16 bits per channel of SEPARATED": (np.dstack([values, values[..., :1]]).astype(np.uint16), "separated"),
        "32 bits per channel of MINISBLACK": (values[..., 0].astype(np.uint32), "minisblack"),
    }
    for found, (stored, photometric) in kinds.items():
        tifffile.imwrite(path, stored, photometric=photometric)
        for read in (read_picture, read_image):
            with pytest.raises(UnreadableError, match=rf"a\.tif is not supported: {found}; convert it to an 8-bit or"):
                read(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_a_damaged_avif_is_named(tmp_path, photo):
    photo.save(tmp_path / "a.avif")
    whole = (tmp_path / "a.avif").read_bytes()
    found = set()
    for i in range(0, len(whole), 5):  # libavif meets the damage at once, or in the pixels, or not at all
        (tmp_path / "a.avif").write_bytes(whole[:i] + bytes(8) + whole[i + 8 :])
        for read in (read_picture, read_image):
            try:
                read(tmp_path / "a.avif")
            except UnreadableError as error:
                found.add(str(error).partition("a.avif ")[2].partition(" (")[0])
    assert found == {"is damaged or incomplete", "cannot be read as an image"}


@pytest.mark.parametrize(("name", "message"), [("a.NEF", "raw file; develop it"), ("a.heic", "run `pip install pil")])
def test_kinds_that_are_not_read_are_refused_with_advice(tmp_path, photo, monkeypatch, name, message):
    monkeypatch.setattr(codecs, "SUFFIXES", (".png",))  # as without pillow-heif
    photo.save(tmp_path / name, format="TIFF")  # in which Pillow would find a picture
    with pytest.raises(UnreadableError, match=message):
        read_picture(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a named pipe")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (read_picture, read_image):
        with pytest.raises(UnreadableError, match=r"a\.png is no file but a pipe"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_too_little_memory_to_decode_is_that_pictures_problem(tmp_path, photo, monkeypatch, suffix):
    photo.save(tmp_path / f"a.{suffix}")

    def short(error):
        def fail(*_, **__):
            raise error

        return fail

    monkeypatch.setattr(decoding, "upright", short(MemoryError))
    monkeypatch.setattr(codecs, "upright", short(MemoryError))
    for read in (read_picture, read_image):
        with pytest.raises(UnreadableError, match=rf"a\.{suffix} does not fit into memory; free some"):
            read(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_the_same_with_less_memory(dtype):
    image = np.random.default_rng(0).random((700, 900, 3)).astype(dtype)
    halves = ((np.arange(255) + 0.5) / 255).astype(dtype)
    for row, direction in enumerate((0, halves, 1)):
        image[row, :255] = np.nextafter(halves, direction, dtype=dtype)[:, None]
    tracemalloc.start()
    rounded = conversion.to_uint8(image), conversion.to_uint16(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for values, most in zip(rounded, (255, 65535), strict=True):
        np.testing.assert_array_equal(values, np.rint(image * dtype(most)).astype(values.dtype))
    assert peak < sum(values.nbytes for values in rounded) + 1.2 * image.nbytes * 2 * 256 / 700
