"""What a test run reads, and where it writes: sets of images, pictures and videos, none of which is written over."""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import SPLITS, DatasetError, ImageSet, list_files, parse_source, pictures, scan_dataset
from datasets.discovery.header_checks import combine_problems
from datasets.discovery.pairing import images_among
from utils.common.errors import UserError, some
from utils.common.files import exists
from utils.testing.result_files import PreviousRun
from utils.testing.settings import RunSettings
from utils.video.encoder import output_name
from utils.video.reader import is_video


def find_test_sets(sources: Sequence[str], blur_dir: str) -> list[ImageSet]:
    """Return the image sets and pictures that --testset_dir names; of photographs no file is looked at yet.

    A folder that holds videos alone is a set without images.

    Raises:
        UserError: a folder without images, or a set with problems, all of them in one message.
    """
    parsed = [parse_source(text) for text in sources]
    if sharp := [str(path) for kind, path in parsed if kind == "sharp"]:
        raise UserError(f"sharp={sharp[0]} is for training; to restore such photographs give unpaired={sharp[0]}")
    if kinds := [f"{kind}={path}" for kind, path in parsed if kind not in (None, "unpaired") and path.is_file()]:
        raise UserError(f"{kinds[0]} is a single file, which is restored without ground truth; give it without a kind")
    files = [path for _, path in parsed if path.is_file() and not is_video(path)]
    image_sets = [pictures(list(dict.fromkeys(files)))] if files else []
    for kind, path in parsed:
        if not path.is_file():
            image_sets.append(_find_set(path, kind, blur_dir))
    return image_sets


def _find_set(folder: Path, kind: str | None, blur_dir: str) -> ImageSet:
    try:
        image_set, problems = scan_dataset(folder, "test", kind, blur_dir, look_at_unpaired=False)
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
        raise UserError(combine_problems(problems, way_out if kind is None else ""))
    videos = len(_videos_in(image_set))
    note = f"{videos:,} video{'s are' if videos > 1 else ' is'} restored, too"
    return replace(image_set, notes=(*image_set.notes, note)) if videos and len(image_set) else image_set


def _videos_in(image_set: ImageSet) -> list[Path]:
    """Return the videos among somebody's own photographs, relative to their folder; data sets have none."""
    own = image_set.kind == "unpaired" and image_set.root.is_dir()
    return [file for file in list_files(image_set.root, unreadable_dirs={}) if is_video(file)] if own else []


def find_videos(
    sources: Sequence[str], image_sets: Sequence[ImageSet], output_dirs: Sequence[Path]
) -> dict[Path, Path]:
    """Return the videos that --testset_dir names or that lie among photographs, each with its place in the results.

    Args:
        sources: as given to --testset_dir.
        image_sets: what `find_test_sets` found in them.
        output_dirs: where the restored images of each go, relative to the folder of results.

    Raises:
        UserError: two of them would be restored into one file.
    """
    given = [path for _, path in map(parse_source, sources) if path.is_file() and is_video(path)]
    found = {path: Path(output_name(path)) for path in given}
    for name in dict.fromkeys(found.values()):
        if len(alike := [str(path) for path in found if found[path] == name]) > 1:
            raise UserError(
                f"{some(alike)} would all be restored as {name}; restore them in runs with a --save_dir each"
            )
    for image_set, output_dir in zip(image_sets, output_dirs, strict=True):
        inside = _videos_in(image_set)
        names = [file.parent / output_name(file) for file in inside]
        if len(set(names)) < len(names):  # as pictures are then named
            names = [file.parent / f"{file.name}{name.suffix}" for file, name in zip(inside, names, strict=True)]
        for file, name in zip(inside, names, strict=True):
            found.setdefault(image_set.root / file, output_dir / name)
    return found


def parse_folder(text: str) -> Path:
    """Return the folder that an argument names, as a path that ends in its name, which results may bear.

    Raises:
        argparse.ArgumentTypeError: no path.
    """
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, got an empty text; the working directory is '.'")
    path = Path(text)
    return path.resolve() if path.name in ("", "..") else path


def output_names(names: tuple[str, ...]) -> list[str]:
    """Return PNG names for a set: a.jpg becomes a.png, or, where two images would share a name, each a.jpg.png."""
    names_as_png = [f"{Path(name).with_suffix('')}.png" for name in names]
    return names_as_png if len(set(names_as_png)) == len(names) else [f"{name}.png" for name in names]


def result_folders(image_sets: Sequence[ImageSet], save_dir: Path) -> list[Path]:
    """Return a folder of its own for each set's restored images; single files are restored into `save_dir` itself."""
    folders: list[Path] = []
    single = any(image_set.root.is_file() for image_set in image_sets)
    taken = {save_dir / save_dir.name} if single else set()  # single files' results bear the name of `save_dir`
    for image_set in image_sets:
        root = image_set.root.resolve()
        if root.is_file():
            folders.append(save_dir)
            continue
        name = f"{root.parent.name}_{root.name}" if root.name in SPLITS else root.name
        numbered = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
        folders.append(next(save_dir / each for each in numbered if save_dir / each not in {*folders, *taken}))
    return folders


def check_no_overwrite(
    image_sets: Sequence[ImageSet],
    folders: Sequence[Path],
    videos: Mapping[Path, Path],
    video_folder: Path,
    settings: RunSettings,
    previous: PreviousRun,
) -> list[Path]:
    """Do not write over what an earlier run made unless asked to, and never over what is read.

    Args:
        image_sets: what is read.
        folders: where the restored images of each go.
        videos: what is read, too, with the places of the restored ones
        video_folder: in this folder.
        settings: of the run.
        previous: what the run goes on with; it may write again what that one made.

    Returns:
        files that exist and may be written over.

    Raises:
        UserError: a file would be written over.
    """
    inputs = {path.resolve() for image_set in image_sets for path in (*image_set.blurry, *(image_set.sharp or ()))}
    inputs |= {path.resolve() for path in videos}
    for image_set in image_sets:
        for folder in folders:
            if folder.resolve().is_relative_to(image_set.root.resolve()):
                raise UserError(
                    f"{folder} would lie inside {image_set.root}, which is read from; give a --save_dir elsewhere"
                )
    outputs = [
        folder / name
        for image_set, folder in zip(image_sets, folders, strict=True)
        for name in output_names(image_set.names)[: settings.limit]
    ]
    existing: list[Path] = []
    for output in (*outputs, *(video_folder / name for name in videos.values())):
        if output.resolve() in inputs:
            raise UserError(f"{output} is one of the files to restore; give a --save_dir elsewhere")
        if not exists(output):
            continue
        if not (settings.overwrite or (settings.resume and previous.made(output))):
            raise UserError(
                f"{output} exists already, and no results in {settings.save_dir} name it; move it away, or give "
                "another --save_dir, or --overwrite to replace it"
            )
        existing.append(output)
    return existing
