"""Data sets that lie side by side in one folder, found by the names that people give them."""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.discovery.listing import DatasetError
from datasets.discovery.pair_list import is_list
from utils.common.errors import some


def find_named_sets(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the folder of each test set, or its list of test pairs where there is one.

    Case and separators do not matter, and the folder's name may go on: RealBlur_J is found as
    `RealBlur_J_test_list.txt`, else as `RealBlur-J/`, else as `RealBlur-J_ECC_IMCORR_centroid_itensity_ref/`, else as
    any of these in a folder that has the beginning of the name, `RealBlur/`.

    Args:
        root: the folder in which all of them lie.
        names: of the sets.

    Raises:
        DatasetError: no such folder; or a set that it does not hold, or that could be one of several.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DatasetError(f"{root} {found}; with --sets, expected the folder in which the sets lie side by side")
    entries = _entries(root)
    return [_find(root, entries, name) for name in names]


def _entries(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.name[0] != "." and (path.is_dir() or is_list(path)))
    except OSError as error:
        raise DatasetError(f"{root} cannot be opened: {error.strerror}") from error


def _find(root: Path, entries: Sequence[Path], name: str) -> Path:
    wanted = _plain(name)
    found = _called(wanted, entries)
    if not found:  # RealBlur_J in RealBlur/, beside its lists
        outer = [
            path for path in entries if path.is_dir() and (begin := _plain(path.name)) and wanted.startswith(begin)
        ]
        found = _called(wanted, [path for folder in outer for path in _entries(folder)])
    if len(found) == 1:
        return found[0]
    names = [path.relative_to(root).as_posix() + "/" * path.is_dir() for path in found or entries]
    if found:
        raise DatasetError(f"--sets {name} could be any of {some(names)} in {root}; give more of the name")
    raise DatasetError(
        f"{root} holds no set called {name!r}: expected a folder, or a list of test pairs, whose name begins with it; "
        f"found {some(names, 10) or 'nothing'}"
    )


def _called(wanted: str, entries: Sequence[Path]) -> list[Path]:
    """Return the lists of test pairs whose names begin as wanted, else the folders of that name, else such that do."""
    begin = [path for path in entries if _plain(path.name).startswith(wanted)] if wanted else []
    lists = [path for path in begin if is_list(path) and "test" in _plain(path.name)]
    folders = [path for path in begin if path.is_dir()]
    return lists or [path for path in folders if _plain(path.name) == wanted] or folders


def _plain(name: str) -> str:
    return re.sub(r"[^\w/]|_", "", name).lower()
