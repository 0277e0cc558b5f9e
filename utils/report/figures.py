"""Figures for publications: crops side by side with their PSNR, attention maps and offsets of chosen ASPDCs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models import DeblurringNet
from utils.common.plotting import Axes, Figure, Rectangle, patheffects, rc_context
from utils.images.conversion import to_uint8
from utils.images.photographs import read_picture
from utils.metrics.numpy_metrics import psnr
from utils.report.figure_parts import (
    COLOURS,
    GAP,
    LINE,
    PAGE,
    STYLE,
    Box,
    add_panel,
    add_text,
    choose_boxes,
    fitted,
    reduced,
    save_figure,
)
from utils.report.map_figures import attention_figure, maps_of, offsets_figure

_CROP_WIDTH, _CROPS_WIDTH = 1.25, 4.4  # in: of a crop at most, and of a row of them
_NARROWEST = 1.4  # in: of the whole image's column, for the text under it
_POINTS = 140  # of a font whose letters are an inch wide


def write_figures(
    path: Path,
    blurry: Path,
    restored: dict[str, Path],
    sharp: Path | None = None,
    networks: dict[str, DeblurringNet] | None = None,
    blocks: Sequence[int] = (),
    device: torch.device | None = None,
    precision: str = "fp32",
) -> None:
    """Write the figures of an image, each as .png and as .pdf.

    `path` + "_crops" compares what was restored; + "_attention" and "_offsets" show the maps of the one network, or
    + "_NAME_attention" and "_NAME_offsets" those of each of several.

    Args:
        path: their common beginning; folders are made.
        blurry: the image's file.
        restored: the files of what was made of it, one or more, by the names that stand above them.
        sharp: the file of the ground truth, where there is one.
        networks: whose maps are drawn, of the part around the first box, by their names; in eval mode.
        blocks: their ASPDCs, 0 to 5.
        device: of the networks; None for the CPU.
        precision: one of `utils.runtime.precision.PRECISIONS`.

    Raises:
        UnreadableError: an image cannot be read.
        UserError: a figure cannot be written.
    """
    panels = {"blurry": _read(blurry), **{name: _read(each) for name, each in restored.items()}}
    truth = _read(sharp) if sharp else None
    image, *results = panels.values()
    boxes = choose_boxes(image, results, truth)
    save_figure(path.with_name(f"{path.name}_crops"), crops_figure(panels, truth, boxes))
    networks = networks or {}
    for name, network in networks.items():
        prefix = f"{path.name}_{name}" if len(networks) > 1 else path.name
        part, maps = maps_of(network, image, boxes[0], blocks, device or torch.device("cpu"), precision)
        save_figure(path.with_name(f"{prefix}_attention"), attention_figure(part.of(image), maps))
        inside = boxes[0]._replace(top=boxes[0].top - part.top, left=boxes[0].left - part.left)
        save_figure(path.with_name(f"{prefix}_offsets"), offsets_figure(part.of(image), maps, inside))


def _read(path: Path) -> np.ndarray:
    """Return a picture of 8 or 16 bits a channel as H×W×3 uint8."""
    pixels = read_picture(path).pixels
    return to_uint8(pixels if pixels.dtype == np.uint8 else pixels / np.float32(np.iinfo(pixels.dtype).max))


@rc_context(STYLE)
def crops_figure(
    panels: dict[str, np.ndarray], sharp: np.ndarray | None = None, boxes: Sequence[Box] | None = None
) -> Figure:
    """Return the whole blurry image with boxes on it, and each box enlarged: blurry, each result, sharp.

    With a sharp image each crop has its PSNR under it and the whole image has its own under the blurry one, both
    `utils.metrics.numpy_metrics.psnr`.

    Args:
        panels: H×W×3 uint8 images of one size by their names: the blurry one first, then what was made of it. Names
            stand above crops of 1.25 in at most: about 20 letters, longer ones in smaller type.
        sharp: H×W×3 uint8, or None without ground truth.
        boxes: what is enlarged, a row each; those of `choose_boxes` unless given.
    """
    blurry, *restored = panels.values()
    boxes = boxes or choose_boxes(blurry, restored, sharp)
    columns = panels if sharp is None else {**panels, "sharp": sharp}
    width = min(_CROP_WIDTH, _CROPS_WIDTH / len(columns))
    heights = [width * box.height / box.width for box in boxes]
    caption = LINE if sharp is not None else GAP
    crops_width = len(columns) * (width + GAP)
    crops_height = LINE + sum(heights) + caption * len(boxes)
    below = []
    if sharp is not None:
        scores = (f"{name}: {psnr(image, sharp):.2f} dB" for name, image in panels.items())
        below = ["PSNR of the whole image", *scores]
    height_below = LINE * (len(below) + 0.7)
    room = max(crops_height - LINE - height_below, 1.0)
    whole_width, whole_height = fitted(blurry, PAGE - crops_width - 4 * GAP, room)
    crops_left = max(whole_width, _NARROWEST) + 4 * GAP
    size = (crops_left + crops_width, max(crops_height, LINE + whole_height + height_below))
    figure = Figure(figsize=size)
    whole = add_panel(figure, GAP, LINE, whole_width, whole_height)
    whole.imshow(reduced(blurry, whole_width), extent=_extent(blurry), aspect="auto")
    for i, line in enumerate(below):
        add_text(figure, GAP, LINE * (1.7 + i) + whole_height, line, ha="left", parse_math=False)
    top = LINE
    for i, (box, height) in enumerate(zip(boxes, heights, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        _mark(whole, box, str(i + 1), colour)
        for j, (name, image) in enumerate(columns.items()):
            left = crops_left + j * (width + GAP)
            crop = add_panel(figure, left, top, width, height)
            crop.imshow(box.of(image), aspect="auto")
            crop.spines[:].set(color=colour, linewidth=1)
            if i == 0:
                font_size = min(8, width / len(name) * _POINTS)
                add_text(figure, left + width / 2, LINE / 2, name, fontsize=font_size, parse_math=False)
            if j == 0:
                _number(crop, 0.03, 0.95, str(i + 1), colour, transform=crop.transAxes)
            if sharp is not None and name in panels:
                value = psnr(box.of(image), box.of(sharp))
                add_text(figure, left + width / 2, top + height + 0.55 * caption, f"crop: {value:.2f} dB")
        top += height + caption
    return figure


def _extent(image: np.ndarray) -> tuple[float, float, float, float]:
    """Return where an image lies whose pixels are centred on whole numbers."""
    height, width = image.shape[:2]
    return (-0.5, width - 0.5, height - 0.5, -0.5)


def _mark(axes: Axes, box: Box, number: str, colour: str) -> None:
    """Draw a box on the whole image, its number above the corner: of a large image it may be no larger than that."""
    outline = [patheffects.withStroke(linewidth=2, foreground="black")]
    corner = (box.left - 0.5, box.top - 0.5)
    axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, ec=colour, lw=1, path_effects=outline))
    _number(axes, *corner, number, colour, va="bottom")


def _number(axes: Axes, x: float, y: float, number: str, colour: str, **options: object) -> None:
    outline = [patheffects.withStroke(linewidth=1.5, foreground="black")]
    axes.text(x, y, number, **{"color": colour, "va": "top", "path_effects": outline, **options})
