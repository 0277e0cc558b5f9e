"""Matching blurry files with their sharp partners in the layouts in use; knows paths, not their content.

Pairs are matched by the components of their paths below the given folder: never by replacing text in a whole path and
never by sort order.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.discovery.layout_table import GT_DIR, HIDE_TEST_DIRS, SPLIT_NAMES, SPLITS, Layout, side_split
from datasets.discovery.listing import DatasetError, list_images
from utils.common.errors import some

_HIDE_FOLDERS = {*SPLITS, *HIDE_TEST_DIRS}
_MASK_DIRS = {"mask", "masks"}  # of HIDE's people
_Key = tuple[str, ...]
_Positions = dict[Path, list[int]]  # of the folders in a file's path that name its side


@dataclass(frozen=True)
class Problem:
    """A problem with files of a set, which does not prevent checking the others.

    Attributes:
        summary: one message, with the first names.
        each: one line per file; empty if the summary is that line.
        files: the files that are excluded from the set because of it.
    """

    summary: str
    each: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Return one line for each file."""
        return self.each or (self.summary,)


@dataclass(frozen=True)
class Match:
    """The images of a folder.

    Attributes:
        layout: where they were found, for the log.
        blurry: the blurry files.
        sharp: their partners in the same order, or None.
        names: a unique name for each.
        sides: names of the folders that distinguish the sides.
        problems: of files that were excluded.
        notes: what the user should know.
        split_notes: the same of images that are of another split than the one asked for.
        unused: files on neither side, relative to the folder.
    """

    layout: str
    blurry: tuple[Path, ...]
    sharp: tuple[Path, ...] | None
    names: tuple[str, ...]
    sides: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    split_notes: tuple[str, ...] = ()
    unused: tuple[Path, ...] = ()


def match_sides(base: Path, files: list[Path], split: str, layouts: Iterable[Layout]) -> Match | None:
    """Match files whose paths differ in the folder that names their side; None where no layout has both sides.

    The first layout with both is used. Files whose names differ in their ending or Unicode form are partners where
    that leaves one only, with a note. Files without partner, and names in two layouts, are the match's problems.

    Raises:
        DatasetError: both splits below one folder.
    """
    for layout in layouts:
        blurry, sharp = (_in_split(_on_side(files, side), side, split) for side in (layout.blurry, layout.sharp))
        if blurry and sharp:
            return _match_two(base, files, split, layout, blurry, sharp)
    return None


def _match_two(
    base: Path, files: list[Path], split: str, layout: Layout, blurry: _Positions, sharp: _Positions
) -> Match:
    _check_one_split(base, blurry, split)
    keys = [
        {file: [_key(file, i, side) for i in found] for file, found in positions.items()}
        for positions, side in ((blurry, layout.blurry), (sharp, layout.sharp))
    ]
    partners, notes = _find_partners(keys[0], keys[1], (layout.blurry, layout.sharp))
    first, position = next((file, found[0]) for file, found in blurry.items())
    sides = first.parts[position], next(file.parts[found[0]] for file, found in sharp.items())
    names = {file: _without(file, found) for file, found in blurry.items()}
    problems = _files_alone(base, sorted(blurry.keys() - partners), sorted(sharp.keys() - {*partners.values()}), sides)
    if twice := sorted(name for name, count in Counter(names.values()).items() if count > 1):
        problems.append(Problem(f"{base} mixes two layouts: {some(twice)} stands in both; give them as two folders"))
    both = f"{{{','.join(sides)}}}"
    return Match(
        str(Path(*first.parts[:position], both, *first.parts[position + 1 : -1], f"*{first.suffix}")),
        _below(base, partners),
        _below(base, partners.values()),
        tuple(names[file] for file in partners),
        sides,
        tuple(problems),
        tuple(notes),
        tuple(_split_note(sides[0], layout.blurry, split)),
        tuple(file for file in files if file not in blurry and file not in sharp),
    )


def find_gt(root: Path) -> Path | None:
    """Return the folder of sharp images called GT: in the given folder, or above it where that is one of HIDE's own."""
    here = root.resolve()
    for folder in (here, *here.parents[:2]):
        if (folder / GT_DIR).is_dir():
            return folder / GT_DIR
        if folder.name not in _HIDE_FOLDERS:
            return None
    return None


def match_gt(base: Path, files: list[Path], gt: Path) -> Match | None:
    """Match files with those of the same name in GT, HIDE's layout; None where there are no blurry files.

    Files without partner are the match's problem.
    """
    masks = [file for file in files if _MASK_DIRS & {part.lower() for part in file.parts[:-1]}]
    blurry = sorted({file for file in files if GT_DIR not in file.parts[:-1]} - {*masks})
    if not blurry:
        return None
    sharp = [file for file in list_images(gt) if len(file.parts) == 1]
    partners, notes = _find_partners(
        {file: [(file.name,)] for file in blurry}, {file: [file.parts] for file in sharp}, ("", GT_DIR.lower())
    )
    problems = ()
    if alone := [file for file in blurry if file not in partners]:
        summary = (
            f"{base}: {len(alone)} of {len(blurry)} images without a partner of the same name in {gt} ({some(alone)}); "
            "complete the download of GT"
        )
        problems = (_without_partner(summary, _below(base, alone), str(gt)),)
    return Match(
        f"{{{blurry[0].parent},{GT_DIR}}}/*{blurry[0].suffix}",
        _below(base, partners),
        _below(gt, partners.values()),
        tuple(file.as_posix() for file in partners),
        (GT_DIR,),
        problems,
        tuple(notes),
        unused=tuple(masks),
    )


