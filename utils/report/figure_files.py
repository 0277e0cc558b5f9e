"""What figures are of and what their files are called, apart from what draws them: matplotlib is slow to import."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from models.deblurring_net import BLOCKS

FIGURE_SUFFIXES = (".png", ".pdf")


def parse_blocks(text: str) -> tuple[int, ...]:
    """Return the ASPDCs that a text such as "0,2,5" names, in ascending order.

    Raises:
        ArgumentTypeError: something else, or no such ASPDC.
    """
    try:
        blocks = sorted({int(part) for part in text.split(",")})
    except ValueError:
        blocks = []
    if not blocks or not set(blocks) <= set(range(BLOCKS)):
        raise argparse.ArgumentTypeError(f"expected numbers from 0 to {BLOCKS - 1} such as 0,2,5, got {text!r}")
    return tuple(blocks)


def figure_files(path: Path, networks: Sequence[str] = ()) -> list[Path]:
    """Return the files that `write_figures` makes with the same arguments; of the networks the names alone."""
    prefixes = [f"{path.name}_{name}" for name in networks] if len(networks) > 1 else [path.name] * len(networks)
    names = [f"{path.name}_crops", *(f"{prefix}_{kind}" for prefix in prefixes for kind in ("attention", "offsets"))]
    return [path.with_name(f"{name}{suffix}") for name in names for suffix in FIGURE_SUFFIXES]
