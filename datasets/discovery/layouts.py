"""Finding images on disk: which data set and layout a folder has, and the files it holds."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.discovery.benchmarks import known_layouts
from datasets.discovery.header_checks import check_files, combine_problems, compare_with_published_count, skipped_note
from datasets.discovery.kinds import KINDS, WITHOUT_PARTNERS, recognise
from datasets.discovery.layout_table import GAMMA_DIR, SIDES, SPLITS, Sides, known_pairs, layouts_for
from datasets.discovery.listing import DatasetError, images_among, list_files
from datasets.discovery.pair_list import SUFFIXES as LISTS
from datasets.discovery.pair_list import is_list, match_list
from datasets.discovery.pairing import Match, Problem, find_gt, match_gt, match_sides, match_unpaired
from datasets.discovery.side_guards import (
    alike_folders_note,
    check_both_sides,
    check_named_sides,
    check_one_benchmark,
    check_sides,
    one_sided_note,
)
from datasets.discovery.splits import check_split_by_list, list_or_folder, other_split_note, split_folder
from utils.common.errors import counted, some
from utils.images.codecs import SUFFIXES

_SINGLE_FILES = "single files"
_LAYOUTS = (
    *known_layouts(),
    (f"blur/ and sharp/, {known_pairs()}", "any pairs, also as train_blur/ and train_sharp/"),
    ("LIST.txt, two paths a line", "any pairs"),
    ("images at any depth", "any unpaired images"),
)


@dataclass(frozen=True)
class ImageSet:
    """The images of one folder.

    Attributes:
        kind: one of `KINDS`.
        root: the folder as given.
        layout: where the files were found, for the log.
        blurry: the images to restore, sorted; of kind "sharp" the photographs from which pairs are synthesised.
        sharp: their partners in the same order, or None without ground truth.
        names: a relative path for each image, unique in the set and free of the layout's own folder names.
        notes: what the user should know: conversions, unused files, counts that differ from the published ones.
        unreadable_dirs: of photographs to restore, a line for each folder that cannot be opened.
        other_split: whether the names say that these are images of another split than the one asked for.
    """

    kind: str
    root: Path
    layout: str
    blurry: tuple[Path, ...]
    sharp: tuple[Path, ...] | None
    names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    unreadable_dirs: tuple[str, ...] = field(default=())
    other_split: bool = False

    @property
    def paired(self) -> bool:
        """Whether there is ground truth, on disk or by synthesis."""
        return self.sharp is not None or self.synthetic

    @property
    def single_files(self) -> bool:
        """Whether these are single files that were given by their names."""
        return self.layout == _SINGLE_FILES

    @property
    def synthetic(self) -> bool:
        """Whether pairs are synthesised from sharp photographs as they are used."""
        return self.kind == "sharp"

    def __len__(self) -> int:
        return len(self.blurry)

    def describe(self) -> str:
        """Return what was found, and every note, for the log."""
        if self.sharp:
            what = counted(len(self), "pair")
        elif self.synthetic:
            what = counted(len(self), "photograph to blur", "photographs to blur")
        else:
            what = counted(len(self), "image without ground truth", "images without ground truth")
        return "\n  ".join([f"{self.root}: {self.kind}, {what} ({self.layout})", *self.notes])


def parse_source(text: str) -> tuple[str | None, Path]:
    """Split the command line's `kind=path` or bare path; the kind of a bare path is None.

    Raises:
        DatasetError: an unknown kind, or no path.
    """
    if not text:
        raise DatasetError("a data set's path is empty; the working directory is '.'")
    kind, separator, path = text.partition("=")
    if not separator or os.sep in kind:
        return None, Path(text).expanduser()
    if kind not in KINDS:
        raise DatasetError(
            f"{text}: unknown kind {kind!r}, expected one of {', '.join(KINDS)} (kind=path); for a path with an equals "
            f"sign write .{os.sep}{text}"
        )
    if not path:
        raise DatasetError(f"{text} names no folder; expected {kind}=PATH")
    return kind, Path(path).expanduser()


def find_images(root: Path, split: str, kind: str | None = None, sides: Sides = SIDES) -> ImageSet:
    """Find the images of one split of a data set, paired with their ground truth where there is any.

    Args:
        root: the folder that holds train/ and test/, one of these two, or a plain folder.
        split: "train" or "test": which of the two is used where the folder holds them.
        kind: one of `KINDS`, or None to recognise it.
        sides: names of the folders of blurry and of sharp images, see `layouts_for`; GoPro also has blur_gamma.

    Raises:
        DatasetError: no such folder, no images, another layout; or, all of them in one message: files without
            partner, pairs of unequal size, files that cannot be read or do not have 8 bits a channel.
    """
    image_set, problems = scan_dataset(root, split, kind, sides)
    if problems:
        raise DatasetError(combine_problems(problems))
    return image_set


def pictures(paths: Sequence[Path]) -> ImageSet:
    """Return a set of single files without ground truth, at least one; the files are not opened."""
    names = tuple(path.name for path in paths)
    if len(set(names)) < len(names):
        names = tuple(Path(*path.absolute().parts[1:]).as_posix() for path in paths)
    return ImageSet("unpaired", paths[0], _SINGLE_FILES, tuple(paths), None, names)


def scan_dataset(
    root: Path, split: str, kind: str | None = None, sides: Sides = SIDES, look_at_unpaired: bool = True
) -> tuple[ImageSet, list[Problem]]:
    """Find the images as `find_images` does; return the set of those that are valid, and all problems.

    Args:
        root: see `find_images`, as `split`, `kind` and `sides`.
        split: see there.
        kind: see there.
        sides: see there.
        look_at_unpaired: read the headers of images without ground truth, too, and refuse folders among them that
            cannot be opened.

    Raises:
        DatasetError: no such folder, no images, a folder that cannot be opened, or an ambiguous layout.
    """
    if not root.is_dir() and not is_list(root):
        found = "is a file" if root.exists() else "does not exist"
        raise DatasetError(
            f"{root} {found}; expected the folder of a data set, or a list of pairs ({', '.join(LISTS)})"
        )
    check_sides(sides)
    root = list_or_folder(root, split, kind, sides)
    unreadable_dirs: dict[Path, str] = {}
    base, everything, match, notes = _find_match(root, split, kind, sides, unreadable_dirs)
    if unreadable_dirs and (match is None or match.sharp is not None or look_at_unpaired):
        raise DatasetError(next(iter(unreadable_dirs.values())))
    if match is None:
        raise _unknown(base, images_among(everything), kind, skipped_note(everything))
    recognised = recognise(root, match)
    kind = recognised if kind is None or recognised == f"{kind}_jpeg" else kind  # reds= also of its reds_jpeg
    other_split = [*other_split_note(root, split), *match.split_notes]
    problems: list[Problem] = []
    conversions: list[str] = []
    if look_at_unpaired or match.sharp is not None:
        problems, conversions = check_files(match.blurry, match.sharp)
    notes += [
        *other_split,
        *match.notes,
        *skipped_note(everything),
        *conversions,
        *(_unused(match) if match.sharp is not None else _images_outside_split(root, base)),
        *_other_variant(match),
        *compare_with_published_count(kind, split, len(match.blurry)),
    ]
    image_set = ImageSet(
        kind, root, match.layout, match.blurry, match.sharp, match.names, tuple(notes),
        tuple(unreadable_dirs.values()), bool(other_split),
    )  # fmt: skip
    return image_set, [*match.problems, *problems]


def _find_match(
    root: Path, split: str, kind: str | None, sides: Sides, unreadable_dirs: dict[Path, str]
) -> tuple[Path, list[Path], Match | None, list[str]]:
    """Return the folder that is searched, its files, what they are by the first layout that fits, and notes."""
    if root.is_file():
        if kind in WITHOUT_PARTNERS:
            raise DatasetError(f"{kind}={root}: a list of pairs is of kind paired, or of a data set of pairs")
        return root.parent, [], match_list(root), []
    if kind in WITHOUT_PARTNERS:
        everything = list_files(root, unreadable_dirs)
        files = images_among(everything)
        return root, everything, match_unpaired(root, files), [] if kind == "sharp" else one_sided_note(files)
    base = split_folder(root, split)
    everything = list_files(base, unreadable_dirs)
    files = images_among(everything)
    check_one_benchmark(base, files, kind)
    match = match_sides(base, files, split, layouts_for(sides, kind, split))
    check_split_by_list(base, files, split, kind, match)
    check_named_sides(base, files, sides, match)
    if match is None and kind in (None, "hide", "paired") and (gt := find_gt(root)) is not None:
        match = match_gt(base, files, gt)
    if match is None and kind is None:
        check_both_sides(base, files, sides, unreadable_dirs)
        return base, everything, match_unpaired(base, files), alike_folders_note(files)
    return base, everything, match, []


def _unused(match: Match) -> list[str]:
    """Return a note on images other than the pairs, such as GoPro's blur_gamma."""
    left = [str(file) for file in match.unused]
    return [f"not used: {counted(len(left), 'image')} in other folders ({some(left, 2)})"] if left else []


