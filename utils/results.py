"""What a test run leaves in its folder: scores a row an image, a summary, and what is needed to go on with it."""

import csv
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from datasets import ImageSet
from utils.errors import UserError
from utils.files import atomic_write
from utils.published import published_on
from utils.scoring import KNOWN

GOPRO_INPUT = " (GoPro's whole test set has about 25.6: another value means a wrong or swapped folder)"

Row = dict[str, str | int | float]

_SECONDS_BETWEEN_TABLES = 2.0
_INPUT = "input_"  # before a metric's name: of the blurry image
_TEXT = ("set", "image", "weights", "saved_as")


class Results:
    """`results.csv` and `summary.json` of a run, written as it goes on.

    Where several processes share a run, each writes a table of its own, which the main one takes in at the end of a
    set, or when the run goes on after it was stopped.

    Args:
        folder: where they lie.
        settings: what the results depend on, for the summary; a run goes on with those of the same settings only.
        resume: take the rows that an earlier run left.
        rank: of this process; 0 is the main one.

    Raises:
        UserError: the earlier run had other settings, or its files are damaged.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool, rank: int = 0) -> None:
        self.folder, self.settings, self.rank = folder, settings, rank
        self.table = folder / (f"results-rank{rank}.csv" if rank else "results.csv")
        self.summary = folder / "summary.json"
        self.rows: list[Row] = []
        self.sets: dict[str, Any] = {}
        self._written = -math.inf
        if rank:
            return
        parts = sorted(folder.glob("results-rank*.csv"))
        tables = [path for path in (self.table, *parts) if path.exists()]
        if resume and tables and self.summary.exists():
            self._take_up(tables)
            self.write()
        for path in parts if self.rows else tables:
            path.unlink()
        self.write()  # what rows are of is known from now on, whichever process is the first to have some

    def _take_up(self, tables: Sequence[Path]) -> None:
        try:
            before = json.loads(self.summary.read_text(encoding="utf-8"))
            rows = [row for table in tables for row in _read_table(table)]
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
        self.sets = before.get("sets", {})

    def of(self, name: str) -> dict[str, Row]:
        """Return the rows of a set by their images."""
        return {str(row["image"]): row for row in self.rows if row["set"] == name}

    def add(self, row: Row) -> None:
        """Add an image's row, and write the table unless it was just written."""
        self.rows.append(row)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_TABLES:
            self.write()

    def replace(self, name: str, rows: Sequence[Row]) -> None:
        """Let these be the rows of a set."""
        self.rows = [row for row in self.rows if row["set"] != name] + list(rows)

    def hand_over(self) -> None:
        """Forget the rows, which the main process has now, and their table."""
        self.rows = []
        self.table.unlink(missing_ok=True)

    def write(self) -> None:
        """Write the table and, in the main process, the summary."""
        if self.rows:
            self._write_table()
        self._written = time.monotonic()
        if self.rank:
            return
        with atomic_write(self.summary) as path:
            content = {
                **self.settings,
                "comparable_with": {name: metric.comparable_with for name, metric in KNOWN.items()},
                "sets": self.sets,
            }
            path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False), encoding="utf-8")

    def _write_table(self) -> None:
        with atomic_write(self.table) as path, path.open("w", newline="", encoding="utf-8") as file:
            columns = dict.fromkeys(column for row in self.rows for column in row)
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)


def _read_table(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [_typed(row) for row in csv.DictReader(file)]


def _typed(row: dict[str, str]) -> Row:
    """Return a row of a table with its numbers as numbers, without empty columns."""
    whole = ("height", "width")
    return {
        name: value if name in _TEXT else int(value) if name in whole else float(value)
        for name, value in row.items()
        if value
    }


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
    names = [column.removeprefix(_INPUT) for column in rows[0] if column.startswith(_INPUT)]
    if names:
        summary["input"] = {name: fmean(row[f"{_INPUT}{name}"] for row in rows) for name in names}
        summary["output"] = {name: fmean(row[name] for row in rows) for name in names}
    if image_set.paired:
        summary["published"] = published_on(image_set.kind)
    return summary


def print_summary(name: str, summary: dict[str, Any]) -> None:
    """Print a set's table: each metric of the input and the output, and what it may be compared with."""
    seconds = summary["seconds_per_image"]
    print(f"\n{name}: {summary['images']:,} images" + (f", {seconds:.3g} s an image" if seconds else ""))
    if "output" not in summary:
        print("no ground truth: restored and saved, not scored")
        return
    if "psnr" in summary["input"]:
        print(f"input PSNR {summary['input']['psnr']:.2f} dB" + GOPRO_INPUT * (summary["kind"] == "gopro"))
    print(f"{'':14}{'input':>9}{'output':>9}   comparable with")
    for metric in summary["output"]:
        values = "".join(f"{summary[side][metric]:9.4f}" for side in ("input", "output"))
        print(f"{metric:14}{values}   {KNOWN[metric].comparable_with}")


def print_published(kind: str) -> None:
    """Print the published results on a kind of set, where there are any."""
    rows = published_on(kind)
    if rows:
        print(f"published on {kind}'s test set (protocols and sources: summary.json):")
    for row in rows:
        ssim = "" if row["ssim"] is None else f" / {row['ssim']:g}"
        print(f"  {row['method']:26} {row['psnr']:.2f} dB{ssim}")


def print_comparison(name: str, summaries: dict[str, dict[str, Any]]) -> None:
    """Print a set's means for each network, below those of the input.

    Args:
        name: of the set.
        summaries: of the set, by network.
    """
    scored = {network: summary for network, summary in summaries.items() if "output" in summary}
    if len(scored) < 2:
        return
    columns = next(iter(scored.values()))["output"]
    rows = {"input": next(iter(scored.values()))["input"], **{key: each["output"] for key, each in scored.items()}}
    width = max(map(len, rows))
    print(f"\n{name}\n{'':{width}}" + "".join(f"{column:>15}" for column in columns))
    for label, values in rows.items():
        print(f"{label:{width}}" + "".join(f"{values[column]:15.4f}" for column in columns))


def _finite(value: Any) -> Any:
    """Replace the infinite PSNR of equal images by null: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
