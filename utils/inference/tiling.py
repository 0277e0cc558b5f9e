"""Restoring images of any size in bounded memory: overlapping tiles, blended where they overlap."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from utils.common.memory import free_memory

GRID = 4  # the network halves its input twice: tiles that start on this grid are sampled like the whole image
MIN_TILE = 128  # px; a smaller tile would be all overlap

# Peak memory of the deblurring network of width 32 for each pixel, in bytes, rounded up from docs/performance.md.
_BYTES_A_PIXEL = 1500
_SHARE = 0.5  # of the free memory that a tile may take


@dataclass(frozen=True)
class Tiling:
    """How an image is divided into tiles.

    Attributes:
        size: side of the square tiles in px, or None for the whole image at once.
        overlap: px that neighbours share. They are blended in its middle quarter; the rest is context alone.
    """

    size: int | None
    overlap: int

    def smaller(self) -> "Tiling | None":
        """Return tiles of half the size, or None if they would be too small."""
        assert self.size is not None  # a whole image is no tile
        size = _on_grid(self.size / 2)
        return Tiling(size, min(self.overlap, _on_grid(size / 2))) if size >= MIN_TILE else None

    def is_whole(self, height: int, width: int) -> bool:
        """Return whether an image of this size is one tile."""
        return self.size is None or max(height, width) <= self.size + GRID

    def tiles(self, height: int, width: int) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Yield the slices of each tile of an image, and the weights of its pixels, H×W×1."""
        for row in self.spans(height):
            for column in self.spans(width):
                part = np.s_[row.start : row.stop, column.start : column.stop]
                yield part, (row.weights[:, None] * column.weights)[..., None]

    def spans(self, length: int) -> list["Span"]:
        """Return the tiles along an axis of so many px, whose weights add up to 1 everywhere."""
        size = self.size
        if size is None or length <= size + GRID:
            return [Span(0, length, np.ones(length, np.float32))]
        count = math.ceil((length - self.overlap) / (size - self.overlap))
        starts = [_on_grid(i * (length - size) / (count - 1)) for i in range(count)]
        stops = [start + size for start in starts[:-1]] + [length]
        weights = [np.ones(stop - start, np.float32) for start, stop in zip(starts, stops, strict=True)]
        for i in range(1, count):
            shared = stops[i - 1] - starts[i]
            rise = np.clip((np.arange(shared, dtype=np.float32) + 0.5 - shared * 3 / 8) / (shared / 4), 0, 1)
            weights[i][:shared] *= rise
            weights[i - 1][len(weights[i - 1]) - shared :] *= 1 - rise
        return [Span(*each) for each in zip(starts, stops, weights, strict=True)]


@dataclass(frozen=True)
class Span:
    """A tile along one axis: pixels from `start` up to `stop`, and the weight of each of them."""

    start: int
    stop: int
    weights: np.ndarray


def parse_tile(text: str) -> int | Literal["auto"] | None:
    """Parse --tile: "auto", None for "off", or a size in px.

    Raises:
        argparse.ArgumentTypeError: the text has another form.
    """
    if text in ("auto", "off"):
        return None if text == "off" else text
    size = int(text) if text.isdecimal() else 0
    if size < MIN_TILE or size % GRID:
        raise argparse.ArgumentTypeError(
            f"expected auto, off, or a multiple of {GRID} from {MIN_TILE} up, got {text!r}"
        )
    return size


def largest_tile(device: torch.device, width: int) -> int:
    """Return the side in px of the largest square tile for which half of the free memory should do.

    Args:
        device: where the network runs.
        width: of the network.
    """
    pixels = _SHARE * free_memory(device) / (_BYTES_A_PIXEL * width / 32)
    return max(_on_grid(math.sqrt(pixels)), 2 * MIN_TILE)


def _on_grid(size: float) -> int:
    return int(size) // GRID * GRID
