"""Image files: what is converted and noted, what is refused with the file's name, and how many there should be."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from datasets import find_images
from datasets.discovery.header_checks import compare_with_published_count
from tests.support.samples import SAMPLE, load, save, save_all
from utils.common.errors import UserError
from utils.images.codecs import inspect_image, read_image

ORIENTATION = 0x0112


def picture(height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def truncated(path, image, fraction=0.6):
    Image.fromarray(image).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


def with_orientation(path, image, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(image).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "TIFF"])
def test_lossless_rgb_is_read_as_it_is(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", picture())
    np.testing.assert_array_equal(read_image(path), picture())
    assert inspect_image(path) == inspect_image(save(tmp_path / "b.png", picture()))


@pytest.mark.parametrize("path", [SAMPLE, SAMPLE.parents[1] / "sharp" / SAMPLE.name], ids=["blur", "sharp"])
def test_real_picture_as_opencv_reads_it(path):
    np.testing.assert_array_equal(read_image(path), load(path))
    assert read_image(path).flags.c_contiguous
    info = inspect_image(path)
    assert (info.height, info.width, info.mode) == (384, 640, "RGB")


def test_grey_palette_and_alpha_are_converted_with_a_note(tmp_path):
    grey, rgba = picture(channels=1), picture(channels=4)
    palette = Image.fromarray(picture()).quantize(16)
    save(tmp_path / "grey.png", grey)
    save(tmp_path / "rgba.png", rgba)
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(255 - grey)]).save(tmp_path / "la.png")
    palette.save(tmp_path / "palette.png")
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "cmyk.jpg")
    save(tmp_path / "plain.png", picture())
    repeated = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), repeated)
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), repeated)
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), rgba[:, :, :3])
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), colours[np.asarray(palette)])
    assert read_image(tmp_path / "cmyk.jpg").shape == (12, 16, 3)
    (note,) = find_images(tmp_path, "test").notes
    assert note.startswith("converted to RGB: 5 images in grey, with palette or alpha (cmyk.jpg, grey.png")
    assert "plain.png" not in note


def test_converted_partner_is_noted(tmp_path):
    save(tmp_path / "blur" / "1.png", picture())
    save(tmp_path / "sharp" / "1.png", picture(channels=1))
    note = "converted to RGB: 1 image in grey, with palette or alpha (sharp/1.png)"
    assert note in find_images(tmp_path, "test").describe()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_images_are_refused(tmp_path, channels, suffix):
    path = tmp_path / "deep" / f"a.{suffix}"
    path.parent.mkdir()
    assert cv2.imwrite(str(path), picture(channels=channels).astype(np.uint16) * 257)
    for check in (inspect_image, read_image, lambda path: find_images(path.parent, "test")):
        with pytest.raises(UserError, match=rf"a\.{suffix} has 16 bits per channel; convert it to an 8-bit RGB image"):
            check(path)


def test_float_image_is_refused(tmp_path):
    Image.fromarray(np.zeros((12, 16), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif is not supported: 32-bit floating-point numbers"):
        inspect_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_truncated_image_is_refused(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    truncated(path, load(SAMPLE)[:64, :64])
    with pytest.raises(UserError, match=rf"cut\.{suffix} (is damaged or incomplete|cannot be read).*replace or remove"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"], ids=repr)
@pytest.mark.parametrize("name", ["bad.png", "bad.jpg"])
def test_unreadable_file_is_refused_at_once(tmp_path, name, content):
    save(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read as an image .*replace or remove it"):
        find_images(tmp_path, "test")


def test_broken_link_is_refused(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png cannot be read"):
        find_images(tmp_path, "test")


def test_all_problems_are_listed_at_once_and_many_are_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    save(tmp_path / "b.png", size=(7, 20))
    with pytest.raises(UserError, match=r"(?s)2 problems:.*a\.png cannot be read.*b\.png is 7×20 px"):
        find_images(tmp_path, "test")
    for i in range(11):
        (tmp_path / f"c{i}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)13 problems:.*and 3 more"):
        find_images(tmp_path, "test")


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (1, 1)], ids=str)
def test_images_under_8_px_are_refused(tmp_path, size):
    save(tmp_path / "blur" / "1.png", size=size)
    save(tmp_path / "sharp" / "1.png", size=size)
    with pytest.raises(UserError, match=rf"blur/1\.png is {size[0]}×{size[1]} px, the smallest side .* is 8"):
        find_images(tmp_path, "test")
    save_all(tmp_path, "blur/1.png", "sharp/1.png")  # 8×8
    assert len(find_images(tmp_path, "test")) == 1


def test_unequal_sizes_are_refused(tmp_path):
    save_all(tmp_path, "S/{blur,sharp}/1.png")
    save(tmp_path / "S" / "blur" / "2.png", size=(16, 12))
    save(tmp_path / "S" / "sharp" / "2.png", size=(12, 16))
    expected = r"S/blur/2\.png is 16×12 px but its partner .*S/sharp/2\.png is 12×16"
    with pytest.raises(UserError, match=expected) as error:
        find_images(tmp_path, "test")
    assert "1.png" not in str(error.value)


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_as_opencv_applies_it(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    with_orientation(path, cv2.resize(load(SAMPLE), (48, 32)), orientation)
    image, info = read_image(path), inspect_image(path)
    expected = load(path)  # OpenCV turns it too; its JPEG decoder may round otherwise
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 4
    assert (info.height, info.width) == image.shape[:2]


def test_turned_jpeg_pairs_with_an_upright_png(tmp_path):
    for side in ("blur", "sharp"):
        (tmp_path / side).mkdir()
    with_orientation(tmp_path / "blur" / "1.jpg", picture(12, 16), 6)
    with_orientation(tmp_path / "sharp" / "1.jpg", picture(16, 12), 1)
    assert len(find_images(tmp_path, "test")) == 1
    with_orientation(tmp_path / "sharp" / "1.jpg", picture(12, 16), 1)
    with pytest.raises(UserError, match=r"12×16 px but its partner .* is 16×12"):
        find_images(tmp_path, "test")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_header_is_read_without_decoding(tmp_path, monkeypatch, suffix):
    """GoPro has 6,428 pictures of 1280×720: decoding them all before the first step takes minutes."""
    path = save(tmp_path / f"a.{suffix}", picture())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the image is decoded"))
    assert inspect_image(path).width == 16


@pytest.mark.parametrize(
    ("kind", "train", "test"), [("gopro", 2103, 1111), ("hide", 6397, 2025), ("rwbi", 3112, 3112), ("paired", 0, 0)]
)
def test_published_counts(kind, train, test):
    for split, count in (("train", train), ("test", test)):
        assert compare_with_published_count(kind, split, count) == []
        if count:
            assert "1 are missing; results are not" in compare_with_published_count(kind, split, count - 1)[0]
            assert "2 too many" in compare_with_published_count(kind, split, count + 2)[0]
            assert f"a part of the {kind} {split} set" in compare_with_published_count(kind, split, count // 3)[0]


@pytest.mark.slow
def test_counts_of_nearly_full_and_full_gopro_test_set(tmp_path):
    """The seed's users had 1,079 of 1,111 pairs and did not know."""
    content = save(tmp_path / "one.png").read_bytes()
    for side in ("blur", "sharp"):
        (tmp_path / "GOPRO" / "test" / side).mkdir(parents=True)
        for i in range(1079):
            (tmp_path / "GOPRO" / "test" / side / f"{i:06}.png").write_bytes(content)
    (note,) = find_images(tmp_path / "GOPRO", "test").notes
    assert "WARNING: 1,079 images, the published gopro test set has 1,111: 32 are missing" in note
    for side in ("blur", "sharp"):
        for i in range(1079, 1111):
            (tmp_path / "GOPRO" / "test" / side / f"{i:06}.png").write_bytes(content)
    assert find_images(tmp_path / "GOPRO", "test").notes == ()
