"""Restoring the images of a set at full size and scoring them: the same for testing and for validation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets import ImageSet
from models.blocks import MIN_SIZE
from utils.images.codecs import UnreadableError, read_image
from utils.images.conversion import float_image_of, to_tensor, to_uint8
from utils.images.photographs import Picture, read_picture
from utils.metrics.scorer import Scorer
from utils.runtime.precision import autocast

Network = Callable[..., Tensor]
Scores = dict[str, float]


@dataclass(frozen=True)
class Decoded:
    """An image of a set: the blurry picture, and the sharp one, H×W×3 uint8, or None without ground truth."""

    blurry: Picture
    sharp: np.ndarray | None

    @property
    def both(self) -> np.ndarray:
        """The blurry and the sharp image as one of six channels, see `JoinedInputs`."""
        assert self.sharp is not None
        return np.concatenate([self.blurry.pixels, self.sharp], axis=2)


class JoinedInputs(nn.Module):
    """A network of two images, such as a reblurring one, that gets them as one of six channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network makes of the first and the last three channels of (N, 6, H, W)."""
        return self.network(*(each.contiguous(memory_format=torch.channels_last) for each in images.split(3, dim=1)))


def decode(image_set: ImageSet, index: int) -> Decoded:
    """Read an image of a set; images without ground truth with their metadata.

    Raises:
        UnreadableError: a file cannot be read, or is too small for the networks.
    """
    path = image_set.blurry[index]
    picture = read_picture(path) if image_set.sharp is None else Picture(read_image(path))
    check_min_size(path, picture.pixels)
    return Decoded(picture, None if image_set.sharp is None else read_image(image_set.sharp[index]))


def check_min_size(path: Path, image: np.ndarray) -> None:
    """Raise `UnreadableError` for an H×W×3 image, read from a file, that is too small for the networks."""
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIZE:
        raise UnreadableError(f"{path} is {width}×{height} px; the networks need at least {MIN_SIZE}×{MIN_SIZE}")


def restore(network: Network, images: np.ndarray, device: torch.device, precision: str = "fp32") -> np.ndarray:
    """Return what a network makes of images, see `start_restoring`."""
    return start_restoring(network, images, device, precision)()


@torch.inference_mode()
def start_restoring(
    network: Network, images: np.ndarray, device: torch.device, precision: str = "fp32"
) -> Callable[[], np.ndarray]:
    """Return a function that returns what a network makes of images as float32 in [0, 1], and waits for the GPU.

    Args:
        network: on the device.
        images: one, H×W×C, or several, N×H×W×C, uint8 or uint16.
        device: where to compute.
        precision: one of `utils.runtime.precision.PRECISIONS`.

    Returns:
        of H×W×3, or N×H×W×3.
    """
    single = images.ndim == 3
    with autocast(precision, device):
        restored = float_image_of(network(to_tensor(images[None] if single else images, device)))
    return (lambda: restored()[0]) if single else restored


def check_result(output: np.ndarray, name: str) -> None:
    """Refuse a network's output with NaN, which would be black; infinite values are 0 or 1 by now.

    Args:
        output: H×W×3 float32 in [0, 1].
        name: of the blurry file, for the error.

    Raises:
        UnreadableError: it has some.
    """
    if np.isnan(output.sum()):
        raise UnreadableError(f"the network's result for {name} is not finite; give --precision fp32, or other weights")


def score_both(
    scorer: Scorer, image: Decoded, output: np.ndarray, name: str, reblurs: bool = False
) -> tuple[Scores, Scores]:
    """Return the scores of the blurry image against the sharp one, and of the output against what it should be.

    Args:
        scorer: of an image and its reference, or None.
        image: the pair.
        output: H×W×3 float32 in [0, 1].
        name: of the blurry file, for errors.
        reblurs: the output should be the blurry image, not the sharp one.

    Raises:
        UnreadableError: the sizes do not fit, or are too small for a metric.
    """
    pixels = image.blurry.pixels
    blurry = pixels if pixels.dtype == np.uint8 else to_uint8(pixels / np.float32(np.iinfo(pixels.dtype).max))
    try:
        return scorer(blurry, image.sharp), scorer(output, blurry if reblurs else image.sharp)
    except ValueError as error:
        raise UnreadableError(f"{name} cannot be scored: {error}") from error
