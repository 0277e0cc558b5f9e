"""Restoring the images of a set at full size and scoring them: the same for testing and for validation."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets import ImageSet
from utils.images import UnreadableError, read_image, to_float_image, to_tensor
from utils.metrics import METRICS, score
from utils.precision import autocast

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class Restored:
    """An image of a set and what a network made of it.

    Attributes:
        blurry: H×W×3 uint8.
        output: H×W×3 float32 in [0, 1].
        sharp: H×W×3 uint8, or None without ground truth.
        before: metrics of the blurry image against the sharp one, by name; empty without ground truth.
        after: metrics of the output against what it should be.
        seconds: what the network took, the transfers included.
    """

    blurry: np.ndarray
    output: np.ndarray
    sharp: np.ndarray | None
    before: dict[str, float]
    after: dict[str, float]
    seconds: float


@torch.inference_mode()
def restore(
    network: Network, image: np.ndarray, device: torch.device, precision: str = "fp32", *others: np.ndarray
) -> np.ndarray:
    """Return what a network makes of an H×W×3 uint8 image, and of others it reads, as H×W×3 float32 in [0, 1]."""
    images = [to_tensor(each).unsqueeze(0).to(device, memory_format=torch.channels_last) for each in (image, *others)]
    with autocast(precision, device):
        return to_float_image(network(*images)[0])


def restore_and_score(
    restorer: Callable[..., np.ndarray],
    image_set: ImageSet,
    index: int,
    metrics: Iterable[str] = METRICS,
    reblurs: bool = False,
) -> Restored:
    """Restore an image of a set and score it where there is ground truth.

    Args:
        restorer: makes an H×W×3 float32 image in [0, 1] of a blurry uint8 one, and of the sharp one where it reblurs.
        image_set: where the image is.
        index: which of its images.
        metrics: names from `utils.metrics.METRICS`.
        reblurs: it is to make the blurry image from both, not the sharp image from the blurry one.

    Raises:
        UnreadableError: an image cannot be read, or is too small for a metric.
    """
    blurry = read_image(image_set.blurry[index])
    sharp = read_image(image_set.sharp[index]) if image_set.sharp else None
    start = time.perf_counter()
    output = restorer(blurry, *([sharp] if reblurs else []))
    seconds = time.perf_counter() - start
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    if sharp is not None:
        try:
            before = score(blurry, sharp, metrics)
            after = score(output, blurry if reblurs else sharp, metrics)
        except ValueError as error:
            raise UnreadableError(f"{image_set.blurry[index]} cannot be scored: {error}") from error
    return Restored(blurry, output, sharp, before, after, seconds)
