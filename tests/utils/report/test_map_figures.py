"""Figures of maps: what is drawn is what the networks decide, and points to where another library's op samples."""

import numpy as np
import pytest
import torch
import torchvision.ops
from matplotlib.collections import PathCollection
from matplotlib.quiver import Quiver, QuiverKey

from models.aspdc import ASPDCMaps
from tests.support.figures import real_pair, texts
from tests.support.networks import moving_network
from utils.images.conversion import to_tensor
from utils.report.figure_parts import Box, choose_boxes
from utils.report.figures import crops_figure
from utils.report.map_figures import attention_figure, maps_of, offsets_figure, part_around

CPU = torch.device("cpu")
BOX = Box(40, 60, 64, 96)


@pytest.fixture(scope="module")
def image():
    return real_pair()[0]


@pytest.fixture(scope="module")
def small(image):
    return np.ascontiguousarray(image[60:132, 100:212])


@pytest.fixture(scope="module")
def network():
    return moving_network()


def test_maps_are_those_of_the_part_that_is_read(network, small):
    part, maps = maps_of(network, small, BOX, (0, 4), CPU)
    assert part == Box(0, 0, 72, 112)
    with torch.no_grad():
        _, expected = network.forward_with_maps(to_tensor(small).unsqueeze(0), [0, 4])
    assert set(maps) == {0, 4}
    for block, each in maps.items():
        for name in ("attention", "offsets", "modulation"):
            torch.testing.assert_close(getattr(each, name), getattr(expected[block], name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "around", "expected"),
    [
        (720, 1280, Box(600, 0, 120, 180), Box(0, 0, 720, 1280)),
        (333, 2001, Box(0, 1900, 100, 100), Box(0, 720, 333, 1280)),
        (8736, 11648, Box(4000, 5000, 240, 360), Box(3760, 4540, 720, 1280)),  # 100 megapixels
        (8736, 11648, Box(8600, 0, 136, 204), Box(8016, 0, 720, 1280)),
        (3000, 1000, Box(1503, 500, 100, 150), Box(912, 212, 1280, 720)),
    ],
)
def test_the_part_is_bounded_inside_the_image_and_on_the_features_pixels(height, width, around, expected):
    assert part_around(height, width, around) == expected


def test_attention_is_drawn_per_module_on_one_scale(network, small):
    _, maps = maps_of(network, small, BOX, (0, 5), CPU)
    figure = attention_figure(small, maps)
    drawn = [axes.images[0] for axes in figure.axes if axes.images and axes.images[0].get_array().ndim == 2]
    assert len(drawn) == 8
    assert all((each.norm.vmin, each.norm.vmax) == (0, 1) for each in drawn)
    for row, block in enumerate(maps):
        arrays = np.stack([each.get_array() for each in drawn[4 * row : 4 * row + 4]])
        assert np.array_equal(arrays, maps[block].attention[0])
        np.testing.assert_allclose(arrays.sum(axis=0), 1, atol=1e-5)
        assert np.ptp(arrays) > 0.2  # something is to be seen
        assert f"ASPDC {block}" in texts(figure)
    assert "$a_0$, no offsets" in texts(figure)
    for i in (1, 2, 3):
        dilation = network.aspdcs[0].deformable[i].offset_conv.dilation[0]
        assert f"$a_{i}$, dilation {dilation}" in texts(figure)


