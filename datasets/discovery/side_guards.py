"""Guards against one side of pairs, or both in a heap, taken for images without ground truth."""

from collections import defaultdict
from pathlib import Path

from datasets.discovery.benchmarks import BENCHMARKS
from datasets.discovery.kinds import kind_named
from datasets.discovery.layout_table import (
    BLURRY_NAMES,
    LAYOUTS,
    SHARP_NAMES,
    SIDES,
    Sides,
    known_pairs,
    names_a_side,
    names_the_sharp_side,
)
from datasets.discovery.listing import DatasetError
from datasets.discovery.pairing import Match
from utils.common.errors import some


def check_sides(sides: Sides) -> None:
    """Raise `DatasetError` for names of --blur_dir and --sharp_dir that cannot be meant."""
    for flag, side, example in zip(("--blur_dir", "--sharp_dir"), sides, SIDES, strict=True):
        if not side or "/" in side:
            raise DatasetError(f"{flag} {side!r}: expected a folder's name alone, such as {example}")
    if sides[0] == sides[1] or sides[0].lower() in SHARP_NAMES:
        raise DatasetError(
            f"--blur_dir {sides[0]} names the sharp side; expected the blurry folders' name, such as {SIDES[0]}"
        )


def check_named_sides(base: Path, files: list[Path], sides: Sides, match: Match | None) -> None:
    """Raise `DatasetError` where no pairs were matched in folders that --blur_dir and --sharp_dir name."""
    if match is not None or sides == SIDES:
        return
    folders = sorted({part for file in files for part in file.parts[:-1]})
    known = [part for part in folders if names_a_side(part, (*BLURRY_NAMES, *SHARP_NAMES, *map(str.lower, sides)))]
    found = some([f"{part}/" for part in known or folders], 10) if folders else "images in no folder" * bool(files)
    raise DatasetError(
        f"{base} holds no pairs in {sides[0]}/ and {sides[1]}/, which --blur_dir and --sharp_dir name: found "
        f"{found or 'no images'}. Name folders that are there, or omit the two flags; for images without ground truth "
        f"write unpaired={base}"
    )


def one_sided_note(files: list[Path]) -> list[str]:
    """Return a warning where images that are to be unpaired lie in folders named like the sharp side of pairs."""
    sharp = [str(file) for file in files if any(names_the_sharp_side(part) for part in file.parts[:-1])]
    if not sharp:
        return []
    return [f"WARNING: {len(sharp):,} of the images look like sharp partners and are taken as blurry: {some(sharp, 2)}"]


def alike_folders_note(files: list[Path]) -> list[str]:
    """Return a warning where a place has just two folders, with files of the same names, as two sides of pairs do."""
    for depth in range(max((len(file.parts) for file in files), default=0) - 1):
        folders: dict[Path, dict[str, set[Path]]] = defaultdict(lambda: defaultdict(set))
        for file in (each for each in files if len(each.parts) > depth):
            above, here, below = file.parts[:depth], file.parts[depth], file.parts[depth + 1 :]
            folders[Path(*above)][here if below else ""].add(Path(*below))
        for above, sides in folders.items():
            if len(sides) == 2 and "" not in sides and len(set(map(frozenset, sides.values()))) == 1:
                one, other = sorted(sides)
                return [
                    f"WARNING: {above / one}/ and {above / other}/ hold files of the same names, like the two sides of "
                    "pairs, and all are taken as blurry; if they are pairs, give --blur_dir and --sharp_dir"
                ]
    return []


def check_both_sides(base: Path, files: list[Path], wanted: Sides, unreadable_dirs: dict[Path, str]) -> None:
    """Do not take one side of a paired set, or both sides in a heap, for unpaired images.

    Raises:
        DatasetError: folders below, including `unreadable_dirs`, or the given one itself next to its partner, have the
            name of a side of pairs.
    """

    def is_side(folder: str) -> bool:
        return names_a_side(folder, (*BLURRY_NAMES, *map(str.lower, wanted))) or names_the_sharp_side(folder)

    for path, problem in unreadable_dirs.items():
        if any(map(is_side, path.parts)):
            raise DatasetError(problem)
    sharp_files, blurry_files = (_without_words(files, names) for names in (SHARP_NAMES, BLURRY_NAMES))
    if both := sharp_files.keys() & blurry_files.keys():
        sharp, blurry = (str(files[min(both)]) for files in (sharp_files, blurry_files))
        raise DatasetError(
            f"{base} holds both sides of pairs in one folder ({blurry}, {sharp}): expected them in folders such as "
            f"{wanted[0]}/ and {wanted[1]}/, or a list of pairs. For images without ground truth write unpaired={base}"
        )
    found = {part for file in files for part in file.parts[:-1] if is_side(part)}
    here = base.resolve()
    if is_side(here.name):
        neighbours = {path.name for path in here.parent.iterdir() if path.is_dir() and is_side(path.name)}
        found |= neighbours if len(neighbours) > 1 else set()
    if not found:
        return
    variant = " (or name others with --blur_dir and --sharp_dir)" if wanted[0] not in found else ""
    raise DatasetError(
        f"{base} holds, or is one of, {', '.join(f'{name}/' for name in sorted(found))}, but these are not both "
        f"sides of pairs here: expected a folder with {wanted[0]}/ and {wanted[1]}/, or {known_pairs()}{variant}."
        f"{_advice_if_unsure(base, found)} For images without ground truth write unpaired={base}"
    )


def check_one_benchmark(base: Path, files: list[Path], kind: str | None) -> None:
    """Do not take several benchmarks that lie in one folder, or in folders of it, for one set, unless it is "paired".

    Raises:
        DatasetError: two folders of pairs, one or two levels down, have the names of different ones.
    """
    folders: dict[Path, str] = {}
    for file in files:
        for depth, part in enumerate(file.parts[:2]):
            if any(names_a_side(below, (*BLURRY_NAMES, *SHARP_NAMES)) for below in file.parts[depth + 1 : -1]) and (
                named := kind_named(part.lower())
            ):
                folders[Path(*file.parts[: depth + 1])] = part.lower() if BENCHMARKS[named].several else named
                break
    if kind == "paired" or len(set(folders.values())) < 2:
        return
    if len(parents := {folder.parent for folder in folders}) == 1:
        each = f"{base / parents.pop()} --sets {' '.join(folder.name for folder in folders)}"
    else:
        each = " ".join(str(base / folder) for folder in folders)
    raise DatasetError(
        f"{base} holds {len(folders)} data sets, {some(list(folders), 10)}: give each by itself, to D_testing.py as "
        f"--testset_dir {each}. All their pairs as one set, with one mean: paired={base}"
    )


def _without_words(files: list[Path], names: set[str]) -> dict[Path, Path]:
    """Return the files of which a word of the name is a side's, by their paths without it."""
    words = {file: file.stem.lower().replace("-", "_").split("_") for file in files}
    return {
        file.with_name("_".join(each for each in words[file] if each not in names) or "_"): file
        for file in files
        if names & {*words[file]}
    }


def _advice_if_unsure(base: Path, folders: set[str]) -> str:
    for layout in LAYOUTS:
        if not layout.sure and {layout.blurry, layout.sharp} <= {folder.lower() for folder in folders}:
            return f" If {layout.blurry}/ is blurry and {layout.sharp}/ its sharp partner, write paired={base}."
    return ""
