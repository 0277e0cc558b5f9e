"""List everything that is wrong with folders of images, before anything is computed with them.

    python -m tools.check_data /data/GOPRO_Large hide=/data/HIDE

Every file is decoded, every pair compared; a problem is one line with the file's path. Ends with status 0 where there
are none and 2 where there are. GoPro's blur_gamma is distinguished from blur by its name and by its brightness, also
under another name.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from datasets.discovery.layout_table import SIDES, SPLITS, Sides
from datasets.discovery.layouts import parse_source, scan_dataset
from datasets.discovery.pixel_checks import (
    PairContent,
    content_problems,
    mean_psnr,
    measurable,
    measure_pair,
    quick_check,
)
from datasets.discovery.splits import splits_in
from utils.common.arguments import ArgumentParser, folder_name
from utils.common.errors import USAGE_STATUS, UserError, counted
from utils.images.codecs import read_image
from utils.runtime.program_end import user_errors_end_the_program

__all__ = ["Report", "check_folder", "main", "parse_args", "quick_check"]

_WARNING = "WARNING: "
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Report:
    """What was found in one split of a folder: a description of several lines, and a line for each problem."""

    description: str
    problems: tuple[str, ...]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.check_data")
    add = parser.add_argument
    # fmt: off
    add("folders", nargs="+", metavar="[KIND=]PATH", help="folders of images in any layout of docs/data.md")
    add("--split", choices=(*SPLITS, "both"), help="splits to check (default: those that the folder has)")
    add("--blur_dir", type=folder_name, default="blur",
        help="name of the folders of blurry images; published results use GoPro's blur, not blur_gamma")
    add("--sharp_dir", type=folder_name, default="sharp",
        help="name of the folders of their sharp partners, beside those of --blur_dir")
    # fmt: on
    return parser.parse_args(argv)


def check_folder(root: Path, split: str, kind: str | None = None, sides: Sides = SIDES) -> Report:
    """Decode every image of one split, compare every pair, and report all problems; arguments of `find_images`."""
    where = f"{root} ({split})"
    try:
        image_set, found = scan_dataset(root, split, kind, sides)
    except UserError as error:
        return Report(where, (str(error),))
    warnings = [note.removeprefix(_WARNING) for note in image_set.notes if note.startswith(_WARNING)]
    notes = tuple(f"note: {note}" for note in image_set.notes if not note.startswith(_WARNING))
    alone = [(path,) for problem in found for path in problem.files]
    files = [image_set.blurry] if image_set.sharp is None else [image_set.blurry, image_set.sharp]
    inspected = _in_threads(_inspect, [*zip(*files, strict=True), *alone], f"decoding {where}")
    pairs = [pair for _, pair in inspected if pair]
    problems = [
        *chain.from_iterable(problem.lines for problem in found),
        *chain.from_iterable(unreadable for unreadable, _ in inspected),
        *chain.from_iterable(problem.lines for problem in content_problems(pairs, image_set, by_folder=True)),
        *(f"{root}: {warning}" for warning in warnings),
    ]
    description = [f"{split}, {replace(image_set, notes=notes).describe()}", *_input_psnr(pairs)]
    return Report("\n  ".join(description), tuple(dict.fromkeys(problems)))


def _input_psnr(pairs: Sequence[PairContent]) -> list[str]:
    mean = mean_psnr(pairs)
    if mean is None:
        return []
    finite = [pair.psnr for pair in pairs if not pair.equal]
    return [
        f"input PSNR {mean:.2f} dB (mean of {counted(len(finite), 'pair')}; {min(finite):.2f} to {max(finite):.2f})"
    ]


def _inspect(paths: tuple[Path, ...]) -> tuple[list[str], PairContent | None]:
    """Decode an image, or the two of a pair; return why they cannot be read, and what was measured of a pair."""
    problems: list[str] = []
    images: list[np.ndarray] = []
    for path in paths:
        try:
            images.append(read_image(path))
        except UserError as error:
            problems.append(str(error))
    if len(images) < 2 or not measurable(*images):
        return problems, None
    (blurry_path, sharp_path), (blurry, sharp) = paths, images
    return problems, measure_pair(blurry_path, sharp_path, blurry, sharp)


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        return list(tqdm(pool.map(function, items), desc=what, total=len(items), dynamic_ncols=True))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more is begun


def _splits(root: Path, kind: str | None, wanted: str | None) -> tuple[str, ...]:
    """Return the splits to check: those requested, else those the folder has, else the one in its name."""
    if wanted == "both" and root.is_dir():
        return SPLITS
    if wanted in SPLITS:
        return (wanted,)
    if kind not in ("rwbi", "unpaired") and (there := splits_in(root)):
        return there
    names = root.resolve().parts[:-3:-1]
    return (next((split for name in names for split in SPLITS if split in name.lower()), "test"),)


def main(args: argparse.Namespace) -> int:
    """Check every folder, print what was found, and return the exit status."""
    sources = [parse_source(text) for text in args.folders]
    reports = []
    for kind, root in sources:
        for split in _splits(root, kind, args.split):
            report = check_folder(root, split, kind, (args.blur_dir, args.sharp_dir))
            print(report.description)
            for problem in report.problems:
                print(f"  error: {problem}")
            print(f"  {_count(len(report.problems))}", flush=True)
            reports.append(report)
    total = sum(len(report.problems) for report in reports)
    if len(reports) > 1:
        print(f"{_count(total)} in all")
    return USAGE_STATUS if total else 0


def _count(problems: int) -> str:
    return counted(problems, "problem") if problems else "no problems"


if __name__ == "__main__":
    with user_errors_end_the_program():
        sys.exit(main(parse_args()))