def made_maps(height, width, offsets):
    """Return maps for an image of that size in which modules 1 to 3 have the given offsets, (3, 18, H/4, W/4)."""
    attention = torch.full((1, 4, height // 4, width // 4), 0.25)
    modulation = torch.full((1, 4, 9, height // 4, width // 4), 0.5)
    return ASPDCMaps(attention, torch.cat([torch.zeros_like(offsets[:1]), offsets])[None], modulation)


def sampled(offsets):
    """Return where torchvision's op samples: x and y of nine taps, (2, 9, H', W'), of offsets (18, H', W')."""
    height, width = offsets.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pick = torch.eye(9).view(9, 1, 3, 3)  # output channel k is tap k of an input
    read = [torchvision.ops.deform_conv2d(z[None, None].float(), offsets[None], pick, padding=1)[0] for z in (x, y)]
    return torch.stack(read)


def test_arrows_and_dots_point_to_where_the_op_samples(image):
    torch.manual_seed(1)
    maps = made_maps(
        *image.shape[:2], torch.rand(3, 18, 48, 80) * 4 - 1
    )  # -1 to 3 px of the features, inside the image
    window = Box(80, 120, 64, 96)
    figure = offsets_figure(image, {3: maps}, window)
    upper = [axes for axes in figure.axes if axes.findobj(Quiver)]
    lower = [axes for axes in figure.axes if axes.findobj(PathCollection)]
    assert len(upper) == len(lower) == 3
    for module in (1, 2, 3):
        positions = 4 * sampled(maps.offsets[0, module]).numpy()  # a pixel of the features is every fourth of the image
        (arrows,) = upper[module - 1].findobj(Quiver)
        inside = [i for i, (x, y) in enumerate(arrows.XY) if 8 <= x < 300 and 8 <= y < 170]
        assert len(inside) > 50
        for i in inside:
            x, y = arrows.XY[i].astype(int)
            mean = positions[:, :, y // 4, x // 4].mean(axis=1)
            np.testing.assert_allclose(arrows.XY[i] + (arrows.U[i], arrows.V[i]), mean, atol=1e-3)
        groups = lower[module - 1].findobj(PathCollection)
        crosses = [line for line in lower[module - 1].lines if line.get_marker() == "+"]
        assert len(groups) == len(crosses) == 6
        for dots, cross in zip(groups, crosses, strict=True):
            x, y = cross.get_xydata()[0].astype(int)
            assert window.left <= x < window.left + 144
            np.testing.assert_allclose(np.asarray(dots.get_offsets()).T, positions[:, :, y // 4, x // 4], atol=1e-3)


def test_a_known_displacement_is_an_arrow_of_that_length_and_direction(image):
    offsets = torch.zeros(3, 18, 48, 80)
    offsets[1, 1::2] = 2  # module 2: 2 px of the features to the right
    offsets[2, 0::2] = -1  # module 3: 1 px up
    figure = offsets_figure(image, {0: made_maps(*image.shape[:2], offsets)})
    (key,) = figure.findobj(QuiverKey)
    factor = float(key.text.get_text().partition("drawn ")[2].split()[0])
    figure.draw_without_rendering()
    for axes, expected in zip(
        [axes for axes in figure.axes if axes.findobj(Quiver)], [(0, 0), (8, 0), (0, -4)], strict=True
    ):
        (arrows,) = axes.findobj(Quiver)
        assert np.allclose(arrows.U, expected[0])
        assert np.allclose(arrows.V, expected[1])
        if any(expected):
            shape = arrows.get_transform().transform(arrows.get_paths()[0].vertices)  # on the paper, from its tail
            tip = shape[np.hypot(*shape.T).argmax()]
            a_pixel = axes.transData.transform((1, 1)) - axes.transData.transform((0, 0))  # y points down
            np.testing.assert_allclose(tip / a_pixel, factor * np.array(expected), atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(8, 400), (401, 9), (8, 8)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_of_any_shape_have_figures(network, image, height, width, precision):
    image = np.tile(image, (3, 2, 1))[:height, :width]
    (box, *_) = choose_boxes(image, [image], None)
    part, maps = maps_of(network, image, box, [2], CPU, precision)
    assert part == Box(0, 0, height, width)
    for figure in (crops_figure({"a": image, "b": image}), attention_figure(image, maps), offsets_figure(image, maps)):
        figure.draw_without_rendering()
        assert figure.get_size_inches()[0] <= 6.9
    assert all(len(axes.findobj(Quiver)[0].XY) > 0 for axes in figure.axes[::2])


def test_the_key_is_as_long_as_it_says(image):
    figure = offsets_figure(image, {0: made_maps(*image.shape[:2], torch.rand(3, 18, 48, 80))})
    figure.draw_without_rendering()
    (arrows,) = figure.axes[0].findobj(Quiver)
    (key,) = figure.findobj(QuiverKey)
    length, factor = (float(key.text.get_text().split()[i]) for i in (0, 6))
    drawn = np.ptp(arrows.get_transform().transform(key.verts[0])[:, 0])
    a_pixel = figure.axes[0].transData.transform((1, 0)) - figure.axes[0].transData.transform((0, 0))
    assert drawn / a_pixel[0] == pytest.approx(length * factor, rel=0.05)
