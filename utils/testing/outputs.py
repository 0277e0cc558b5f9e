"""The files that a test run writes, and which of them may be overwritten."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.common.errors import UserError, some
from utils.common.files import exists, remove_stale
from utils.report.figure_files import figure_files
from utils.report.page import FILES
from utils.testing.inputs import InputSet
from utils.testing.result_files import PreviousRun
from utils.testing.settings import RunSettings
from utils.testing.sources import ResultSource

FIGURES = "figures"


def figure_paths(inputs: InputSet, settings: RunSettings) -> list[Path]:
    """Return what the figures of a set's first images begin with: folders and names of the restored images."""
    return [settings.save_dir / FIGURES / path.with_suffix("") for path in inputs.outputs[: settings.figures]]


def check_outputs(
    sources: Sequence[ResultSource],
    inputs: Sequence[InputSet],
    videos: Mapping[Path, Path],
    settings: RunSettings,
    previous: PreviousRun,
) -> list[Path]:
    """Refuse to overwrite results unless requested, and inputs in any case.

    Args:
        sources: restore the images.
        inputs: image sets that are read.
        videos: that are read, with their output paths.
        settings: of the run.
        previous: the run that this one continues, whose files it may replace.

    Returns:
        restored images and videos that exist and may be written over.

    Raises:
        UserError: a file would be written over; or another method's results cannot be scored.
    """
    read = {path.resolve() for path in videos}.union(*(each.files for each in inputs))
    existing: list[Path] = []
    for source in sources:
        if source.saves:
            existing += _check_restored(source, inputs, videos, read, settings, previous)
        else:
            _check_scorable(inputs, videos)
            read |= _saved_pictures(source, inputs)
    networks = [source.label for source in sources if source.network is not None]
    for path in (
        path for each in inputs for start in figure_paths(each, settings) for path in figure_files(start, networks)
    ):
        if path.resolve() in read:
            raise UserError(f"{path} is one of the files to restore; give a --save_dir elsewhere")
        if exists(path) and not (settings.overwrite or (settings.resume and previous.settings is not None)):
            raise UserError(f"{path} exists already; give --overwrite to replace it, or another --save_dir")
    return existing


def _check_scorable(inputs: Sequence[InputSet], videos: Mapping[Path, Path]) -> None:
    if unpaired := [str(each.images.root) for each in inputs if not each.images.paired]:
        raise UserError(f"--from_results scores against sharp images; {unpaired[0]} has none")
    if videos:
        raise UserError("--from_results scores images, not videos")


def _saved_pictures(source: ResultSource, inputs: Sequence[InputSet]) -> set[Path]:
    """Return another method's pictures of all sets; none may be missing, or fit images of two sets."""
    of_set: dict[Path, str] = {}
    for each in inputs:
        for path in source.outputs(each):
            if (other := of_set.setdefault(path.resolve(), each.name)) != each.name:
                raise UserError(
                    f"--from_results: {path} could be of {other} and of {each.name}; put each set's pictures into a "
                    "folder of its name"
                )
    return set(of_set)


def _check_restored(
    source: ResultSource,
    inputs: Sequence[InputSet],
    videos: Mapping[Path, Path],
    read: set[Path],
    settings: RunSettings,
    previous: PreviousRun,
) -> list[Path]:
    for folder in (source.folder / each.folder for each in inputs):
        for root in (each.images.root for each in inputs):
            if folder.resolve().is_relative_to(root.resolve()):
                raise UserError(f"{folder} would lie inside {root}, which is read from; give a --save_dir elsewhere")
    existing: list[Path] = []
    outputs = [path for each in inputs for path in source.outputs(each)]
    outputs += [source.folder / name for name in videos.values()]
    if twice := [str(path) for path, count in Counter(outputs).items() if count > 1]:
        raise UserError(f"{some(twice)} would be written twice, from two inputs; restore them with a --save_dir each")
    for output in outputs:
        if output.resolve() in read:
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


def remove_temporary_files(sources: Sequence[ResultSource], inputs: Sequence[InputSet], save_dir: Path) -> None:
    """Delete what killed processes left in the folders that are written."""
    for source in sources:
        if source.saves:
            # Of --save_dir itself, which may be anyone's folder, nothing further down is looked at.
            folders = {source.folder / each.folder for each in inputs} - {source.folder}
            remove_stale((source.folder,), folders)
    remove_stale((save_dir, save_dir / FILES), (save_dir / FIGURES,))
