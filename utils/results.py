"""What a test run leaves in its folder: scores a row an image, a summary, and what is needed to go on with it."""

import csv
import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from datasets import SPLITS, ImageSet
from utils.errors import UserError
from utils.files import atomic_write
from utils.metrics import COMPARABLE_WITH, METRICS
from utils.published import published_on

GOPRO_INPUT = " (GoPro's whole test set has about 25.6: another value means a wrong or swapped folder)"

Row = dict[str, str | int | float]

_SECONDS_BETWEEN_TABLES = 2.0
_TEXT = ("set", "image", "saved_as")


class Results:
    """`results.csv` and `summary.json` of a run, written as it goes on.

    Args:
        folder: where they lie.
        settings: what the results depend on, for the summary; a run goes on with those of the same settings only.
        resume: take the rows that an earlier run left.

    Raises:
        UserError: the earlier run had other settings, or its files are damaged.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self.folder, self.settings = folder, settings
        self.table, self.summary = folder / "results.csv", folder / "summary.json"
        self.rows: list[Row] = []
        self.sets: dict[str, Any] = {}
        self._written = -math.inf
        if resume and self.table.exists() and self.summary.exists():
            self._take_up()

    def _take_up(self) -> None:
        try:
            before = json.loads(self.summary.read_text(encoding="utf-8"))
            with self.table.open(newline="", encoding="utf-8") as file:
                rows = [_typed(row) for row in csv.DictReader(file)]
        except (OSError, ValueError) as error:
            raise UserError(f"--resume: {self.folder} holds damaged results ({error}); give --overwrite") from error
        changed = [
            f"{name} was {before.get(name)}, is {value}"
            for name, value in json.loads(json.dumps(self.settings)).items()
            if before.get(name) != value
        ]
        if changed:
            raise UserError(
                f"--resume: {self.folder} holds results of other settings: {'; '.join(changed)}. Give the same ones, "
                "another --save_dir, or --overwrite"
            )
        self.rows = [row for row in rows if (self.folder / str(row["saved_as"])).exists()]

    def of(self, name: str) -> dict[str, Row]:
        """Return the rows of a set by their images."""
        return {str(row["image"]): row for row in self.rows if row["set"] == name}

    def add(self, row: Row) -> None:
        """Add an image's row, and write the table unless it was just written."""
        self.rows.append(row)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_TABLES:
            self.write()

    def write(self) -> None:
        """Write both files."""
        if self.rows:
            self._write_table()
        with atomic_write(self.summary) as path:
            content = {**self.settings, "comparable_with": COMPARABLE_WITH, "sets": self.sets}
            path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False), encoding="utf-8")
        self._written = time.monotonic()

    def _write_table(self) -> None:
        with atomic_write(self.table) as path, path.open("w", newline="", encoding="utf-8") as file:
            columns = dict.fromkeys(column for row in self.rows for column in row)
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)


def _typed(row: dict[str, str]) -> Row:
    """Return a row of a table with its numbers as numbers, without empty columns."""
    whole = ("height", "width")
    return {
        name: value if name in _TEXT else int(value) if name in whole else float(value)
        for name, value in row.items()
        if value
    }


def output_names(names: tuple[str, ...]) -> list[str]:
    """Return PNG names for a set: a.jpg becomes a.png, or, where two images would share a name, each a.jpg.png."""
    names_as_png = [f"{Path(name).with_suffix('')}.png" for name in names]
    return names_as_png if len(set(names_as_png)) == len(names) else [f"{name}.png" for name in names]


def summarise(image_set: ImageSet, rows: list[Row], complete: bool, problems: Sequence[str] = ()) -> dict[str, Any]:
    """Return a set's counts and means for summary.json.

    Args:
        image_set: the set.
        rows: of its images that were restored.
        complete: whether these are all that were asked for.
        problems: with the others.
    """
    summary: dict[str, Any] = {
        "kind": image_set.kind,
        "root": str(image_set.root),
        "images": len(rows),
        "images_in_set": len(image_set),
        "complete": complete,
        "notes": list(image_set.notes),
        "problems": list(problems),
        "seconds_per_image": median(row["seconds"] for row in rows),
    }
    if image_set.paired:
        summary["input"] = {name: fmean(row[f"input_{name}"] for row in rows) for name in METRICS}
        summary["output"] = {name: fmean(row[name] for row in rows) for name in METRICS}
        summary["published"] = published_on(image_set.kind)
    return summary


def print_summary(name: str, summary: dict[str, Any]) -> None:
    """Print a set's table: each metric of the input and the output, and what it may be compared with."""
    seconds = summary["seconds_per_image"]
    print(f"\n{name}: {summary['images']:,} images" + (f", {seconds:.3g} s an image" if seconds else ""))
    if "output" not in summary:
        print("no ground truth: restored and saved, not scored")
        return
    print(f"input PSNR {summary['input']['psnr']:.2f} dB" + GOPRO_INPUT * (summary["kind"] == "gopro"))
    print(f"{'':14}{'input':>9}{'output':>9}   comparable with")
    for metric in METRICS:
        values = "".join(f"{summary[side][metric]:9.4f}" for side in ("input", "output"))
        print(f"{metric:14}{values}   {COMPARABLE_WITH[metric]}")
    if summary["published"]:
        print(f"published on {summary['kind']}'s test set (protocols and sources: summary.json):")
    for row in summary["published"]:
        ssim = "" if row["ssim"] is None else f" / {row['ssim']:g}"
        print(f"  {row['method']:26} {row['psnr']:.2f} dB{ssim}")


def _finite(value: Any) -> Any:
    """Replace the infinite PSNR of equal images by null: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def result_folders(image_sets: Sequence[ImageSet], save_dir: Path) -> list[Path]:
    """Return a folder of its own for each set's restored images, none of them where a set is read from.

    Single files are restored into `save_dir` itself.
    """
    folders: list[Path] = []
    for image_set in image_sets:
        root = image_set.root.resolve()
        if root.is_file():
            folders.append(save_dir)
            continue
        name = f"{root.parent.name}_{root.name}" if root.name in SPLITS else root.name
        numbered = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
        folders.append(next(save_dir / each for each in numbered if save_dir / each not in folders))
    for image_set in image_sets:
        for folder in folders:
            if folder.resolve().is_relative_to(image_set.root.resolve()):
                raise UserError(
                    f"{folder} would lie inside {image_set.root}, which is read from; give a --save_dir elsewhere"
                )
    return folders
