"""What the figures share: the type and width of a paper's page, panels placed in inches, files, boxes of an image."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.common.files import atomic_write
from utils.common.plotting import Axes, Figure, rc_context
from utils.report.figure_files import FIGURE_SUFFIXES

PAGE = 6.9  # in: both columns of a CVPR page
GAP = 0.04  # in, between panels
LINE = 0.13  # in, a line of text
STYLE = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # a Times that comes with matplotlib; other alphabets from the other
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.linewidth": 0.4,
    "pdf.fonttype": 42,  # TrueType, where conferences refuse matplotlib's Type 3
}
# Okabe and Ito's colours, distinguishable with any colour vision; those that are visible on photographs.
COLOURS = ("#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#009E73")

_DPI = 300
_BOXES = 3  # fewer where an image has no room for them
_GRID = 4  # px: boxes begin on the pixels of the network's features
_STRIP = 256  # rows that are compared at once: a photograph of 100 megapixels in integers is many GB


class Box(NamedTuple):
    """A part of an image in px."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """Return this part of an H×W×... image."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def add_panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes without ticks at a place in inches from the figure's top left corner."""
    whole_width, whole_height = figure.get_size_inches()
    box = (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    return figure.add_axes(box, xticks=[], yticks=[])


def add_text(figure: Figure, x: float, y: float, text: str, **options: str | float) -> None:
    """Write a text around a place in inches from the figure's top left corner, centred unless `options` differ."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, **{"ha": "center", "va": "center", **options})


def fitted(image: np.ndarray, width: float, height: float) -> tuple[float, float]:
    """Return the largest width and height in inches with an image's proportions within these limits."""
    proportion = image.shape[0] / image.shape[1]
    return (width, width * proportion) if width * proportion <= height else (height / proportion, height)


def reduced(image: np.ndarray, inches: float) -> np.ndarray:
    """Return an H×W×3 uint8 image with no more pixels than are printed on that width."""
    scale = _DPI * inches / image.shape[1]
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


@rc_context(STYLE)
def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as `path` + ".png" with 300 dpi and as ".pdf" with text as text; the same figure, the same bytes.

    Raises:
        UserError: a file cannot be written.
    """
    for suffix, undated in zip(FIGURE_SUFFIXES, ({}, {"CreationDate": None}), strict=True):
        for image in (image for axes in figure.axes for image in axes.images):
            # A PDF holds an image's own pixels, for those who zoom in; in the PNG they would come out in unequal sizes.
            image.set_interpolation("none" if suffix == ".pdf" else "auto")
        with atomic_write(path.with_name(path.name + suffix)) as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata=undated)


def choose_boxes(blurry: np.ndarray, restored: Sequence[np.ndarray], sharp: np.ndarray | None) -> list[Box]:
    """Return the parts of an image where restoring gained most, the first the most, half a part's size between them.

    What a part gained is the fall of its squared error against the sharp image: that raises the image's PSNR, while the
    rise of the part's own PSNR would choose flat parts, where nothing is to be seen. Without a sharp image it is the
    rise of gradient energy (squared differences of neighbours), which takes ringing and noise for sharpness, too. Of
    several restored images it is the mean. Such parts are favourable: a paper should state how they were chosen.

    Args:
        blurry: H×W×3 uint8.
        restored: images of that size and type, one or more.
        sharp: another, or None.

    Returns:
        Boxes 3:2 a fifth as wide as the image, from 96 to 360 px and at most all of it, at multiples of 4 px.
    """
    height, width = blurry.shape[:2]
    box_width = min(max(width // 5, 96), 360, width) // _GRID
    box_height = min(box_width * 2 // 3, height // _GRID)

    def badness(image: np.ndarray, rows: slice) -> np.ndarray:
        if sharp is None:
            return -_gradient_energy(image[rows])
        return _squared_length(image[rows].astype(np.int32) - sharp[rows])

    def gain(rows: slice) -> np.ndarray:
        return len(restored) * badness(blurry, rows) - sum(badness(image, rows) for image in restored)

    sums = cv2.integral(_cells(gain, height, width))
    scores = sums[box_height:, box_width:] - sums[:-box_height, box_width:]
    scores += sums[:-box_height, :-box_width] - sums[box_height:, :-box_width]
    boxes = []
    while len(boxes) < _BOXES and np.isfinite(scores).any():
        top, left = map(int, np.unravel_index(scores.argmax(), scores.shape))
        boxes.append(Box(*(_GRID * value for value in (top, left, box_height, box_width))))
        down, across = box_height * 3 // 2, box_width * 3 // 2
        scores[max(top - down + 1, 0) : top + down, max(left - across + 1, 0) : left + across] = -np.inf
    return boxes


def _cells(values: Callable[[slice], np.ndarray], height: int, width: int) -> np.ndarray:
    """Return the sums of an H×W map over cells of 4×4 px; `values` gives the map's rows."""
    cells = []
    for top in range(0, height // _GRID * _GRID, _STRIP):
        rows = slice(top, min(top + _STRIP, height // _GRID * _GRID))
        part = values(rows)[:, : width // _GRID * _GRID]
        cells.append(part.reshape(-1, _GRID, width // _GRID, _GRID).sum(axis=(1, 3)))
    return np.concatenate(cells).astype(np.float64)


def _gradient_energy(rows: np.ndarray) -> np.ndarray:
    """Return each pixel's squared differences from its right and lower neighbours within these rows, added up."""
    values = rows.astype(np.int32)
    energy = np.zeros(rows.shape[:2], np.int32)
    energy[:, :-1] += _squared_length(np.diff(values, axis=1))
    energy[:-1] += _squared_length(np.diff(values, axis=0))
    return energy


def _squared_length(values: np.ndarray) -> np.ndarray:
    """Return the sum of squares over the last axis."""
    return np.einsum("...c,...c->...", values, values)
