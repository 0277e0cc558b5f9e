"""The visual output of a test run: figures for publications, and a page with all images."""

from collections.abc import Sequence

import torch

from utils.common.errors import UserError
from utils.common.files import exists, name_too_long
from utils.report.page import Source, write_report
from utils.testing.inputs import InputSet
from utils.testing.outputs import figure_paths
from utils.testing.results import Results
from utils.testing.settings import RunSettings
from utils.testing.sources import ResultSource


def write_set_figures(
    sources: Sequence[ResultSource], inputs: InputSet, settings: RunSettings, device: torch.device
) -> list[str]:
    """Write the figures of a set's first images, of those that all methods restored.

    Args:
        sources: what restored the images.
        inputs: the set.
        settings: of the run.
        device: of the networks.

    Returns:
        the problems of skipped figures.
    """
    # matplotlib: half a second that runs without figures do not wait for
    from utils.report.figures import write_figures

    images, problems = inputs.images, []
    outputs = {source.label: source.outputs(inputs) for source in sources}
    networks = {source.label: source.network for source in sources if source.network is not None}
    for i, path in enumerate(figure_paths(inputs, settings)):
        restored = {label: files[i] for label, files in outputs.items()}
        sharp = images.sharp[i] if images.sharp else None
        if not all(exists(file) for file in restored.values()):
            continue
        try:
            write_figures(
                path, images.blurry[i], restored, sharp, networks, settings.figure_blocks, device, settings.precision
            )
        except UserError as error:
            if not name_too_long(error):
                raise
            problems.append(f"{error}: the name of {images.blurry[i]} has to be shorter")
    return problems


def write_page(sources: Sequence[ResultSource], inputs: Sequence[InputSet], results: Results) -> None:
    """Write report.html to the folder of the results."""
    pictures: dict[tuple[str, str], Source] = {}
    for each in inputs:
        images = each.images
        for name, blurry, sharp in zip(images.names, images.blurry, images.sharp or [None] * len(images), strict=True):
            pictures |= {(source.set_name(each), name): Source(blurry, sharp) for source in sources}
    write_report(results.folder, results.rows, results.sets, results.settings, pictures, results.problems)
