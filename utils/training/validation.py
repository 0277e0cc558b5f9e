"""Validation of a network in training: full images, shared out over the ranks, scored as D_testing.py scores them."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from torch import nn

from datasets import ImageSet
from models import cached_kernel_weights
from utils.common.signals import Interruption
from utils.images.codecs import side_by_side, to_uint8
from utils.inference.evaluation import Decoded, decode, restore, score_both
from utils.metrics.scorer import Scorer
from utils.runtime.cuda_graph import CudaGraph
from utils.runtime.distributed import DistributedContext

METRICS = ("psnr", "psnr_float", "ssim")


@dataclass(frozen=True)
class Validation:
    """Means over the images of all sets, by metric, and a picture strip of the first image of each set."""

    means: dict[str, float]
    strips: dict[str, np.ndarray]


def validate(
    network: nn.Module,
    image_sets: Sequence[ImageSet],
    distributed: DistributedContext,
    precision: str,
    *,
    reblurs: bool,
    recorded: bool,
    stop: Interruption,
) -> Validation | None:
    """Score a network on all images of paired sets; every rank has to call this and gets the same means.

    Args:
        network: on the rank's device.
        image_sets: with ground truth.
        distributed: each of them restores every world-th image, none of them twice.
        precision: one of `utils.runtime.precision.PRECISIONS`.
        reblurs: the network makes the blurry image of both, not the sharp one of the blurry.
        recorded: replay a recording of the network where several images of a size follow one another.
        stop: looked at before each image; a request on any rank ends the validation.

    Returns:
        the same scores and strips on every rank; None where it was ended.

    Raises:
        UserError: an image cannot be read or scored.
    """
    scorer = Scorer(METRICS, distributed.device)
    images = [(image_set, i) for image_set in image_sets for i in range(len(image_set))]
    own: list[tuple[int, dict[str, float]]] = []
    strips: dict[str, np.ndarray] = {}
    with (
        cached_kernel_weights(network),  # a recording must not outlive them
        CudaGraph(network, warmup=1) if recorded else nullcontext(network) as forward,
    ):
        for position in range(distributed.rank, len(images), distributed.world_size):
            if stop.requested is not None:
                break
            image_set, i = images[position]
            image = decode(image_set, i)
            assert image.sharp is not None  # sets without ground truth are refused
            others = [image.sharp] if reblurs else []
            output = restore(forward, image.blurry.pixels, distributed.device, precision, *others)
            own.append((position, score_both(scorer, image, output, str(image_set.blurry[i]), reblurs)[1]))
            if i == 0:
                strips[f"{image_set.root.name}: {image_set.names[0]}"] = _strip(image, output)
    gathered = distributed.gather((own, strips))
    scores = dict(pair for scored, _ in gathered for pair in scored)
    if len(scores) < len(images):
        return None
    means = {name: fmean(scores[position][name] for position in sorted(scores)) for name in METRICS}
    return Validation(means, {name: strip for _, found in gathered for name, strip in found.items()})


def _strip(image: Decoded, output: np.ndarray) -> np.ndarray:
    """Return blurry | output | sharp, at most 1920 px wide in all."""
    assert image.sharp is not None
    row = side_by_side([image.blurry.pixels, to_uint8(output), image.sharp])
    return row[:: (step := -(-row.shape[1] // 1920)), ::step]
