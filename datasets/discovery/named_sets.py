"""Data sets that lie side by side in one folder, found by the names that people give them."""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.discovery.benchmarks import BENCHMARKS
from datasets.discovery.kinds import KINDS, kind_named
from datasets.discovery.layout_table import SPLIT_NAMES
from datasets.discovery.listing import DatasetError
from datasets.discovery.pair_list import is_list
from utils.common.errors import some


def find_named_sets(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the folder of each test set, or its list of test pairs where there is one.

    Case and separators do not matter, and the folder's name may go on: RealBlur_J is found as
    `RealBlur_J_test_list.txt`, else as `RealBlur-J/`, else as `RealBlur-J_ECC_IMCORR_centroid_itensity_ref/`, else as
    any of these in a folder that has the beginning of the name, `RealBlur/`; and where there is none, in `test/`.

    Args:
        root: the folder in which all of them lie.
        names: of the sets.

    Raises:
        DatasetError: no such folder; a set that it does not hold, or that could be one of several; or one named twice.
    """
    if not root.is_dir():
        kind, _, path = str(root).partition("=")
        if path and kind in KINDS:
            raise DatasetError(f"{root}: --sets recognises each set by itself; omit {kind}=, give the folder {path}")
        found = "is a file" if root.exists() else "does not exist"
        raise DatasetError(f"{root} {found}; with --sets, expected the folder in which the sets lie side by side")
    paths = [_find(root, name) for name in names]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise DatasetError(f"--sets {names[paths.index(path)]} and {names[i]} are one set, {path}: name it once")
    return paths


def _entries(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.name[0] != "." and (path.is_dir() or is_list(path)))
    except OSError as error:
        raise DatasetError(f"{root} cannot be opened: {error.strerror}") from error


def _find(root: Path, name: str) -> Path:
    wanted, entries = _plain(name), _entries(root)
    found = _find_below(entries, wanted)
    if not found:
        tests = [path for path in entries if path.is_dir() and path.name.lower() in SPLIT_NAMES["test"]]
        found = [path for folder in tests for path in _find_below(_entries(folder), wanted)]
    if len(found) == 1 and found[0].is_dir():  # RealBlur/ holds several
        inside = _called(wanted, _entries(found[0]))
        found = inside if len(inside) > 1 else found
    if len(found) == 1:
        return found[0]
    names = [path.relative_to(root).as_posix() + "/" * path.is_dir() for path in found or entries]
    if found:
        raise DatasetError(
            f"--sets {name} could be any of {some(names)} in {root}; give more of the name{_advice(found)}"
        )
    raise DatasetError(
        f"{root} holds no set called {name!r}: expected a folder, or a list of test pairs, whose name begins with it; "
        f"found {some(names, 10) or 'nothing'}"
    )


def _find_below(entries: Sequence[Path], wanted: str) -> list[Path]:
    """Return the sets that could be meant: among the entries, else in folders with the beginning of the name."""
    if found := _called(wanted, entries):
        return found
    outer = [path for path in entries if path.is_dir() and (begin := _plain(path.name)) and wanted.startswith(begin)]
    return _called(wanted, [path for folder in outer for path in _entries(folder)])  # RealBlur_J in RealBlur/


def _advice(found: Sequence[Path]) -> str:
    """Return the names by which several data sets would be found; nothing where these are not known."""
    kinds = [kind_named(path.name.lower()) for path in found]
    names = [
        path.name if BENCHMARKS[kind].several else BENCHMARKS[kind].title.replace("-", "_")
        for path, kind in zip(found, kinds, strict=True)
        if kind
    ]
    return f", such as --sets {' '.join(names)}" if len(set(names)) == len(found) else ""


def _called(wanted: str, entries: Sequence[Path]) -> list[Path]:
    """Return the lists of test pairs whose names begin as wanted, else the folders of that name, else such that do."""
    begin = [path for path in entries if _plain(path.name).startswith(wanted)] if wanted else []
    lists = [path for path in begin if is_list(path) and "test" in _plain(path.name)]
    folders = [path for path in begin if path.is_dir()]
    return lists or [path for path in folders if _plain(path.name) == wanted] or folders


def _plain(name: str) -> str:
    return re.sub(r"[^\w/]|_", "", name).lower()
