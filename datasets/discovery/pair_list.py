"""A data set given as a text file with two paths a line, as RealBlur, RSBlur and BSD come with."""

import codecs
import re
from collections import Counter
from pathlib import Path
from typing import TextIO

from datasets.discovery.kinds import kind_named
from datasets.discovery.layout_table import SPLITS, names_the_sharp_side
from datasets.discovery.listing import DatasetError
from datasets.discovery.pairing import Match, Problem
from utils.common.errors import counted, some
from utils.images.codecs import SUFFIXES as IMAGES

SUFFIXES = (".txt", ".lst", ".list", ".tsv")
_SHOWN = 100  # characters of a line in a message


def is_list(path: Path) -> bool:
    """Return whether a path is that of a list of pairs, by its name."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def lists_split(file: Path, split: str) -> bool:
    """Return whether a list, by its name, is of a split, "train" or "test"."""
    return re.search(rf"(?<![a-z]){split}", file.name.lower()) is not None


def list_in(folder: Path, split: str, kind: str | None, below: str = "") -> Path | None:
    """Return the list by which a folder is split, as RealBlur's and RSBlur's are; None where it holds none.

    Such a list has a split in its name and, in its first line, two paths of images.

    Args:
        folder: where to look, not in folders below.
        split: "train" or "test", whose list is wanted.
        kind: of `kinds.KINDS` if the user named it: lists whose names are those of other data sets do not count.
        below: name of a folder in that one: lists whose paths begin otherwise do not count.

    Raises:
        DatasetError: there are several, or only lists of another split or of other data sets.
    """
    try:
        files = sorted(file for file in folder.iterdir() if is_list(file))
    except OSError:  # which is said where the folder's images are listed
        return None
    lists = [file for file in files if any(lists_split(file, each) for each in SPLITS) and _lists_pairs(file, below)]
    of_kind = [file for file in lists if kind in (None, "paired", kind_named(file.name.lower()) or kind)]
    wanted = [file for file in of_kind if lists_split(file, split)]
    if len(wanted) > 1:
        raise DatasetError(
            f"{folder} holds {counted(len(wanted), 'list')} of {split} pairs, {some([each.name for each in wanted])}; "
            f"give one of them, such as {wanted[0]}"
        )
    if lists and not wanted:
        what = f"{kind}'s {split} pairs" if kind else f"{split} pairs"
        raise DatasetError(
            f"{folder} holds {some([each.name for each in lists])}, but no list of {what}, which is needed here"
        )
    return wanted[0] if wanted else None


def _lists_pairs(file: Path, below: str) -> bool:
    try:
        with _opened(file) as lines:
            first = _two_paths(file, 1, next(line for line in lines if line.strip()))
    except (OSError, StopIteration, DatasetError):
        return False
    return all(Path(each).suffix.lower() in IMAGES and below in ("", *Path(each).parts[:1]) for each in first)


def _opened(file: Path) -> TextIO:
    """Open a list in UTF-8, or in UTF-16 with its mark in front, as PowerShell writes it."""
    with file.open("rb") as start:
        utf_16 = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, errors = ("utf-16", "replace") if utf_16 else ("utf-8-sig", "surrogateescape")
    return file.open(encoding=encoding, errors=errors)


def match_list(file: Path) -> Match:
    """Return the pairs of a list: relative paths start where the list lies, or in a folder above it.

    A line has two paths, with a tab between them, or a space where the paths have none. Which is the sharp one, a
    folder says that the other does not have, as in these data sets, whose lists name it first; else it is the second.
    Backslashes in a line without / are taken for /. Files that are missing are the match's problems.

    Raises:
        DatasetError: the list cannot be read, has no lines, or a line that has no two paths.
    """
    try:
        with _opened(file) as stream:
            lines = stream.read().splitlines()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    pairs = [_two_paths(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise DatasetError(f"{file} has no lines; expected two paths a line, of a blurry image and its sharp partner")
    base = next(
        (each for each in (file.parent, *file.absolute().parents[1:]) if (each / pairs[0][0]).exists()), file.parent
    )
    found = [pair for pair in pairs if all((base / each).is_file() for each in pair)]
    missing = [str(base / each) for pair in pairs for each in pair if not (base / each).is_file()]
    problems = []
    if missing:
        problems.append(
            Problem(
                f"{file} names {counted(len(missing), 'file')} that {'is' if len(missing) == 1 else 'are'} missing: "
                f"{some(missing)}; put the list beside {pairs[0][0].partition('/')[0]}/, which its paths begin with, "
                "or complete the download",
                tuple(f"{each} is missing, which {file} names" for each in missing),
            )
        )
    if twice := [name for name, count in Counter(blurry for blurry, _ in found).items() if count > 1]:
        problems.append(Problem(f"{file} names {some(twice)} more than once; remove the lines that repeat it"))
    blurry, sharp = (tuple(base / pair[side] for pair in found) for side in (0, 1))
    names = tuple(Path(*(part for part in Path(pair[0]).parts if part not in ("/", ".."))).as_posix() for pair in found)
    return Match(f"the list {file.name}", blurry, sharp, names, problems=tuple(problems))


def _two_paths(file: Path, number: int, line: str) -> tuple[str, str]:
    """Return the paths of the blurry and the sharp image of a line."""
    line = line if "/" in line else line.replace("\\", "/")
    paths = [part for each in line.split("\t") if (part := each.strip())] if "\t" in line else line.split()
    if len(paths) != 2:
        raise DatasetError(
            f"{file}, line {number}: expected two paths with a tab between them, or a space where they have none, "
            f"found {counted(len(paths), 'part')}: {line.strip()[:_SHOWN]}"
        )
    first, second = paths
    own = {*Path(first).parts[:-1]} ^ {*Path(second).parts[:-1]}
    first_is_sharp, second_is_sharp = (any(map(names_the_sharp_side, own & {*Path(each).parts[:-1]})) for each in paths)
    return (second, first) if first_is_sharp and not second_is_sharp else (first, second)