def match_unpaired(base: Path, files: list[Path]) -> Match | None:
    """Take all images, without partners; None where there are none."""
    if not files:
        return None
    return Match("images at any depth", _below(base, files), None, tuple(file.as_posix() for file in files))


def _on_side(files: Iterable[Path], side: str) -> _Positions:
    found = {
        file: [i for i, part in enumerate(file.parts[:-1]) if side_split(part, side) is not None] for file in files
    }
    return {file: positions for file, positions in found.items() if positions}


def _in_split(positions: _Positions, side: str, split: str) -> _Positions:
    """Leave out val_blur where train_blur is wanted, unless there is nothing else."""
    splits = {file: side_split(file.parts[found[0]], side) for file, found in positions.items()}
    wanted = {file: positions[file] for file, each in splits.items() if each in ("", *SPLIT_NAMES[split])}
    return wanted or positions


def _key(file: Path, position: int, side: str) -> _Key:
    """Return what is equal in two partners: the path with the split alone in the place of the side's folder."""
    parts = file.parts
    return (*parts[:position], f"/{side_split(parts[position], side)}", *parts[position + 1 :])


def _find_partners(
    blurry: Mapping[Path, list[_Key]], sharp: Mapping[Path, list[_Key]], sides: tuple[str, str]
) -> tuple[dict[Path, Path], list[str]]:
    """Return the partner of each blurry file that has one, and a note on those found by their stems alone."""
    partners = _with_equal_keys(blurry, sharp)
    taken = set(partners.values())
    loose_blurry, loose_sharp = (
        {file: [_loose(key, name) for key in keys] for file, keys in side.items() if file not in used}
        for side, used, name in ((blurry, partners.keys(), sides[0]), (sharp, taken, sides[1]))
    )
    forward, backward = _with_equal_keys(loose_blurry, loose_sharp), _with_equal_keys(loose_sharp, loose_blurry)
    by_stem = {file: partner for file, partner in forward.items() if backward.get(partner) == file}
    notes = []
    if by_stem:
        shown = some([f"{file} with {partner}" for file, partner in by_stem.items()], 2)
        notes = [f"partners with other file names, matched by their stems: {shown}"]
    found = partners | by_stem
    return {file: found[file] for file in blurry if file in found}, notes


def _with_equal_keys(files: Mapping[Path, list[_Key]], others: Mapping[Path, list[_Key]]) -> dict[Path, Path]:
    """Return for each file the one other file with a key of its own."""
    by_key = defaultdict(set)
    for other, keys in others.items():
        for key in keys:
            by_key[key].add(other)
    candidates = {file: set().union(*(by_key[key] for key in keys if key in by_key)) for file, keys in files.items()}
    return {file: next(iter(found)) for file, found in candidates.items() if len(found) == 1}


def _loose(key: _Key, side: str) -> _Key:
    """Return a key without the file's ending and the side's name in it (blur_1.png), in one of the Unicode forms."""
    stem = "_".join(word for word in Path(key[-1]).stem.split("_") if word.lower() != side)
    return tuple(unicodedata.normalize("NFC", part) for part in (*key[:-1], stem))


def _check_one_split(base: Path, blurry: Iterable[Path], split: str) -> None:
    other = next(name for name in SPLIT_NAMES if name != split)
    if any(other in file.parts[:-1] for file in blurry):
        way_out = f", or unpaired={base} to restore all pictures of it" if split == "test" else ""
        raise DatasetError(f"{base} has {other}/ further down: give the folder that directly holds {split}/{way_out}")


def _split_note(folder: str, side: str, split: str) -> list[str]:
    if side_split(folder, side) in ("", *SPLIT_NAMES[split]):
        return []
    return [f"WARNING: these are the images of {folder}/, used where those of {split} are expected"]


def _without(file: Path, positions: list[int]) -> str:
    return Path(*(part for i, part in enumerate(file.parts) if i not in positions)).as_posix()


def _below(base: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(base / file for file in files)


def _files_alone(base: Path, alone: list[Path], left: list[Path], names: tuple[str, str]) -> list[Problem]:
    blur_name, sharp_name = names
    sides = [side for side in ((blur_name, sharp_name, alone), (sharp_name, blur_name, left)) if side[2]]
    if not sides:
        return []
    message = "; ".join(
        f"{len(files)} in {folder}/ without a partner in {partner}/ ({some(files)})" for folder, partner, files in sides
    )
    summary = (
        f"{base}: {message}. Partners have the same path but for {blur_name}/ and {sharp_name}/; "
        "complete the download, or remove the files that stand alone"
    )
    parts = [_without_partner(summary, _below(base, files), f"{partner}/") for _, partner, files in sides]
    return [Problem(summary, sum((part.each for part in parts), ()), sum((part.files for part in parts), ()))]


def _without_partner(summary: str, files: tuple[Path, ...], where: str) -> Problem:
    each = tuple(f"{file} has no partner in {where}; complete the download or remove the file" for file in files)
    return Problem(summary, each, files)
