"""Figures: labels and boxes are correct by another library; files are written the same each time."""

import argparse
import itertools

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from tests.support.figures import real_pair, texts
from tests.support.networks import moving_network
from tests.support.samples import SAMPLES, load, save
from utils.report.figure_files import parse_blocks
from utils.report.figure_parts import Box, choose_boxes, save_figure
from utils.report.figures import crops_figure, write_figures

CPU = torch.device("cpu")
PAIR = SAMPLES / "test" / "GOPR0881_11_01"
BOXES = [Box(40, 60, 64, 96), Box(120, 8, 60, 90)]


@pytest.fixture(scope="module")
def pair():
    return real_pair()


@pytest.fixture(scope="module")
def panels(pair):
    blurry, sharp = pair
    return {"blurry": blurry, "half": cv2.addWeighted(blurry, 0.5, sharp, 0.5, 0), "net_$1$": cv2.blur(sharp, (3, 3))}


def overlap(a, b):
    rows = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    columns = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    return max(rows, 0) * max(columns, 0)


def test_crops_carry_their_own_psnr_and_the_image_its(pair, panels):
    sharp = pair[1]
    figure = crops_figure(panels, sharp, BOXES)
    truth_and_panels = {**panels, "sharp": sharp}
    shown = {}  # name and box by the axes that show it
    for axes in figure.axes[1:]:
        (image,) = axes.images
        for name, box in itertools.product(truth_and_panels, BOXES):
            if np.array_equal(image.get_array(), box.of(truth_and_panels[name])):
                shown[axes] = (name, box)
    assert sorted(shown.values()) == sorted((name, box) for name in truth_and_panels for box in BOXES)

    captions = [text for text in figure.texts if text.get_text().startswith("crop: ")]
    assert len(captions) == len(panels) * len(BOXES)
    for caption in captions:
        x, y = caption.get_position()
        above = [axes for axes in shown if axes.get_position().x0 < x < axes.get_position().x1]
        axes = min((axes for axes in above if axes.get_position().y0 > y), key=lambda axes: axes.get_position().y0)
        name, box = shown[axes]
        expected = peak_signal_noise_ratio(box.of(sharp), box.of(panels[name]))
        assert caption.get_text() == f"crop: {expected:.2f} dB"

    for name, panel in panels.items():
        assert f"{name}: {peak_signal_noise_ratio(sharp, panel):.2f} dB" in texts(figure)
        assert name in texts(figure)
    assert "PSNR of the whole image" in texts(figure)


def test_without_ground_truth_no_score_is_shown(panels):
    figure = crops_figure(panels)
    assert not any("dB" in text or text == "sharp" for text in texts(figure))
    assert len(figure.axes) == 1 + len(panels) * len(choose_boxes(panels["blurry"], list(panels.values())[1:], None))


@pytest.mark.parametrize("with_sharp", [True, False])
def test_boxes_find_what_was_sharpened(with_sharp):
    blurry, sharp = (load(PAIR / side / "000203.png") for side in ("blur", "sharp"))  # 640×384
    place = Box(212, 236, 84, 128)  # the size of a box, with lettering, over the border of two strips
    restored = blurry.copy()
    place.of(restored)[:] = place.of(sharp)
    boxes = choose_boxes(blurry, [restored, blurry], sharp if with_sharp else None)
    if with_sharp:  # every pixel of the place has less error than before, all others the same
        assert boxes[0] == place
    else:
        assert overlap(boxes[0], place) > 0.8 * place.height * place.width
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert box.of(blurry).shape == (84, 128, 3)
        assert not any(overlap(box, other) for other in boxes[:i])


def test_a_small_image_has_a_smaller_box(pair):
    blurry = pair[0][:30, :41]
    (box,) = choose_boxes(blurry, [blurry], None)
    assert box == Box(0, 0, 24, 40)


@pytest.fixture(scope="module")
def small(pair):
    return np.ascontiguousarray(pair[0][60:132, 100:212])


@pytest.fixture
def files(small, tmp_path):
    """Return the files of a blurry image, a result with 16 bits a channel, and a sharp image."""
    sharper = cv2.addWeighted(small, 1.5, cv2.blur(small, (5, 5)), -0.5, 0)
    deep = tmp_path / "restored.png"
    assert cv2.imwrite(str(deep), sharper[..., ::-1] * np.uint16(257))
    return save(tmp_path / "blurry.png", small), deep, save(tmp_path / "sharp.png", sharper)


@pytest.mark.slow
def test_all_figures_are_written_the_same_each_time(files, tmp_path):
    blurry, restored, sharp = files
    for folder in ("once", "again"):
        write_figures(tmp_path / folder / "a.b", blurry, {"ours": restored}, sharp, {"x": moving_network()}, (1,), CPU)
    names = [f"a.b_{kind}{suffix}" for kind in ("crops", "attention", "offsets") for suffix in (".png", ".pdf")]
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == sorted(names)
    for name in names:
        content = (tmp_path / "once" / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes()
        if name.endswith(".png"):
            with Image.open(tmp_path / "once" / name) as image:
                image.load()
                assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
                assert 600 < image.width <= 6.9 * 300
        else:
            assert content.startswith(b"%PDF")
            assert b"STIXGeneral" in content  # text as text, in a kind of font that journals take
            assert b"/Type3" not in content
            assert b"CreationDate" not in content


def test_files_of_16_bits_are_compared_as_they_look(files, small, tmp_path):
    blurry, restored, sharp = files
    write_figures(tmp_path / "a", blurry, {"ours": restored}, sharp)
    save_figure(tmp_path / "expected", crops_figure({"blurry": small, "ours": load(sharp)}, load(sharp)))
    assert (tmp_path / "a_crops.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
    assert not list(tmp_path.glob("a_[ao]*"))  # no network, no maps


@pytest.mark.slow
def test_several_networks_have_maps_each(files, tmp_path):
    blurry, restored, _ = files
    out, network = tmp_path / "out", moving_network()
    write_figures(out / "a", blurry, {"x": restored, "y": restored}, None, {"x": network, "y": network}, (0,), CPU)
    maps = {f"a_{name}_{kind}.png" for name in "xy" for kind in ("attention", "offsets")}
    assert {path.name for path in out.glob("*.png")} == {"a_crops.png", *maps}


def test_blocks_on_the_command_line():
    assert parse_blocks("5,0,2,0") == (0, 2, 5)
    for text in ("", "6", "-1", "0;2", "all"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected numbers from 0 to 5 such as 0,2,5"):
            parse_blocks(text)
