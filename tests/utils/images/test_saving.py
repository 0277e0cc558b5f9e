"""Restored pictures as JPEG and WebP: what they keep, by Pillow, and what they lose in a line."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, IptcImagePlugin

from tests.support.pictures import VALUES
from tests.support.samples import SAMPLE, load
from utils.images.codecs import UnreadableError
from utils.images.metadata import NOTHING, XMP_KEY
from utils.images.photographs import Picture, read_picture, write_picture
from utils.images.saving import SaveSettings, photoshop_marker

JPEG, WEBP = SaveSettings("jpeg"), SaveSettings("webp")
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
CAPTION = (b"\x1c\x02\x78\x00\x05Beach", (2, 120))


@pytest.fixture
def photograph(tmp_path):
    """A JPEG with EXIF, XMP, IPTC, a colour profile and a density."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "a.jpg"
    options = {"exif": exif, "xmp": XMP, "icc_profile": profile, "dpi": (300, 300)}
    Image.open(SAMPLE).crop((0, 0, 64, 48)).save(path, extra=photoshop_marker(CAPTION[0]), **options)
    return path


def saved(path, picture, settings):
    """Return the file with the picture's own pixels, as Pillow has it, and the notes."""
    peak = np.iinfo(picture.pixels.dtype).max
    notes = write_picture(path, (picture.pixels / peak).astype(np.float32), picture, settings)
    image = Image.open(path)
    image.load()
    return image, notes


def test_a_jpeg_keeps_what_a_jpeg_had(tmp_path, photograph):
    before = Image.open(photograph)
    after, notes = saved(tmp_path / "b.jpg", read_picture(photograph), JPEG)
    assert (after.format, notes) == ("JPEG", ())
    assert after.getexif()[ExifTags.Base.Make] == "Camera"
    assert after.info["xmp"] == XMP
    assert IptcImagePlugin.getiptcinfo(after)[CAPTION[1]] == IptcImagePlugin.getiptcinfo(before)[CAPTION[1]] == b"Beach"
    assert after.info["icc_profile"] == before.info["icc_profile"]
    assert after.info["dpi"] == (300, 300)


def test_a_webp_says_what_it_has_no_place_for(tmp_path, photograph):
    after, notes = saved(tmp_path / "b.webp", read_picture(photograph), WEBP)
    assert (after.format, after.getexif()[ExifTags.Base.Make], after.info["xmp"]) == ("WEBP", "Camera", XMP)
    assert after.info["icc_profile"] == Image.open(photograph).info["icc_profile"]
    assert notes == ("saved as WebP without its IPTC, its pixel density",)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_stripped_pictures_keep_their_colours_alone(tmp_path, photograph, name):
    settings = SaveSettings(name, strip_metadata=True)
    after, notes = saved(tmp_path / f"b{settings.ending}", read_picture(photograph), settings)
    assert after.info["icc_profile"] == Image.open(photograph).info["icc_profile"]
    assert notes == ()
    assert not dict(after.getexif())
    content = (tmp_path / f"b{settings.ending}").read_bytes()
    assert not [text for text in (b"Camera", b"xmpmeta", b"8BIM", XMP_KEY, b"pHYs") if text in content]


@pytest.mark.parametrize("settings", [JPEG, WEBP])
def test_sixteen_bits_and_transparency_are_lost_in_one_line(tmp_path, settings):
    picture = Picture(VALUES[..., :3], VALUES[..., 3])
    after, notes = saved(tmp_path / f"b{settings.ending}", picture, settings)
    transparency = ", its transparency" * (settings is JPEG)
    name = settings.format.name
    assert notes == (f"saved as {name} without 8 of its 16 bits per channel{transparency}",)
    if settings is WEBP:
        assert (np.asarray(after)[..., 3] == VALUES[..., 3] >> 8).all()
    assert after.mode == ("RGB" if settings is JPEG else "RGBA")


def test_a_grey_jpeg_stays_grey(tmp_path):
    grey = load(SAMPLE)[:48, :64, :1].repeat(3, axis=2)
    after, notes = saved(tmp_path / "b.jpg", Picture(grey, grey=True), JPEG)
    assert (after.mode, notes) == ("L", ())


@pytest.mark.parametrize("settings", [JPEG, WEBP])
def test_quality_is_that_of_the_encoder(tmp_path, settings):
    picture, sizes, errors = Picture(load(SAMPLE)), [], []
    for quality in (40, 95):
        each = SaveSettings(settings.output_format, quality)
        after, _ = saved(tmp_path / f"{quality}{each.ending}", picture, each)
        sizes.append((tmp_path / f"{quality}{each.ending}").stat().st_size)
        errors.append(float(np.square(np.asarray(after, np.float64) - picture.pixels).mean()))
    assert sizes[0] < sizes[1] / 2
    assert errors[0] > 2 * errors[1]


def test_what_is_too_long_or_unknown_to_a_format_is_named(tmp_path):
    chunks = ((b"eXIf", bytes(70_000)), (b"tEXt", b"Software\0us"), (b"cICP", bytes(4)), (b"gAMA", bytes(4)))
    picture = Picture(load(SAMPLE)[:48, :64], metadata=NOTHING._replace(chunks=chunks))
    _, notes = saved(tmp_path / "b.jpg", picture, JPEG)
    assert notes == ("saved as JPEG without its EXIF data of 70,000 bytes, its texts, its colour space",)
    known = NOTHING._replace(chunks=((b"sRGB", b"\0"), (b"gAMA", bytes(4))))
    assert saved(tmp_path / "b.jpg", Picture(picture.pixels, metadata=known), JPEG)[1] == ()


@pytest.mark.parametrize(("settings", "most"), [(JPEG, 65_500), (WEBP, 16_383)])
def test_the_largest_side_is_that_of_the_encoder(tmp_path, settings, most):
    pixels = np.zeros((1, most + 1, 3), np.uint8)
    with pytest.raises(UnreadableError, match=rf"a\.png is {most + 1}×1 px, .* at most {most:,} a side; .* png"):
        settings.check_size(tmp_path / "a.png", pixels)
    settings.check_size(tmp_path / "a.png", pixels[:, 1:])
    assert saved(tmp_path / f"b{settings.ending}", Picture(pixels[:, 1:]), settings)[0].size == (most, 1)
