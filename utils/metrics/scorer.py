"""Which metrics there are, and one call that computes those asked for."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utils.metrics.numpy_metrics import COMPARABLE_WITH, METRICS, score
from utils.metrics.perceptual import Perceptual
from utils.metrics.torch_metrics import score_on


@dataclass(frozen=True)
class Metric:
    """What there is to know about a metric.

    Attributes:
        comparable_with: published numbers that it is comparable with.
        lower_is_better: otherwise higher is.
        needs_reference: whether it compares an image with its sharp partner.
    """

    comparable_with: str
    lower_is_better: bool = False
    needs_reference: bool = True


KNOWN = {name: Metric(COMPARABLE_WITH[name]) for name in METRICS} | {
    "lpips": Metric("LPIPS v0.1 with AlexNet (pyiqa)", lower_is_better=True),
    "niqe": Metric("NIQE (pyiqa)", lower_is_better=True, needs_reference=False),
}
DEFAULT = ("psnr", "psnr_float", "ssim", "ssim_released", "ssim_matlab")  # columns of results that others resume


def parse_metrics(text: str) -> tuple[str, ...]:
    """Return the metrics that a comma-separated list names, each once; "default" stands for the five.

    Raises:
        argparse.ArgumentTypeError: a name is not known.
    """
    names: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in KNOWN and name != "default":
            raise argparse.ArgumentTypeError(f"{name!r} is not a metric; choose from default, {', '.join(KNOWN)}")
        names |= dict.fromkeys(DEFAULT if name == "default" else [name])
    if not names:
        raise argparse.ArgumentTypeError(f"no metric is named; choose from default, {', '.join(KNOWN)}")
    return tuple(names)


class Scorer:
    """Scores images by the metrics asked for: on the GPU where the device is one, by OpenCV on the CPU.

    On CUDA it allocates memory and waits for results, so call it where no other thread is recording a CUDA graph.

    Args:
        names: from `KNOWN`.
        device: where to compute.

    Raises:
        UserError: pyiqa or its weights are missing.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names, self.device = tuple(names), device
        self._perceptual = {name: Perceptual(name, device) for name in names if name not in METRICS}

    def __call__(self, image: np.ndarray, reference: np.ndarray | None = None) -> dict[str, float]:
        """Return an image's scores by name, without a reference those of the metrics that need none.

        Args:
            image: H×W×3, uint8 or float in [0, 1].
            reference: the same, or None.

        Raises:
            ValueError: shapes or value ranges do not fit, or the image is too small or too uniform for a metric.
        """
        asked = [name for name in self.names if reference is not None or not KNOWN[name].needs_reference]
        ours = [name for name in asked if name in METRICS]
        scores: dict[str, float] = {}
        if reference is not None and ours and self.device.type == "cuda":
            scores = score_on(self.device, image, reference, ours)
        elif reference is not None and ours:
            scores = score(image, reference, ours)
        scores |= {name: metric(image, reference) for name, metric in self._perceptual.items() if name in asked}
        return {name: scores[name] for name in asked}
