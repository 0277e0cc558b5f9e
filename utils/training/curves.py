"""A training run's scalars as a table and a figure, for readers without TensorBoard."""

import csv
import time
from pathlib import Path

from utils.common.files import atomic_write
from utils.common.plotting import Figure

Row = dict[str, float]

_SECONDS_BETWEEN_PICTURES = 60.0


class Curves:
    """`log.csv`, one row per epoch, and `curves.png` in a run's folder.

    Existing rows up to `last_step` are kept: a resumed run continues them.

    Args:
        folder: the run's.
        last_step: the last step that is not repeated.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        self._table, self._picture = folder / "log.csv", folder / "curves.png"
        self._rows: dict[int, Row] = {}
        self._drawn_at = time.monotonic()
        if self._table.exists():
            with self._table.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    numbers = {name: _number(value) for name, value in row.items() if value}
                    if numbers["step"] <= last_step:
                        self._rows[int(numbers["step"])] = numbers

    def add(self, step: int, values: Row) -> None:
        """Add columns to the row of a step; write the table, and the figure once a minute."""
        self._rows.setdefault(step, {"step": step}).update(values)
        columns = dict.fromkeys(name for row in self._rows.values() for name in row)
        with atomic_write(self._table) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows[each] for each in sorted(self._rows))
        if time.monotonic() - self._drawn_at > _SECONDS_BETWEEN_PICTURES:
            self.draw()

    def draw(self) -> None:
        """Draw losses, learning rate and validation scores over the steps, if there are any."""
        if not self._rows:
            return
        rows = [self._rows[step] for step in sorted(self._rows)]
        names = list(dict.fromkeys(name for row in rows for name in row))
        panels = {
            "loss": ([name for name in names if name.startswith("loss")], "log"),
            "PSNR [dB]": ([name for name in names if name.startswith("val_psnr")], "linear"),
            "SSIM": ([name for name in names if name.startswith("val_ssim")], "linear"),
            "learning rate": (["lr"], "log"),
        }
        shown = {title: panel for title, panel in panels.items() if panel[0]}
        height = 2.2 * len(shown)
        figure = Figure(figsize=(8, height))
        margins = {"left": 0.13, "right": 0.98, "bottom": 0.5 / height, "top": 1 - 0.1 / height}
        axes = figure.subplots(len(shown), sharex=True, squeeze=False, gridspec_kw=margins)[:, 0]
        for axis, (title, (columns, scale)) in zip(axes, shown.items(), strict=True):
            for name in columns:
                points = [(row["step"], row[name]) for row in rows if name in row]
                axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
            axis.set_ylabel(title)
            axis.set_yscale(scale)
            axis.grid(alpha=0.3)
            if len(columns) > 1:
                axis.legend(fontsize="small")
        axes[-1].set_xlabel("step")
        with atomic_write(self._picture) as path:
            figure.savefig(path, dpi=100)
        self._drawn_at = time.monotonic()


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
