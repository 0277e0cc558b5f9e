"""A training run's scalars as a table and a figure, for readers without TensorBoard."""

import csv
import time
import warnings
from pathlib import Path

from utils.common.files import atomic_write

Row = dict[str, float]

_SECONDS_BETWEEN_PICTURES = 60.0
_VALIDATION = "val_"  # begins the columns of a validation


class Curves:
    """`log.csv`, one row per epoch and per validation, and `curves.png` in a run's folder.

    Existing rows up to `done_steps` are kept: a resumed run continues them. The row of an epoch's part, at which a run
    was stopped, gives way to that of the whole epoch; of a validation there, its columns stay.

    Args:
        folder: the run's.
        done_steps: the last step that is not repeated.
        title: of the figure.
    """

    def __init__(self, folder: Path, done_steps: int, title: str) -> None:
        self._table, self._picture, self._title = folder / "log.csv", folder / "curves.png", title
        self._rows: dict[int, Row] = {}
        self._drawn_at = time.monotonic()
        if self._table.exists():
            with self._table.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    numbers = {name: _number(value) for name, value in row.items() if value}
                    if numbers["step"] <= done_steps:
                        self._put(int(numbers["step"]), numbers)

    def add(self, step: int, values: Row) -> None:
        """Add columns to the row of a step; write the table, and the figure once a minute."""
        self._put(step, values)
        columns = dict.fromkeys(name for row in self._rows.values() for name in row)
        with atomic_write(self._table) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows[each] for each in sorted(self._rows))
        if time.monotonic() - self._drawn_at > _SECONDS_BETWEEN_PICTURES:
            self.draw()

    def _put(self, step: int, values: Row) -> None:
        if "epoch" in values:
            for part in [each for each, row in self._rows.items() if row.get("epoch") == values["epoch"]]:
                row = self._rows.pop(part)
                if scores := {name: value for name, value in row.items() if name.startswith(_VALIDATION)}:
                    self._rows[part] = {"step": part, **scores}
        self._rows.setdefault(step, {"step": step}).update(values)

    def draw(self) -> None:
        """Draw the figure, if there are rows."""
        if not self._rows:
            return
        # matplotlib is not imported before the first step: that would take half a second.
        from utils.training.curves_figure import curves_figure

        figure = curves_figure([self._rows[step] for step in sorted(self._rows)], self._title)
        with atomic_write(self._picture) as path, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters of the title that the font lacks
            figure.savefig(path, dpi=100)
        self._drawn_at = time.monotonic()


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
