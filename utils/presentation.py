"""What people look at after a test run: figures for publications, and the page with every image."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from datasets import ImageSet
from utils.figures import write_figures
from utils.files import exists
from utils.methods import Method
from utils.report import Source, write_report
from utils.restoration import Restorer
from utils.results import Results

FIGURES = "figures"


def write_set_figures(
    methods: Sequence[Method], image_set: ImageSet, place: Path, args: argparse.Namespace, device: torch.device
) -> None:
    """Write the figures of a set's first images, of those that all methods restored.

    Args:
        methods: what restored the images.
        image_set: the set.
        place: its folder where there is one method alone.
        args: of D_testing.py.
        device: of the networks.
    """
    count = min(args.figures, len(image_set), args.limit or len(image_set))
    labels = [method.name or "restored" for method in methods]
    outputs = [method.outputs(image_set, place, args.save_dir, count) for method in methods]
    networks = {
        label: method.restorer.network
        for label, method in zip(labels, methods, strict=True)
        if isinstance(method.restorer, Restorer)
    }
    for i in range(count):
        restored = {label: files[i] for label, files in zip(labels, outputs, strict=True)}
        if all(exists(file) for file in restored.values()):
            path = args.save_dir / FIGURES / place.name / Path(image_set.names[i]).with_suffix("")
            blurry, sharp = image_set.blurry[i], image_set.sharp[i] if image_set.sharp else None
            write_figures(path, blurry, restored, sharp, networks, args.figure_blocks, device, args.precision)


def write_page(
    methods: Sequence[Method], image_sets: Sequence[ImageSet], places: Sequence[Path], results: Results
) -> None:
    """Write report.html beside the results.

    Args:
        methods: what restored the images.
        image_sets: the sets.
        places: each one's folder where there is one method alone.
        results: of all of them.
    """
    sources: dict[tuple[str, str], Source] = {}
    for image_set, place in zip(image_sets, places, strict=True):
        sharp = image_set.sharp or [None] * len(image_set)
        for name, *pair in zip(image_set.names, image_set.blurry, sharp, strict=True):
            sources |= {(method.set_name(place.name), name): Source(*pair) for method in methods}
    write_report(results.folder, results.rows, results.sets, results.settings, sources)
