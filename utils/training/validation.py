"""Validation of a network in training: full images, distributed over the ranks, scored as in D_testing.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from datasets import ImageSet
from models import DeblurringNet, ReblurringNet
from utils.common.errors import UserError
from utils.common.memory import out_of_memory
from utils.common.signals import Interruption
from utils.images.conversion import side_by_side, to_uint8
from utils.inference.evaluation import Decoded, JoinedInputs, decode, score_both
from utils.inference.restorer import Restorer
from utils.metrics.scorer import Scorer
from utils.runtime.distributed import DistributedContext

VALIDATED = ("psnr", "psnr_float", "ssim")  # metrics
INPUT = "psnr_input"  # PSNR of the blurry images against the sharp ones, which is that of the sharp against the blurry


@dataclass(frozen=True)
class Validation:
    """The result of a validation.

    Attributes:
        means: over the images of all sets, by metric, with `INPUT`; empty if an image did not fit into memory.
        strips: an image strip of the first image of each set.
        too_large: files that did not fit into memory.
    """

    means: dict[str, float]
    strips: dict[str, np.ndarray]
    too_large: Sequence[str] = ()


def validate(
    network: DeblurringNet | ReblurringNet,
    image_sets: Sequence[ImageSet],
    distributed: DistributedContext,
    precision: str,
    *,
    recorded: bool,
    stop: Interruption,
    log: Callable[[str], None],
) -> Validation | None:
    """Score a network on all images of paired sets; all ranks must call this, and get the same means.

    Args:
        network: on the rank's device; a reblurring network is scored against the blurry images. If memory is
            short, images are restored in tiles.
        image_sets: with ground truth.
        distributed: the ranks; each image is restored by one of them.
        precision: one of `utils.runtime.precision.PRECISIONS`.
        recorded: use a CUDA graph for consecutive images of one size.
        stop: checked before each image; a request on any rank ends the validation.
        log: gets a line when tiles become smaller.

    Returns:
        the same scores and strips on every rank; None if it was ended.

    Raises:
        UserError: an image cannot be read or scored.
    """
    scorer, reblurs = Scorer(VALIDATED, distributed.device), isinstance(network, ReblurringNet)
    images = [(image_set, i) for image_set in image_sets for i in range(len(image_set))]
    own: list[tuple[int, dict[str, float]]] = []
    strips: dict[str, np.ndarray] = {}
    too_large: list[str] = []
    with Restorer(
        JoinedInputs(network) if reblurs else network,
        network.arguments["width"],
        distributed.device,
        precision,
        may_shrink=True,
        recorded=recorded,
        log=log,
    ) as restorer:
        restorer.compile_kernels(distributed, 6 if reblurs else 3)
        for position in range(distributed.rank, len(images), distributed.world_size):
            if stop.requested is not None:
                break
            image_set, i = images[position]
            path = str(image_set.blurry[i])
            try:
                image = decode(image_set, i)
                output = restorer(image.both if reblurs else image.blurry.pixels)
                if np.isnan(output.sum()):  # infinite values are 0 or 1 by now
                    raise UserError(
                        f"validation: the network's result for {path} is not finite, it has diverged. Go back to a "
                        "state before, --stage STAGE --resume OUTPUT_DIR/states/STAGE/step-N.pth --overwrite, with a "
                        "lower --lr or --clip_grad; if --precision is fp16, fp32 may be all that is needed"
                    )
                before, after = score_both(scorer, image, output, path, reblurs)
                own.append((position, {**after, INPUT: before["psnr"]}))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                too_large.append(path)
                continue
            if i == 0:
                strips[f"{image_set.root.name}: {image_set.names[0]}"] = _strip(image, output)
    gathered = distributed.gather((own, strips, too_large))
    if large := [path for *_, paths in gathered for path in paths]:
        return Validation({}, {}, large)
    scores = dict(pair for scored, *_ in gathered for pair in scored)
    if len(scores) < len(images):
        return None
    means = {name: fmean(scores[position][name] for position in sorted(scores)) for name in (*VALIDATED, INPUT)}
    return Validation(means, {name: strip for _, found, _ in gathered for name, strip in found.items()})


def _strip(image: Decoded, output: np.ndarray) -> np.ndarray:
    """Return blurry | output | sharp, at most 1920 px wide in all."""
    assert image.sharp is not None
    row = side_by_side([image.blurry.pixels, to_uint8(output), image.sharp])
    return row[:: (step := -(-row.shape[1] // 1920)), ::step]
