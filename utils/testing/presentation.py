"""What people look at after a test run: figures for publications, and the page with every image."""

from collections.abc import Sequence
from pathlib import Path

import torch

from datasets import ImageSet
from models import DeblurringNet
from utils.common.errors import UserError
from utils.common.files import exists, name_too_long
from utils.inference.restorer import Restorer
from utils.report.figure_files import figure_files
from utils.report.page import Source, write_report
from utils.testing.inputs import output_names
from utils.testing.result_files import PreviousRun
from utils.testing.results import Results
from utils.testing.saved_results import SavedResults
from utils.testing.settings import RunSettings
from utils.testing.sources import ResultSource

FIGURES = "figures"


def _figure_paths(image_set: ImageSet, output_dir: Path, settings: RunSettings) -> list[Path]:
    """Return what the figures of a set's first images begin with: folders and names of the restored images."""
    count = min(settings.figures, settings.limit or settings.figures)
    folder = settings.save_dir / FIGURES / output_dir.relative_to(settings.save_dir)
    return [folder / Path(name).with_suffix("") for name in output_names(image_set.names)[:count]]


def _networks(sources: Sequence[ResultSource]) -> dict[str, DeblurringNet]:
    """Return the networks among methods by what stands above their figures."""
    return {
        _label(each): each.restorer.network
        for each in sources
        if isinstance(each.restorer, Restorer) and isinstance(each.restorer.network, DeblurringNet)
    }


def _label(source: ResultSource) -> str:
    return source.name or "restored"


def check_no_figure_overwrite(
    sources: Sequence[ResultSource],
    image_sets: Sequence[ImageSet],
    output_dirs: Sequence[Path],
    settings: RunSettings,
    previous: PreviousRun,
) -> None:
    """Do not write figures over what is read, nor over those of another run.

    Args:
        sources: what will restore the images.
        image_sets: what is read.
        output_dirs: each one's folder where there is one method alone.
        settings: of the run.
        previous: what the run goes on with, with its figures.

    Raises:
        UserError: a file would be written over.
    """
    inputs = {path.resolve() for image_set in image_sets for path in (*image_set.blurry, *(image_set.sharp or ()))}
    names = list(_networks(sources))
    for image_set, output_dir in zip(image_sets, output_dirs, strict=True):
        paths = _figure_paths(image_set, output_dir, settings)
        saved = [each for each in sources if isinstance(each.restorer, SavedResults)]
        for source in saved:
            inputs |= {path.resolve() for path in source.outputs(image_set, output_dir, settings.save_dir, len(paths))}
        for path in (file for each in paths for file in figure_files(each, names)):
            if path.resolve() in inputs:
                raise UserError(f"{path} is one of the files to restore; give a --save_dir elsewhere")
            if exists(path) and not (settings.overwrite or (settings.resume and previous.settings is not None)):
                raise UserError(f"{path} exists already; give --overwrite to replace it, or another --save_dir")


def write_set_figures(
    sources: Sequence[ResultSource],
    image_set: ImageSet,
    output_dir: Path,
    settings: RunSettings,
    device: torch.device,
) -> list[str]:
    """Write the figures of a set's first images, of those that all methods restored.

    Args:
        sources: what restored the images.
        image_set: the set.
        output_dir: its folder where there is one method alone.
        settings: of the run.
        device: of the networks.

    Returns:
        what was wrong with those left out.
    """
    from utils.report.figures import (
        write_figures,  # matplotlib: half a second that runs without figures do not wait for
    )

    paths, problems = _figure_paths(image_set, output_dir, settings), []
    outputs = {_label(each): each.outputs(image_set, output_dir, settings.save_dir, len(paths)) for each in sources}
    for i, path in enumerate(paths):
        restored = {label: files[i] for label, files in outputs.items()}
        if all(exists(file) for file in restored.values()):
            blurry, sharp = image_set.blurry[i], image_set.sharp[i] if image_set.sharp else None
            try:
                write_figures(
                    path,
                    blurry,
                    restored,
                    sharp,
                    _networks(sources),
                    settings.figure_blocks,
                    device,
                    settings.precision,
                )
            except UserError as error:
                if not name_too_long(error):
                    raise
                problems.append(f"{error}: the name of {blurry} has to be shorter")
    return problems


def write_page(
    sources: Sequence[ResultSource], image_sets: Sequence[ImageSet], output_dirs: Sequence[Path], results: Results
) -> None:
    """Write report.html beside the results.

    Args:
        sources: what restored the images.
        image_sets: the sets.
        output_dirs: each one's folder where there is one method alone.
        results: of all of them.
    """
    pictures: dict[tuple[str, str], Source] = {}
    for image_set, output_dir in zip(image_sets, output_dirs, strict=True):
        sharp = image_set.sharp or [None] * len(image_set)
        for name, blurry, truth in zip(image_set.names, image_set.blurry, sharp, strict=True):
            pictures |= {(source.set_name(output_dir.name), name): Source(blurry, truth) for source in sources}
    write_report(results.folder, results.rows, results.sets, results.settings, pictures, results.problems)
