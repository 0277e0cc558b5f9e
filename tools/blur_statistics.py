"""Compare synthesised blur with real blur, and draw the comparison.

    python -m tools.blur_statistics GoPro=/data/GOPRO_Large synthetic=/data/synthetic --output blur_statistics.png

Each set (train/ and test/, if they exist) is divided into tiles. Measured of each tile are the PSNR
of the blurry against the sharp side, and the extent of the blur: the length of the uniform linear motion that best
explains the blurry tile, in least squares of the gradients up to a quarter of the sampling frequency. It is the same
measure for real and synthesised pairs, whatever their origin.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.discovery.layout_table import SIDES, SPLITS, Sides
from datasets.discovery.layouts import find_images
from datasets.discovery.splits import splits_in
from utils.common.arguments import ArgumentParser, folder_name
from utils.common.errors import UserError, counted
from utils.common.files import atomic_write
from utils.common.plotting import Figure
from utils.images.codecs import read_image
from utils.metrics.numpy_metrics import psnr
from utils.runtime.program_end import user_errors_end_the_program

TILE = 256  # px
LENGTHS = (0.0, 0.7, *(2 ** (k / 3) for k in range(19)))  # px, up to 64
_ANGLES = 36  # of 180°
_HIGHEST = 0.25  # cycles a px
_PERCENTILES = (10, 25, 50, 75, 90)
_FLAT = 2.0  # grey levels: in tiles that vary less blur is not measurable


@dataclass(frozen=True)
class Statistics:
    """What was measured of a set of pairs.

    Attributes:
        name: of the set.
        image_psnr: of each pair, in dB.
        tile_psnr: of each tile, in dB.
        extents: of each tile, in px.
    """

    name: str
    image_psnr: np.ndarray
    tile_psnr: np.ndarray
    extents: np.ndarray

    def describe(self) -> str:
        """Return the numbers as a line."""
        percentiles = ", ".join(f"{np.percentile(self.extents, p):.1f}" for p in _PERCENTILES)
        return (
            f"{self.name}: input PSNR {self.image_psnr.mean():.2f} ± {self.image_psnr.std():.2f} dB of "
            f"{counted(len(self.image_psnr), 'pair')}, {self.tile_psnr.mean():.2f} ± {self.tile_psnr.std():.2f} dB of "
            f"{len(self.extents):,} tiles; extent {percentiles} px ({', '.join(map(str, _PERCENTILES))} %)"
        )


@cache
def _motions() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows and columns of the low frequencies in a tile's half spectrum, |f|², and each motion's response."""
    down, across = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
    power = down**2 + across**2
    rows, columns = np.nonzero((power > 0) & (power < _HIGHEST**2))
    angles = np.pi * np.arange(_ANGLES) / _ANGLES
    along = np.cos(angles)[:, None] * across[rows, columns] + np.sin(angles)[:, None] * down[rows, columns]
    responses = np.sinc(np.multiply.outer(np.array(LENGTHS), along)).astype(np.float32)
    return rows, columns, power[rows, columns], responses


def blur_extent(blurry: np.ndarray, sharp: np.ndarray) -> float:
    """Return the blur's extent in px between two grey TILE×TILE images: one of `LENGTHS`."""
    rows, columns, weight, responses = _motions()
    window = np.outer(*2 * (np.hanning(TILE),))
    b, s = (np.fft.rfft2((tile - tile.mean()) * window)[rows, columns] for tile in (blurry, sharp))
    # |b - k s|² without the part that is the same for all motions k
    errors = responses**2 @ (weight * np.abs(s) ** 2) - 2 * responses @ (weight * (b * s.conj()).real)
    return LENGTHS[int(errors.min(axis=1).argmin())]


def tiles(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the TILE×TILE parts of an image, as many as fit, spread evenly and without overlap."""
    starts = [np.linspace(0, size - TILE, size // TILE).astype(int) for size in image.shape[:2]]
    for top in starts[0]:
        for left in starts[1]:
            yield image[top : top + TILE, left : left + TILE]


def measure(name: str, root: Path, sides: Sides = SIDES) -> Statistics:
    """Measure all pairs of a data set in one of the layouts that `datasets.find_images` knows.

    Args:
        name: of the set.
        root: its folder.
        sides: names of the folders of blurry and of sharp images.

    Raises:
        UserError: no pairs, or none large enough with texture and blur.
    """
    splits = splits_in(root) or SPLITS[:1]
    found = [find_images(root, split, sides=sides) for split in splits]
    pairs: list[tuple[Path, Path]] = []
    for each in found:
        if each.sharp is None:
            raise UserError(f"{root} holds images without ground truth; expected pairs of blurry and sharp ones")
        pairs += zip(each.blurry, each.sharp, strict=True)
    images, parts, extents, largest = [], [], [], (0, 0)
    for paths in tqdm(pairs, desc=name, dynamic_ncols=True):
        blurry, sharp = (read_image(path) for path in paths)
        largest = max(largest, sharp.shape[:2], key=min)
        if np.array_equal(blurry, sharp):
            continue
        images.append(psnr(blurry, sharp))
        for pair in zip(tiles(blurry), tiles(sharp), strict=True):
            greys = [cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float32) for tile in pair]
            if greys[1].std() >= _FLAT and not np.array_equal(*pair):
                parts.append(psnr(*pair))
                extents.append(blur_extent(*greys))
    if min(largest) < TILE:
        size = f"{largest[1]}×{largest[0]}"
        raise UserError(
            f"{root}: all pairs are smaller than {TILE}×{TILE} px (the largest is {size}); give larger ones"
        )
    if not images:
        raise UserError(f"{root}: both images of every pair are equal; expected a blurry and a sharp one")
    if not extents:
        raise UserError(f"{root}: no part of {TILE}×{TILE} px has both texture and blur; give other pairs")
    return Statistics(name, np.array(images), np.array(parts), np.array(extents))


def draw(sets: Sequence[Statistics], path: Path) -> None:
    """Draw the sets' cumulative distributions over each other."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = {
        "input PSNR of pairs [dB]": "image_psnr",
        f"input PSNR of tiles of {TILE} px [dB]": "tile_psnr",
        f"blur extent in tiles of {TILE} px [px]": "extents",
    }
    for axis, (label, values) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for each in sets:
            axis.ecdf(getattr(each, values), label=f"{each.name} ({counted(len(each.image_psnr), 'pair')})")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    extents = figure.axes[-1]
    extents.set_xscale("symlog", base=2, linthresh=1)
    extents.set_xticks([0, 1, 2, 4, 8, 16, 32, 64], ["0", "1", "2", "4", "8", "16", "32", "64"])
    figure.axes[0].set_ylabel("share of pairs or tiles below")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(sets))
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.blur_statistics")
    add = parser.add_argument
    # fmt: off
    add("sets", nargs="+", metavar="[NAME=]PATH", help="folders of pairs, with names for the figure")
    add("--blur_dir", type=folder_name, default="blur", help="name of the folders of blurry images")
    add("--sharp_dir", type=folder_name, default="sharp",
        help="name of the folders of their sharp partners, beside those of --blur_dir")
    add("--output", type=Path, default=Path("blur_statistics.png"), help="figure to write")
    # fmt: on
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Measure every set, print a line for each, and draw them."""
    measured = []
    for text in args.sets:
        name, separator, path = text.partition("=")
        if not separator or os.sep in name:
            name, path = Path(text).resolve().name, text
        measured.append(measure(name, Path(path).expanduser(), (args.blur_dir, args.sharp_dir)))
        print(measured[-1].describe())
    draw(measured, args.output)
    print(f"the figure is {args.output}")


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())
