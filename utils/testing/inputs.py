"""The inputs of a test run: image sets, single images and videos, each with its output path."""

import argparse
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import SPLITS, DatasetError, ImageSet, Sides, list_files, parse_source, pictures, scan_dataset
from datasets.discovery.header_checks import combine_problems
from datasets.discovery.listing import images_among
from datasets.discovery.pair_list import SUFFIXES as LISTS
from datasets.discovery.pair_list import is_list
from utils.common.errors import UserError, some
from utils.images.saving import PNG, SaveSettings
from utils.report.names import set_titles
from utils.video import is_video, output_name

_UNMATCHED = ", or the shell found no file of that pattern"


@dataclass(frozen=True)
class InputSet:
    """A set of images to restore.

    Attributes:
        images: the set.
        name: what results call it.
        folder: of its restored images in the folder of all results.
        count: how many are restored, the first ones.
        ending: of the restored images' names.
        title: what tables and messages call it, see `utils.report.names.set_titles`.
    """

    images: ImageSet
    name: str
    folder: Path
    count: int
    ending: str = ".png"
    title: str = ""

    @property
    def stems(self) -> list[str]:
        """Names of all restored images without an ending: of a.jpg a, or a.jpg if there is another a."""
        stems = [str(Path(name).with_suffix("")) for name in self.images.names]
        return stems if len(set(stems)) == len(stems) else list(self.images.names)

    @property
    def outputs(self) -> list[Path]:
        """The restored images in the folder of all results."""
        return [self.folder / f"{stem}{self.ending}" for stem in self.stems[: self.count]]

    @property
    def files(self) -> set[Path]:
        """All files of the set, without links."""
        return {path.resolve() for path in (*self.images.blurry, *(self.images.sharp or ()))}


def find_inputs(
    sources: Sequence[str],
    sides: Sides,
    save_dir: Path,
    limit: int | None,
    set_names: Sequence[str] = (),
    saving: SaveSettings = PNG,
) -> tuple[list[InputSet], dict[Path, Path]]:
    """Return the image sets and pictures that --testset_dir names, and the videos with their output paths.

    Files of photographs are not opened yet.

    Args:
        sources: the texts that --testset_dir was given.
        sides: names of the folders of blurry and of sharp images.
        save_dir: the folder of all results.
        limit: how many images of each set are restored at most.
        set_names: what the results call each source; none for the names of the folders.
        saving: what the names of restored files end in.

    Raises:
        UserError: a folder without images; a set with problems, all of them in one message; or two videos that would be
            restored into one file.
    """
    found: list[InputSet] = []
    image_sets = _find_sets(sources, sides)
    single = any(image_set.single_files for image_set in image_sets)
    taken = {save_dir.name} if single else set()  # results of single files have the name of `save_dir`
    for i, image_set in enumerate(image_sets):
        name, folder = save_dir.name, Path()  # of single files
        if not image_set.single_files:
            name = _free_name(set_names[i] if set_names else _name_of(image_set.root.resolve()), taken)
            taken, folder = {*taken, name}, Path(name)
        count = min(len(image_set), limit or len(image_set))
        found.append(InputSet(image_set, name, folder, count, saving.ending))
    titles = set_titles({each.name: each.images.kind for each in found})
    found = [replace(each, title=titles[each.name]) for each in found]
    return found, _find_videos(sources, found, saving.suffix)


