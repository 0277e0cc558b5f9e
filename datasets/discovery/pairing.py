"""Matching blurry files with their sharp partners in the layouts in use; knows paths, not their content.

Pairs are matched by the components of their paths below the given folder: never by replacing text in a whole path and
never by sort order.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.common.errors import UserError, some
from utils.images.codecs import SUFFIXES

SPLITS = ("train", "test")
SHARP_DIR, INPUT_DIR, TARGET_DIR, GT_DIR = "sharp", "input", "target", "GT"
GAMMA_DIR = "blur_gamma"
_SHARP_SIDES = {SHARP_DIR, TARGET_DIR, "gt", "hq", "ground_truth"}  # in lower case
_HIDE_FOLDERS = {"train", "test", "test-close-ups", "test-long-shot"}


class DatasetError(UserError):
    """A folder of images that cannot be used as it is; the message names the files."""


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
    """Files below a folder: blurry ones, their partners in the same order or None, a unique name for each.

    `used_names` are the names of the folders that distinguish the sides, `problems` those of excluded files.
    """

    layout: str
    blurry: tuple[Path, ...]
    sharp: tuple[Path, ...] | None
    names: tuple[str, ...]
    used_names: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def list_images(base: Path) -> list[Path]:
    """Return the images among `list_files`."""
    return images_among(list_files(base))


def images_among(files: Iterable[Path]) -> list[Path]:
    """Return the files whose names are those of images."""
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def list_files(base: Path, unreadable_dirs: dict[Path, str] | None = None) -> list[Path]:
    """Return the files below a folder as sorted paths relative to it; hidden files and folders are skipped.

    Links to folders are followed, but into no folder twice on the way down.

    Args:
        base: the folder.
        unreadable_dirs: gets the folders that cannot be opened, relative to `base`, each with a message.

    Raises:
        DatasetError: a folder that cannot be opened, without `unreadable_dirs`.
    """

    def raise_unreadable(error: OSError) -> None:
        problem = f"{error.filename} cannot be opened: {error.strerror}"
        if unreadable_dirs is None or Path(error.filename) == base:
            raise DatasetError(problem) from error
        unreadable_dirs[Path(error.filename).relative_to(base)] = problem

    found = []
    for folder, folders, files in os.walk(base, followlinks=True, onerror=raise_unreadable):
        here = Path(folder)
        above = {here.resolve(), *here.resolve().parents}
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in above]
        relative = here.relative_to(base)
        found += [relative / name for name in files if name[0] != "."]
    return sorted(found)


def match_sides(base: Path, files: list[Path], split: str, blur_dir: str) -> Match | None:
    """Match files whose paths differ in one folder: `blur_dir` and sharp, or input and target; None without either.

    Files without partner, and names that stand in two layouts, are the match's problems.

    Raises:
        DatasetError: both splits below one folder.
    """
    for blur_name, sharp_name in ((blur_dir, SHARP_DIR), (INPUT_DIR, TARGET_DIR)):
        blurry, sharp = _with_folder(files, blur_name), _with_folder(files, sharp_name)
        if not blurry or not sharp:
            continue
        other = next(name for name in SPLITS if name != split)
        if _with_folder(blurry, other):
            way_out = f", or unpaired={base} to restore all pictures of it" if split == "test" else ""
            raise DatasetError(
                f"{base} has {other}/ further down: give the folder that directly holds {split}/{way_out}"
            )
        remaining, matched, partners, alone = set(sharp), [], [], []
        for file in blurry:
            candidates = [path for path in _replace_folder(file, blur_name, sharp_name) if path in remaining]
            if len(candidates) == 1:
                matched.append(file)
                partners.append(candidates[0])
                remaining.discard(candidates[0])
            else:
                alone.append(file)
        problems = _files_alone(base, alone, sorted(remaining), blur_name, sharp_name)
        counts = Counter(_without_folder(file, blur_name) for file in blurry)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            text = f"{base} mixes two layouts: {some(twice)} stands in both; give them as two folders"
            problems.append(Problem(text))
        names = tuple(_without_folder(file, blur_name) for file in matched)
        both = f"{{{blur_name},{sharp_name}}}"
        layout = str(_replace_folder(blurry[0], blur_name, both)[0].parent / f"*{blurry[0].suffix}")
        used_names = (blur_name, sharp_name)
        return Match(layout, _below(base, matched), _below(base, partners), names, used_names, tuple(problems))
    return None


def find_gt(root: Path) -> Path | None:
    """Return HIDE's folder of sharp images: in the given folder, or above it where that is one of HIDE's own."""
    here = root.resolve()
    for folder in (here, *here.parents[:2]):
        if (folder / GT_DIR).is_dir():
            return folder / GT_DIR
        if folder.name not in _HIDE_FOLDERS:
            return None
    return None


def match_gt(base: Path, files: list[Path], gt: Path) -> Match | None:
    """Match files with those of the same name in HIDE's GT; None where there are no blurry files.

    Files without partner are the match's problem.
    """
    blurry = [file for file in files if GT_DIR not in file.parts[:-1]]
    if not blurry:
        return None
    sharp_names = {file.name for file in list_images(gt) if len(file.parts) == 1}
    matched = [file for file in blurry if file.name in sharp_names]
    problems = ()
    if alone := [file for file in blurry if file.name not in sharp_names]:
        summary = (
            f"{base}: {len(alone)} of {len(blurry)} images without a partner of the same name in {gt} ({some(alone)}); "
            "complete the download of GT"
        )
        problems = (_without_partner(summary, _below(base, alone), str(gt)),)
    layout = f"{{{blurry[0].parent},{GT_DIR}}}/*{blurry[0].suffix}"
    sharp = tuple(gt / file.name for file in matched)
    names = tuple(file.as_posix() for file in matched)
    return Match(layout, _below(base, matched), sharp, names, (GT_DIR,), problems)


def match_unpaired(base: Path, files: list[Path]) -> Match | None:
    """Take all images, without partners; None where there are none."""
    if not files:
        return None
    return Match("images at any depth", _below(base, files), None, tuple(file.as_posix() for file in files))


def one_sided_note(files: list[Path]) -> list[str]:
    """Return a warning where images that are to be unpaired lie in folders named like the sharp side of pairs."""
    sharp = [str(file) for file in files if {part.lower() for part in file.parts[:-1]} & _SHARP_SIDES]
    if not sharp:
        return []
    return [f"WARNING: {len(sharp):,} of the images look like sharp partners and are taken as blurry: {some(sharp, 2)}"]


def check_both_sides(base: Path, files: list[Path], blur_dir: str, unreadable_dirs: dict[Path, str]) -> None:
    """Do not take one side of a paired set, or both sides in a heap, for unpaired images.

    Raises:
        DatasetError: folders below, including `unreadable_dirs`, or the given one itself next to its partner, have the
            name of a side of pairs.
    """
    sides = {blur_dir.lower(), "blur", GAMMA_DIR, "blurry", "blurred", INPUT_DIR, "lq", *_SHARP_SIDES}
    for path, problem in unreadable_dirs.items():
        if sides & {part.lower() for part in path.parts}:
            raise DatasetError(problem)
    found = {part for file in files for part in file.parts[:-1] if part.lower() in sides}
    here = base.resolve()
    if here.name.lower() in sides:
        neighbours = {path.name for path in here.parent.iterdir() if path.is_dir() and path.name.lower() in sides}
        found |= neighbours if len(neighbours) > 1 else set()
    if found:
        variant = " (or name another blurry folder with --blur_dir)" if blur_dir not in found else ""
        raise DatasetError(
            f"{base} holds, or is one of, {', '.join(f'{name}/' for name in sorted(found))}, but these are not both "
            f"sides of pairs here: expected a folder with {blur_dir}/ and {SHARP_DIR}/, or {INPUT_DIR}/ and "
            f"{TARGET_DIR}/{variant}. For images without ground truth write unpaired={base}"
        )


def _with_folder(files: Iterable[Path], folder: str) -> list[Path]:
    return [file for file in files if folder in file.parts[:-1]]


def _replace_folder(file: Path, old: str, new: str) -> list[Path]:
    """Return the paths that `file` becomes when one folder called `old` is replaced by `new`."""
    parts = file.parts
    return [Path(*parts[:i], new, *parts[i + 1 :]) for i, part in enumerate(parts[:-1]) if part == old]


def _without_folder(file: Path, folder: str) -> str:
    return Path(*(part for part in file.parts[:-1] if part != folder), file.name).as_posix()


def _below(base: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(base / file for file in files)


def _files_alone(base: Path, alone: list[Path], left: list[Path], blur_name: str, sharp_name: str) -> list[Problem]:
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
