"""Figures of what ASPDCs decided: attention maps (paper, section 3.1) and where their deformable modules sample."""

from collections.abc import Sequence

import numpy as np
import torch

from models import DeblurringNet
from models.aspdc import DILATIONS, TAPS, ASPDCMaps
from models.deblurring_net import STRIDE
from utils.common.plotting import Axes, AxesImage, Figure, Quiver, Rectangle, rc_context
from utils.images.conversion import to_tensor
from utils.report.figure_parts import GAP, LINE, PAGE, STYLE, Box, add_panel, add_text, fitted, reduced
from utils.runtime.precision import autocast

_LARGEST_PART = (720, 1280)  # px, height and width, or width and height
_LABEL = 0.16  # in: of a row
_ATTENTION_HEIGHT, _OFFSETS_HEIGHT = 1.3, 1.5  # in: of a panel at most
_NARROWEST = 1.05  # in: of a column, for its heading
_SPACING = 0.108  # in, between arrows
_LONGEST = 100  # times that arrows are drawn longer at most: what is less than a hundredth of a px looks small
_MIN_WINDOW_HEIGHT = 72  # px: height of what is enlarged to show taps, half its width
_TAP_GRID = (2, 3)  # rows and columns of pixels whose taps are shown
_ARROW, _TAPS = "#0072B2", ("#D55E00", "#0072B2", "#009E73")  # Okabe and Ito
_REGULAR_TAPS = np.stack([*np.mgrid[-1:2, -1:2]], axis=-1).reshape(TAPS, 2)  # y, x in px of the features


@torch.inference_mode()
def maps_of(
    network: DeblurringNet,
    image: np.ndarray,
    around: Box,
    blocks: Sequence[int],
    device: torch.device,
    precision: str = "fp32",
) -> tuple[Box, dict[int, ASPDCMaps]]:
    """Return a part of an image and what chosen ASPDCs decide when they read that part alone.

    The part is `part_around`'s, so that its maps fit into memory whatever the image's size. Of a larger image the
    network misses what lies outside: near the part's borders its maps differ from the whole image's.

    Args:
        network: in eval mode, on `device`; a single pass, without tiles or self-ensemble.
        image: H×W×3 uint8.
        around: what the part has in its middle, as far as the image's borders let it.
        blocks: the ASPDCs, 0 to 5.
        device: of the network.
        precision: one of `utils.runtime.precision.PRECISIONS`.

    Returns:
        The part, and for each block its maps of one image in fp32 on the CPU.
    """
    height, width = image.shape[:2]
    part = part_around(height, width, around)
    pixels = to_tensor(part.of(image)).unsqueeze(0).to(device, memory_format=torch.channels_last)
    with autocast(precision, device):
        _, maps = network.forward_with_maps(pixels, blocks)
    on_cpu = {
        block: ASPDCMaps(*(tensor.float().cpu() for tensor in (each.attention, each.offsets, each.modulation)))
        for block, each in maps.items()
    }
    return part, on_cpu


