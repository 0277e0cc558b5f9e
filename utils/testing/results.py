"""The results of a test run: a table with a row per image, a summary, and what is needed to continue the run."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from utils.common.errors import UserError
from utils.common.files import atomic_write, write_problem
from utils.metrics.scorer import KNOWN
from utils.runtime.distributed import DistributedContext
from utils.testing.inputs import InputSet
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
from utils.testing.summaries import summarise

_SECONDS_BETWEEN_TABLES = 2.0


class Results:
    """`results.csv` and `summary.json` of a run, updated during the run.

    If several processes share a run, each writes its own table, which the main process merges at the end of a set, or
    when a stopped run continues. Until the run ends, a list next to the table names the files that it began to write:
    it distinguishes an image whose row was lost when the run was killed from a file of someone else.

    Args:
        folder: of the results.
        settings: on which the results depend, for the summary.
        distributed: the processes that share the run.

    Attributes:
        rows: of all sets.
        sets: summaries of sets and videos by name.
        problems: with skipped files of all sets.
        incomplete: problems of videos that were restored in part.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], distributed: DistributedContext) -> None:
        self.folder, self.settings, self._distributed = folder, settings, distributed
        rank = distributed.rank
        self.table = folder / (RANK_TABLES.replace("*", str(rank)) if rank else TABLE)
        self.summary = folder / SUMMARY
        self.rows: list[Row] = []
        self.sets: dict[str, Any] = {}
        self.problems: list[str] = []
        self.incomplete: list[str] = []
        self._notes: list[str] = []  # on images of the current set
        self._begun = folder / BEGUN.replace("*", f"-rank{rank}" if rank else "")
        self._lock = Lock()
        self._written = -math.inf

    def continue_from(self, previous: PreviousRun, replaced: Sequence[Path] = ()) -> None:
        """Continue an earlier run, in the main process; its other files are deleted.

        Args:
            previous: a run of the same settings.
            replaced: files that this run overwrites; a run that continues it does so, too.

        Raises:
            UserError: something cannot be written.
        """
        self.rows = [row for row in previous.rows if is_whole(self.folder / str(row["saved_as"]))]
        # Whether a set is complete shows at its end: this run may have been asked for more of it.
        with_rows = {row["set"] for row in self.rows}
        self.sets = {name: each for name, each in previous.sets.items() if "complete" not in each or name in with_rows}
        for each in self.sets.values():
            if "complete" in each:  # not of videos
                each["complete"] = False
        if replaced:  # before anything is deleted: a kill leaves a list of what is ours
            self.begin(*replaced)
        if not self.rows:
            self.table.unlink(missing_ok=True)
        self.write()  # what rows are of is known from now on, whichever process is the first to have some
        begun = [path for path in self.folder.glob(BEGUN) if path != self._begun]
        if names := sorted({*previous.begun, *map(self.name_of, replaced)}):
            with atomic_write(self._begun) as path:
                path.write_text("".join(f"{json.dumps(name)}\n" for name in names), encoding="utf-8")
        else:
            begun.append(self._begun)
        for path in (*self.folder.glob(RANK_TABLES), *begun):
            path.unlink(missing_ok=True)

    def name_of(self, path: Path) -> str:
        """Return what the results call a file, see `name_in`."""
        return name_in(self.folder, path)

    def of(self, name: str) -> dict[str, Row]:
        """Return the rows of a set by their images."""
        return {str(row["image"]): row for row in self.rows if row["set"] == name}

    def share(self, name: str, images: Sequence[str]) -> list[int]:
        """Return which of a set's images, by their indices, this process restores: those without a row."""
        done = set(self._distributed.gather(list(self.of(name)))[0])
        todo = [i for i, image in enumerate(images) if image not in done]
        return todo[self._distributed.rank :: self._distributed.world_size]

    def begin(self, *paths: Path) -> None:
        """Record that files are about to be written; any thread may call it.

        Raises:
            UserError: the list cannot be written.
        """
        lines = "".join(f"{json.dumps(self.name_of(path))}\n" for path in paths).encode()
        try:
            with self._lock, self._begun.open("ab", buffering=0) as file:
                end = file.tell()
                try:
                    while lines:
                        lines = lines[file.write(lines) :]
                except OSError:
                    file.truncate(end)  # half a line, which the next one would be joined to
                    raise
        except OSError as error:
            raise UserError(f"{self._begun} cannot be written: {write_problem(error, self.folder)}") from error

    def note(self, text: str) -> None:
        """Add a note on an image for the user; any thread may call it."""
        self._notes.append(text)

    def add(self, row: Row) -> None:
        """Add an image's row, and write the table unless it was just written."""
        self.rows.append(row)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_TABLES:
            self.write()

    @contextmanager
    def set_written(self, name: str, inputs: InputSet) -> Iterator[list[str]]:
        """Write the rows and the summary of a set at the end of the block: neither errors nor signals lose them.

        Yields:
            a list for the problems of skipped images.
        """
        problems: list[str] = []
        self._notes = []
        try:
            yield problems
        finally:
            if self._distributed.is_distributed:
                self.write()
            else:
                self._end_set(name, inputs, [(self.of(name), problems, self._notes)])
        if self._distributed.is_distributed:
            shares = self._distributed.gather((self.of(name), problems, self._notes))
            if self._distributed.is_main:
                self._end_set(name, inputs, shares)
            self._distributed.barrier()
            if not self._distributed.is_main:  # the main process has written them now
                self.rows = []
                self.table.unlink(missing_ok=True)
                self._begun.unlink(missing_ok=True)

    def _end_set(
        self, name: str, inputs: InputSet, shares: Sequence[tuple[dict[str, Row], list[str], list[str]]]
    ) -> None:
        """Write a set's rows in the order of its images, and its summary, from each process's rows, problems, notes."""
        by_image = {image: row for rows, _, _ in shares for image, row in rows.items()}
        rows = [by_image[image] for image in inputs.images.names if image in by_image]
        problems = [problem for _, found, _ in shares for problem in found]
        notes = [note for _, _, found in shares for note in found]
        for note in notes:
            print(note)
        self.problems += problems
        if rows:
            closed = inputs.images.unreadable_dirs  # nobody knows how many images these hold
            complete = not closed and all(image in by_image for image in inputs.images.names[: inputs.count])
            before = self.sets.get(name, {}).get("notes", ())  # on images that need no second look
            self.rows = [row for row in self.rows if row["set"] != name] + rows
            self.sets[name] = summarise(
                inputs.images, rows, complete, (*closed, *problems), dict.fromkeys((*before, *notes))
            )
        else:
            self.sets.pop(name, None)  # of a run before, whose images cannot be read any more
        self.write()

    def end(self) -> None:
        """Write everything a last time: each file that was begun has its row now, or was skipped."""
        self.write()
        self._begun.unlink(missing_ok=True)

    def check_complete(self) -> None:
        """Raise `UserError` with a list of the skipped files and incomplete videos."""
        kinds = {
            "files were skipped": self.problems,
            "videos are incomplete, and were restored in part": self.incomplete,
        }
        messages = []
        for what, found in kinds.items():
            each = list(dict.fromkeys(found))  # several networks report the same ones
            messages += ["\n  ".join([f"{len(each)} of the {what}:", *each])] if each else []
        if messages:
            raise UserError("\n".join(messages))

    def write(self) -> None:
        """Write the table and, in the main process, the summary."""
        if self.rows:
            write_table(self.table, self.rows)
        self._written = time.monotonic()
        if not self._distributed.is_main:
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