def _find_sets(sources: Sequence[str], sides: Sides) -> list[ImageSet]:
    """Return the image sets and pictures that --testset_dir names; files of photographs are not opened yet.

    A folder with only videos is a set without images.
    """

    def is_single(path: Path) -> bool:
        return path.is_file() and not is_list(path)

    parsed = [parse_source(text) for text in sources]
    if sharp := [str(path) for kind, path in parsed if kind == "sharp"]:
        raise UserError(f"sharp={sharp[0]} is for training; to restore such photographs give unpaired={sharp[0]}")
    if kinds := [f"{kind}={path}" for kind, path in parsed if kind not in (None, "unpaired") and is_single(path)]:
        raise UserError(f"{kinds[0]} is a single file, which is restored without ground truth; give it without a kind")
    files = [path for _, path in parsed if is_single(path) and not is_video(path)]
    image_sets = [pictures(list(dict.fromkeys(files)))] if files else []
    for kind, path in parsed:
        if not path.exists():
            raise UserError(
                f"{path} does not exist{_UNMATCHED * ('*' in path.name)}; expected a picture, a video, the folder of a "
                f"data set or of pictures, or a list of pairs ({', '.join(LISTS)})"
            )
        if not is_single(path):
            image_sets.append(_find_set(path, kind, sides))
    return image_sets


def _find_set(folder: Path, kind: str | None, sides: Sides) -> ImageSet:
    try:
        image_set, problems = scan_dataset(folder, "test", kind, sides, look_at_unpaired=False)
    except DatasetError:
        unreadable_dirs: dict[Path, str] = {}
        files = list_files(folder, unreadable_dirs) if kind in (None, "unpaired") and folder.is_dir() else []
        if images_among(files) or not any(map(is_video, files)):
            raise
        image_set = ImageSet(
            "unpaired", folder, "videos at any depth", (), None, (), unreadable_dirs=tuple(unreadable_dirs.values())
        )
        problems = []
    if problems:
        way_out = f"To restore all pictures of it, whatever the folders are called: unpaired={folder}"
        raise UserError(combine_problems(problems, way_out if kind is None and folder.is_dir() else ""))
    videos = len(_videos_in(image_set))
    note = f"{videos:,} video{'s are' if videos > 1 else ' is'} also restored"
    return replace(image_set, notes=(*image_set.notes, note)) if videos and len(image_set) else image_set


def _videos_in(image_set: ImageSet) -> list[Path]:
    """Return the videos among photographs, relative to their folder; data sets have none."""
    own = image_set.kind == "unpaired" and image_set.root.is_dir()
    return [file for file in list_files(image_set.root, unreadable_dirs={}) if is_video(file)] if own else []


def _find_videos(sources: Sequence[str], inputs: Sequence[InputSet], suffix: str) -> dict[Path, Path]:
    """Return the videos that are given or lie among photographs, each with its output path."""
    given = [path for _, path in map(parse_source, sources) if path.is_file() and is_video(path)]
    found = {path: Path(output_name(path, suffix)) for path in given}
    for name in dict.fromkeys(found.values()):
        if len(alike := [str(path) for path in found if found[path] == name]) > 1:
            raise UserError(
                f"{some(alike)} would all be restored as {name}; restore them in runs with a --save_dir each"
            )
    for each in inputs:
        inside = _videos_in(each.images)
        names = [file.parent / output_name(file, suffix) for file in inside]
        if len(set(names)) < len(names):  # as pictures are then named
            names = [f.parent / f"{f.name}{suffix}{name.suffix}" for f, name in zip(inside, names, strict=True)]
        for file, name in zip(inside, names, strict=True):
            found.setdefault(each.images.root / file, each.folder / name)
    return found


def parse_folder(text: str) -> Path:
    """Return the folder that an argument names, as a path that ends in a name for the results."""
    path = Path(text)
    return path.resolve() if path.name in ("", "..") else path


def parse_suffix(text: str) -> str:
    """Return an addition to the names of files.

    Raises:
        argparse.ArgumentTypeError: a path.
    """
    if os.sep in text or "/" in text:
        raise argparse.ArgumentTypeError(f"expected a part of a file's name, without folders, got {text!r}")
    return text


def _name_of(root: Path) -> str:
    """Return a name for the results of a folder's set, or of a list's."""
    if is_list(root):
        return root.stem
    return f"{root.parent.name}_{root.name}" if root.name in SPLITS else root.name


def _free_name(name: str, taken: set[str]) -> str:
    """Return a unique name for a set's results."""
    numbered = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
    return next(each for each in numbered if each not in taken)