def part_around(height: int, width: int, around: Box) -> Box:
    """Return the part of an image of that size whose maps are drawn: all of it, or at most 1280×720 px (720×1280).

    Args:
        height: of the image in px.
        width: of the image in px.
        around: what the part has in its middle, as far as the image's borders let it.
    """
    limits = _LARGEST_PART if height <= width else _LARGEST_PART[::-1]
    starts, sizes = [], []
    for length, limit, start, size in zip((height, width), limits, around[:2], around[2:], strict=True):
        sizes.append(min(length, limit))
        first = min(max(start + size // 2 - sizes[-1] // 2, 0), length - sizes[-1])
        starts.append(first // STRIDE * STRIDE)  # so that the network samples it like the whole image
    return Box(*starts, *sizes)


@rc_context(STYLE)
def attention_figure(image: np.ndarray, maps: dict[int, ASPDCMaps]) -> Figure:
    """Return an image and the attention maps a0..a3 of ASPDCs, a row each, on one scale from 0 to 1.

    Each map shows how much of a pixel's result comes from one deformable module: module 0, which has no offsets, and
    modules 1 to 3, whose offsets are predicted with dilations 1, 2 and 4. The four add up to 1.

    Args:
        image: H×W×3 uint8.
        maps: of this image by ASPDC, each (1, 4, ≥H/4, ≥W/4).
    """
    names = ["no offsets", *(f"dilation {dilation}" for dilation in DILATIONS)]
    columns, bar = 1 + len(names), 0.4
    width, height = fitted(image, (PAGE - _LABEL - bar) / columns - GAP, _ATTENTION_HEIGHT)
    pitch = max(width, _NARROWEST) + GAP
    first = _LABEL + (pitch - GAP - width) / 2
    size = (_LABEL + columns * pitch + bar, max(LINE + len(maps) * (height + GAP), 4 * LINE))
    figure = Figure(figsize=size)
    add_text(figure, first + width / 2, LINE / 2, "input")
    picture = add_panel(figure, first, LINE, width, height)
    picture.imshow(reduced(image, width), aspect="auto")
    drawn: AxesImage | None = None
    for row, (block, each) in enumerate(maps.items()):
        top = LINE + row * (height + GAP)
        add_text(figure, _LABEL / 2, top + height / 2, f"ASPDC {block}", rotation="vertical")
        for i, name in enumerate(names):
            left = first + (1 + i) * pitch
            if row == 0:
                add_text(figure, left + width / 2, LINE / 2, f"$a_{i}$, {name}")
            axes = add_panel(figure, left, top, width, height)
            drawn = axes.imshow(each.attention[0, i].numpy(), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    bar_axes = add_panel(figure, size[0] - bar + 2 * GAP, LINE + GAP, 0.08, size[1] - LINE - 3 * GAP)
    assert drawn is not None  # there is a row at least
    figure.colorbar(drawn, cax=bar_axes, ticks=[0, 0.5, 1]).ax.tick_params(width=0.4, length=2, pad=1)
    return figure


@rc_context(STYLE)
def offsets_figure(image: np.ndarray, maps: dict[int, ASPDCMaps], around: Box | None = None) -> Figure:
    """Return where the deformable modules 1 to 3 of ASPDCs sample: two rows for each ASPDC, a column for each module.

    Upper row: at every so many pixels an arrow from a pixel to the mean of the nine positions that it samples, over the
    paled image. The length is that distance in px of the image, four to a px of the features, times a factor common to
    the whole figure, printed next to the key; a dot is a displacement too small for an arrow. A mean shows nothing
    about how far the nine spread, nor about their weights: hence the lower row.

    Lower row: a part of the image, framed in the upper row, with a few pixels (crosses) and the nine positions that
    each samples (dots, joined to their pixel), all in their true positions; a dot's area is in proportion to its
    modulation. The part is 144×72 px, or larger where positions lie so far off that several pixels' would mix.

    Args:
        image: H×W×3 uint8.
        maps: of this image by ASPDC; offsets are (1, 4, 18, ≥H/4, ≥W/4), y, x of row-major taps in px of the features.
        around: what the enlarged part has in its middle; the middle of the image unless given.
    """
    whole = Box(0, 0, *image.shape[:2])
    window = _window(image, around or whole, maps)
    pale = _paled(image)
    width, height = fitted(image, (PAGE - _LABEL) / len(DILATIONS) - GAP, _OFFSETS_HEIGHT)
    low_width = max(width, _NARROWEST)
    low_height = low_width * window.height / window.width
    key, both = 1.5 * LINE, height + low_height + 2 * GAP
    size = (_LABEL + len(DILATIONS) * (low_width + GAP), LINE + len(maps) * (both + GAP) + key)
    figure = Figure(figsize=size)
    step = max(1, round(_SPACING / width * image.shape[1] / STRIDE))
    fields = {block: [_mean_field(each, i, image, step) for i in range(1, 4)] for block, each in maps.items()}
    last: tuple[Axes, Quiver] | None = None
    factor = _magnification(np.concatenate([uv for row in fields.values() for _, uv in row]), STRIDE * step)
    for row, (block, each) in enumerate(maps.items()):
        top = LINE + row * (both + GAP)
        add_text(figure, _LABEL / 2, top + both / 2, f"ASPDC {block}", rotation="vertical")
        for column, (positions, displacements) in enumerate(fields[block]):
            left = _LABEL + column * (low_width + GAP)
            if row == 0:
                name = f"module {column + 1}, dilation {DILATIONS[column]}"
                add_text(figure, left + low_width / 2, LINE / 2, name)
            upper = _picture(figure, (left + (low_width - width) / 2, top, width, height), pale, whole)
            last = upper, _draw_arrows(upper, positions, displacements, factor)
            frame = (window.left - 0.5, window.top - 0.5)
            upper.add_patch(Rectangle(frame, window.width, window.height, fill=False, ec="black", lw=0.6))
            lower = _picture(figure, (left, top + height + GAP, low_width, low_height), pale, window)
            _draw_taps(lower, each, column + 1, window)
    length = _nice(2 * STRIDE * step / factor)
    label = f"{length:g} px of the image" + (f", drawn {factor:g} times as long" if factor > 1 else "")
    assert last is not None  # there is a row at least
    axes, arrows = last
    axes.quiverkey(arrows, 0.1, 0.5 * key / size[1], length, label, labelpos="E", coordinates="figure")
    return figure


def _paled(image: np.ndarray) -> np.ndarray:
    """Return an image in light grey, on which arrows and dots stand out."""
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    return np.rint(np.repeat(150 + grey * (105 / 255), 3, axis=2)).astype(np.uint8)


def _window(image: np.ndarray, middle: Box, maps: dict[int, ASPDCMaps]) -> Box:
    """Return the part that is enlarged: so large that the taps of pixels above one another mostly lie apart."""
    taps = np.stack([each.offsets[0, 1:].unflatten(1, (TAPS, 2)).numpy() for each in maps.values()])
    taps = taps + _REGULAR_TAPS[:, :, None, None]
    reach = STRIDE * float(np.percentile(np.hypot(taps[:, :, :, 0], taps[:, :, :, 1]), 95))
    height = max(_MIN_WINDOW_HEIGHT, round(2 * reach * _TAP_GRID[0]))
    sizes = [min(size, length) for size, length in zip((height, 2 * height), image.shape[:2], strict=True)]
    centres = (middle.top + middle.height // 2, middle.left + middle.width // 2)
    starts = [
        min(max(centre - size // 2, 0), length - size)
        for centre, size, length in zip(centres, sizes, image.shape[:2], strict=True)
    ]
    return Box(*starts, *sizes)


def _mean_field(maps: ASPDCMaps, module: int, image: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels of the image at every `step` px of the features and how far the mean of their nine taps is moved.

    Returns:
        (n, 2) positions and (n, 2) displacements, x and y in px of the image.
    """
    lengths = [-(-length // STRIDE) for length in image.shape[:2]]
    rows, columns = np.meshgrid(*(range(min(step, n) // 2, n, step) for n in lengths), indexing="ij")
    mean = maps.offsets[0, module].unflatten(0, (TAPS, 2)).mean(dim=0).numpy()  # y and x
    displacements = STRIDE * mean[::-1, rows, columns].reshape(2, -1).T
    # A pixel of the features is centred on every fourth of the image: strided convolutions begin at the first.
    return STRIDE * np.stack([columns.ravel(), rows.ravel()], axis=1), displacements


def _magnification(displacements: np.ndarray, spacing: float) -> float:
    """Return a round factor with which nearly all arrows are at most one and a half of their spacing long."""
    usual = float(np.percentile(np.hypot(*displacements.T), 95))
    return max(_nice(1.5 * spacing / usual), 1.0) if usual > 1.5 * spacing / _LONGEST else _LONGEST


def _nice(value: float) -> float:
    """Return the largest of ..., 0.5, 1, 2, 5, 10, ... that is not above a positive value."""
    decade = 10.0 ** np.floor(np.log10(value))
    return float(decade * max(digit for digit in (1, 2, 5) if digit * decade <= value))


def _picture(figure: Figure, box: tuple[float, float, float, float], pale: np.ndarray, part: Box) -> Axes:
    """Return a panel that shows a part of an image, its coordinates those of the image's pixels."""
    axes = add_panel(figure, *box)
    bottom, right = part.top + part.height, part.left + part.width
    extent = (part.left - 0.5, right - 0.5, bottom - 0.5, part.top - 0.5)
    axes.imshow(reduced(np.ascontiguousarray(part.of(pale)), box[2]), extent=extent, aspect="auto")
    axes.set(xlim=extent[:2], ylim=extent[2:])
    return axes


def _draw_arrows(axes: Axes, positions: np.ndarray, displacements: np.ndarray, factor: float) -> Quiver:
    return axes.quiver(
        *positions.T, *displacements.T, angles="xy", scale_units="xy", scale=1 / factor, units="inches", width=0.007,
        headwidth=4, headlength=4, headaxislength=3.5, minlength=0.8, color=_ARROW,
    )  # fmt: skip


def _draw_taps(axes: Axes, maps: ASPDCMaps, module: int, window: Box) -> None:
    """Draw where a few pixels of a window sample."""
    offsets = maps.offsets[0, module].unflatten(0, (TAPS, 2)).numpy()
    for i in range(_TAP_GRID[0]):
        for j in range(_TAP_GRID[1]):
            y = int(window.top + window.height * (i + 0.5) / _TAP_GRID[0]) // STRIDE
            x = int(window.left + window.width * (j + 0.5) / _TAP_GRID[1]) // STRIDE
            taps = STRIDE * (np.array([y, x]) + _REGULAR_TAPS + offsets[:, :, y, x])
            areas = 12 * maps.modulation[0, module, :, y, x].numpy()
            colour = _TAPS[(i + j) % len(_TAPS)]
            for tap in taps:
                axes.plot([STRIDE * x, tap[1]], [STRIDE * y, tap[0]], color=colour, lw=0.3)
            axes.scatter(taps[:, 1], taps[:, 0], s=areas, color=colour, linewidths=0, zorder=3)
            axes.plot(STRIDE * x, STRIDE * y, "+", color="black", ms=5, mew=0.6, zorder=4)
