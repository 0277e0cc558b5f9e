"""What a test run leaves in its folder: scores a row an image, a summary, and what is needed to go on with it."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from utils.common.errors import UserError
from utils.common.files import atomic_write
from utils.metrics.scorer import KNOWN
from utils.testing.result_files import (
    BEGUN,
    RANK_TABLES,
    SUMMARY,
    TABLE,
    PreviousRun,
    Row,
    is_whole,
    name_in,
    write_table,
)

_SECONDS_BETWEEN_TABLES = 2.0


class Results:
    """`results.csv` and `summary.json` of a run, written as it goes on.

    Where several processes share a run, each writes a table of its own, which the main one takes in at the end of a
    set, or when the run goes on after it was stopped. Beside a table lies a list of the files that the run has begun
    to write, until it ends well: a picture whose row was lost by a kill is told by it from one that is not ours.

    Args:
        folder: where they lie.
        settings: what the results depend on, for the summary.
        previous: what the run goes on with, of the same settings; without any, what the folder holds is replaced.
        rank: of this process; 0 is the main one.

    Attributes:
        rows: of all sets.
        sets: summaries of sets and videos by name.
        problems: with files that were left out, whichever set they are of.

    Raises:
        UserError: something cannot be written.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], previous: PreviousRun | None = None, rank: int = 0
    ) -> None:
        self.folder, self.settings, self.rank = folder, settings, rank
        self.table = folder / (RANK_TABLES.replace("*", str(rank)) if rank else TABLE)
        self.summary = folder / SUMMARY
        self.rows: list[Row] = []
        self.sets: dict[str, Any] = {}
        self.problems: list[str] = []
        self._begun = folder / BEGUN.replace("*", f"-rank{rank}" if rank else "")
        self._lock = Lock()
        self._written = -math.inf
        if rank:
            return
        previous = previous or PreviousRun(folder)
        self.rows = [row for row in previous.rows if is_whole(folder / str(row["saved_as"]))]
        self.sets = previous.sets
        if not self.rows:
            self.table.unlink(missing_ok=True)
        self.write()  # what rows are of is known from now on, whichever process is the first to have some
        begun = [path for path in folder.glob(BEGUN) if path != self._begun]
        if previous.begun:
            with atomic_write(self._begun) as path:
                path.write_text("".join(f"{json.dumps(name)}\n" for name in sorted(previous.begun)), encoding="utf-8")
        else:
            begun.append(self._begun)
        for path in (*folder.glob(RANK_TABLES), *begun):
            path.unlink(missing_ok=True)

    def of(self, name: str) -> dict[str, Row]:
        """Return the rows of a set by their images."""
        return {str(row["image"]): row for row in self.rows if row["set"] == name}

    def begin(self, *paths: Path) -> None:
        """Note that files are about to be written; any thread may call it.

        Raises:
            UserError: the list cannot be written.
        """
        try:
            with self._lock, self._begun.open("a", encoding="utf-8") as file:
                file.write("".join(f"{json.dumps(name_in(self.folder, path))}\n" for path in paths))
        except OSError as error:
            raise UserError(f"{self._begun} cannot be written: {error.strerror or error}") from error

    def add(self, row: Row) -> None:
        """Add an image's row, and write the table unless it was just written."""
        self.rows.append(row)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_TABLES:
            self.write()

    def replace(self, name: str, rows: Sequence[Row]) -> None:
        """Let these be the rows of a set."""
        self.rows = [row for row in self.rows if row["set"] != name] + list(rows)

    def merge_into(self) -> None:
        """Forget the rows, which the main process has written now, and their files."""
        self.rows = []
        self.table.unlink(missing_ok=True)
        self._begun.unlink(missing_ok=True)

    def end(self) -> None:
        """Write everything a last time: each file that was begun has its row now, or was left out."""
        self.write()
        self._begun.unlink(missing_ok=True)

    def write(self) -> None:
        """Write the table and, in the main process, the summary."""
        if self.rows:
            write_table(self.table, self.rows)
        self._written = time.monotonic()
        if self.rank:
            return
        with atomic_write(self.summary) as path:
            content = {
                **self.settings,
                "comparable_with": {name: metric.comparable_with for name, metric in KNOWN.items()},
                "problems": self.problems,
                "sets": self.sets,
            }
            path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False), encoding="utf-8")


def _finite(value: Any) -> Any:
    """Replace the infinite PSNR of equal images by null: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
