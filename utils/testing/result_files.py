"""The files of a test run: its table, and the results of an earlier run, which are replaced only on request."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from utils.common.errors import UserError
from utils.common.files import atomic_write
from utils.report.rows import PAGE, Row

TABLE, SUMMARY = "results.csv", "summary.json"
RANK_TABLES = "results-rank*.csv"  # of processes other than the main one
BEGUN = "unfinished*.jsonl"

_TEXT = ("set", "image", "weights", "saved_as")
_WHOLE = ("height", "width", "crop_border")
_NO_SETTINGS = ("comparable_with", "sets", "problems")  # of summary.json
_OF_ROWS = ("testset_dir", "blur_dir", "sharp_dir", "metrics", "crop_border")  # what videos do not depend on
_SAME_BY_DIGEST = "weights"  # a path: what the file holds is compared
_ENDS = {".png": b"\0\0\0\0IEND\xaeB`\x82", ".jpg": b"\xff\xd9"}
_DIGITS = 12  # of a SHA-256 in messages


def name_in(folder: Path, path: Path) -> str:
    """Return what a run in `folder` calls a file: its path from there, or the whole one of a file elsewhere."""
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def is_whole(path: Path) -> bool:
    """Return whether a result is there, and, where it is a picture, to its end: disks fill, copies break off."""
    try:
        with path.open("rb") as file:
            suffix, size = path.suffix.lower(), path.stat().st_size
            if suffix == ".webp":
                return int.from_bytes(file.read(8)[4:], "little") + 8 == size
            end = _ENDS.get(suffix, b"")
            file.seek(max(0, size - len(end)))
            return file.read() == end
    except OSError:
        return False


def read_table(path: Path) -> list[Row]:
    """Return the rows of a table with their numbers as numbers, without empty columns.

    Raises:
        OSError, ValueError, LookupError, TypeError: it cannot be read, or is no such table.
    """
    # A name that is no UTF-8 is written as the bytes it has on the disk.
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.readlines()
    if lines and not lines[-1].endswith("\n"):
        raise ValueError("its last line has no end")
    found = list(csv.DictReader(lines))
    if any(None in row or None in row.values() for row in found):
        raise ValueError("a line has other columns than the first")
    rows = [_typed(row) for row in found]
    for row in rows:
        _ = row["set"], row["image"], row["saved_as"]
        if any(value != value for value in row.values()):
            raise ValueError(f"a score of {row['image']} is no number")
    return rows


def _typed(row: dict[str, str]) -> Row:
    return {
        name: value if name in _TEXT else int(value) if name in _WHOLE else float(value)
        for name, value in row.items()
        if value
    }


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, one at least, complete or not at all; a column that a row lacks stays empty."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, dict.fromkeys(column for row in rows for column in row))
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True)
class PreviousRun:
    """What --resume finds in a folder; nothing by default.

    Attributes:
        folder: where it lies.
        settings: of the run, or None where there was none.
        rows: of its table, and of those of its processes.
        sets: its summaries.
        begun: names, as `name_in` gives them, of the files it began to write, whose rows may have been lost.
    """

    folder: Path
    settings: dict[str, Any] | None = None
    rows: tuple[Row, ...] = ()
    sets: dict[str, Any] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()

    def made(self, path: Path) -> bool:
        """Return whether the run wrote a file, or had begun to."""
        return name_in(self.folder, path) in self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        return self.begun | self.sets.keys() | {str(row["saved_as"]) for row in self.rows}

    def check_same_settings(self, settings: dict[str, Any]) -> None:
        """Raise `UserError` where the run had other settings, and name those that differ."""
        if self.settings is None:
            return
        here = json.loads(json.dumps(settings))
        ignored = () if self.rows else _OF_ROWS
        before, now = ({k: v for k, v in each.items() if k not in ignored} for each in (self.settings, here))
        if changed := list(_differences(before, now)):
            raise UserError(
                f"--resume: {self.folder} holds results of other settings: {'; '.join(changed)}. Give the same ones, "
                "another --save_dir, or --overwrite"
            )


def _differences(before: dict[str, Any], now: dict[str, Any], above: str = "") -> Iterator[str]:
    for name in dict.fromkeys((*now, *before)):
        old, new = before.get(name), now.get(name)
        if old == new or (above and name == _SAME_BY_DIGEST):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{above}{name} ")
        else:
            yield f"{above}{name} was {_shown(name, old)}, is {_shown(name, new)}"


def _shown(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(value)
    return "not given" if value is None else str(value)[:_DIGITS] if name.endswith("sha256") else str(value)


def find_previous_run(folder: Path, resume: bool, overwrite: bool) -> PreviousRun:
    """Return what an earlier run left in a folder, where --resume asks for it.

    Raises:
        UserError: the results are damaged; or there are some, and neither --resume nor --overwrite is given.
    """
    tables = sorted(folder.glob(RANK_TABLES))
    found = [path for path in (folder / TABLE, folder / SUMMARY, folder / PAGE, *tables) if path.exists()]
    if found and not (resume or overwrite):
        raise UserError(
            f"{found[0]} exists already; give --resume to continue that run, --overwrite to replace it, or "
            "another --save_dir"
        )
    if overwrite or not found:
        return PreviousRun(folder)
    tables = [path for path in (folder / TABLE, *tables) if path.exists()]
    read = folder / SUMMARY
    try:
        content = json.loads(read.read_text(encoding="utf-8"))
        settings = {name: value for name, value in content.items() if name not in _NO_SETTINGS}
        sets = dict(content.get("sets", {}))
        rows: tuple[Row, ...] = ()
        for read in tables:  # the last one is named where it is damaged
            rows += tuple(read_table(read))
        texts = [path.read_text(encoding="utf-8") for path in folder.glob(BEGUN)]
        begun = frozenset(name for text in texts for name in _names_in(text))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"--resume: {read}, or a list next to it, is damaged ({error!r}); give --overwrite") from error
    return PreviousRun(folder, settings, rows, sets, begun)


def _names_in(text: str) -> Iterator[str]:
    """Yield the names of a list, without lines that a kill or a full disk cut, or joined to the next one."""
    for line in text.split("\n")[:-1]:
        with suppress(ValueError):
            yield json.loads(line)