def _images_outside_split(root: Path, base: Path) -> list[str]:
    """Return a note on images without ground truth outside the split's folder, which are not used."""
    if base == root:
        return []
    files = images_among(list_files(root, unreadable_dirs={}))
    left = [str(file) for file in files if file.parts[0] not in (*SPLITS, base.name)]
    count = counted(len(left), "image")
    message = f"not used: {count} outside {base.name}/ ({some(left, 2)}); to use all, give unpaired={root}"
    return [message] if left else []


def _other_variant(match: Match) -> list[str]:
    if GAMMA_DIR not in match.sides:
        return []
    return [f"the blurry images are those of {GAMMA_DIR}/; the published numbers are for blur/"]


def _unknown(base: Path, files: list[Path], kind: str | None, skipped: list[str]) -> DatasetError:
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in base.iterdir())
    images = f"{len(files)} images ({some([str(file) for file in files], 2)})" if files else "no images"
    layouts = "\n".join(f"  {layout:46} {what}" for layout, what in _LAYOUTS)
    return DatasetError(
        f"{base} holds no {f'{kind} ' if kind else ''}images in a layout that is known. Found: "
        f"{some(entries) or 'nothing'}; {images} ({', '.join(SUFFIXES)}). {''.join(f'{note}. ' for note in skipped)}"
        f"Looked for:\n{layouts}"
    )
