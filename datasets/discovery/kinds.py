"""Which data set a folder holds, by the names that its authors gave to folders and files."""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.discovery.benchmarks import BENCHMARKS
from datasets.discovery.layout_table import GT_DIR, HIDE_TEST_DIRS
from datasets.discovery.pairing import Match

WITHOUT_PARTNERS = ("rwbi", "unpaired", "sharp")
KINDS = (*BENCHMARKS, "paired", "unpaired", "sharp")
_HIDE_FILE = "fromGOPR"


def recognise(root: Path, match: Match) -> str:
    """Return which of `KINDS` the images of a folder, or of a list of pairs, are.

    Args:
        root: the folder or the list, as the user gave it.
        match: its images.
    """
    where = "/".join(root.resolve().parts[-2:]).lower()
    if match.sharp is None:
        return "rwbi" if "rwbi" in where else "unpaired"
    if match.sides == (GT_DIR,) and match.sharp and _is_hide(match.sharp[0].parents[1], match.names):
        return "hide"
    if named := kind_named("/".join([where, *map(str.lower, match.sides[:1])])):
        return named
    kind = kind_of_files(root, match)
    return kind if kind and not BENCHMARKS[kind].lists else "paired"  # RealBlur-J and -R have the same names


def kind_of_files(root: Path, match: Match) -> str | None:
    """Return the first of `KINDS` that the names of a folder's blurry files and sides are those of; None of none."""
    sides = tuple(map(str.lower, match.sides))
    paths = [(root.resolve() / name).as_posix() for name in match.names]
    for kind, row in BENCHMARKS.items():
        if row.files and paths and row.sides in ((), sides) and all(re.search(row.files, path) for path in paths):
            return kind
    return None


def kind_named(text: str) -> str | None:
    """Return which of `KINDS` the name of a folder or a list, in lower case, is that of; None of none."""
    return next((kind for kind, row in BENCHMARKS.items() if row.named and re.search(row.named, text)), None)


def _is_hide(folder: Path, names: Sequence[str]) -> bool:
    """Return whether the folder that holds GT/ has HIDE's test folders, or its images have HIDE's names."""
    in_test = any((folder / "test" / name).is_dir() for name in HIDE_TEST_DIRS)
    return in_test or all(_HIDE_FILE in name for name in names)
