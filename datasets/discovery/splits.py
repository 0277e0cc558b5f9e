"""Training and test images apart: by the names of folders, or by lists of pairs."""

from pathlib import Path

from datasets.discovery.benchmarks import BENCHMARKS
from datasets.discovery.kinds import WITHOUT_PARTNERS, kind_named, kind_of_files, recognise
from datasets.discovery.layout_table import (
    BLURRY_NAMES,
    SIDES,
    SPLIT_NAMES,
    SPLITS,
    Sides,
    names_the_sharp_side,
    side_split,
)
from datasets.discovery.listing import DatasetError
from datasets.discovery.pair_list import is_list, list_in, lists_split
from datasets.discovery.pairing import Match


def list_or_folder(root: Path, split: str, kind: str | None, sides: Sides) -> Path:
    """Return the list by which a folder is split that has no folders for its splits; else the root itself.

    The list lies in the folder or, where its paths begin with the folder's name, beside it; "paired" takes the folder
    itself rather than a list beside it.

    Raises:
        DatasetError: several lists, only one of the other split, a list of another data set than `kind`, or `sides`
            other than the default with a list.
    """
    if root.is_dir():
        if kind in WITHOUT_PARTNERS or sides != SIDES or splits_in(root):
            return root
        here = root.resolve()
        return (
            list_in(root, split, kind)
            or (list_in(here.parent, split, kind, here.name) if kind != "paired" and here.name not in SPLITS else None)
            or root
        )
    if sides != SIDES:
        raise DatasetError(
            f"{root} is a list, whose lines name the blurry and the sharp files: omit --blur_dir and --sharp_dir"
        )
    named = kind_named(root.name.lower())
    if kind not in (None, "paired", *WITHOUT_PARTNERS) and named not in (None, kind):
        raise DatasetError(f"{kind}={root}: by its name this is a list of {named}; give {named}={root}")
    return root


def splits_in(root: Path) -> tuple[str, ...]:
    """Return the splits that a folder holds, by its folders train/ and test/, or train_blur/ and val_blur/.

    A list of pairs, or a missing folder, holds none.
    """
    folders = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    fronts = {*folders, *(front for name in folders for side in BLURRY_NAMES if (front := side_split(name, side)))}
    return tuple(split for split, names in SPLIT_NAMES.items() if fronts & {*names})


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split, or the root itself where it has none for either.

    Raises:
        DatasetError: only the other split has one.
    """
    if (root / split).is_dir():
        return root / split
    if others := [name for name in SPLITS if name != split and (root / name).is_dir()]:
        if instead := [root / name for name in SPLIT_NAMES[split] if (root / name).is_dir()]:  # REDS has val/
            return instead[0]
        raise DatasetError(f"{root} holds {others[0]}/ but no {split}/, which is needed here")
    return root


def other_split_note(root: Path, split: str) -> list[str]:
    """Return a warning where the name of the folder or list is of another split."""
    here = root.resolve().name
    if is_list(root):
        other = not lists_split(root, split) and any(lists_split(root, each) for each in SPLITS)
        return [f"WARNING: by its name this list is not of {split} pairs, which are expected here"] if other else []
    return [f"WARNING: this is {here}/, used where {split}/ is expected"] if here in SPLITS and here != split else []


def check_split_by_list(base: Path, files: list[Path], split: str, kind: str | None, match: Match | None) -> None:
    """Do not take training and test images of a set together that only its lists tell apart.

    Args:
        base: the folder that was searched.
        files: its images, relative to it.
        split: "train" or "test".
        kind: of `kinds.KINDS` if the user named it.
        match: the pairs among them, or None.

    Raises:
        DatasetError: the files lie as the set's authors left them, without a list and in no folder of a split.
    """
    here = base.resolve()
    if kind == "paired" or any(here.name in names for names in SPLIT_NAMES.values()):
        return
    if match is not None:
        known = kind or recognise(base, match)
        known = kind_of_files(base, match) if known == "paired" else known
    else:
        sides = any(names_the_sharp_side(part) for file in files for part in file.parts[:-1])
        known = kind or (kind_named("/".join(here.parts[-2:]).lower()) if sides else None)
    row = BENCHMARKS.get(known or "")
    if row is None or not row.lists or (match is not None and tuple(map(str.lower, match.sides)) != row.sides):
        return
    raise DatasetError(
        f"{base} has no list of {split} pairs in it or beside it, and only lists tell training from test images of "
        f"{row.title.partition('-')[0]}: put {row.lists.format(split)} beside the folder that its paths begin with. If "
        f"all images here are those of {split}, move them into a folder {split}/, or give paired={base}"
    )
