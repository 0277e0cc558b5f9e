"""Which metrics there are, which ones a set is scored by, and one call that computes them."""

import argparse
import copy
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch

from utils.metrics.aligned_metrics import ALIGNED, score_aligned
from utils.metrics.numpy_metrics import METRICS, score
from utils.metrics.perceptual import MIN_SIDES, Perceptual
from utils.metrics.torch_metrics import score_on


@dataclass(frozen=True)
class Metric:
    """What there is to know about a metric.

    Attributes:
        label: its name as people write it.
        comparable_with: published numbers that it is comparable with.
        digits: after the point, in tables for people.
        unit: of its values.
        lower_is_better: otherwise higher is.
        needs_reference: whether it compares an image with its sharp partner.
    """

    label: str
    comparable_with: str
    digits: int = 4
    unit: str = ""
    lower_is_better: bool = False
    needs_reference: bool = True


_LUMA, _REALBLUR = "tables of Y alone (BasicSR's test_y_channel)", "RealBlur tables (the authors', MPRNet, Restormer)"
KNOWN = {
    "psnr": Metric("PSNR", "MPRNet, Restormer, NAFNet, Stripformer tables", 2, "dB"),
    "psnr_float": Metric("PSNR-float", "the ASPDC paper", 2, "dB"),
    "ssim": Metric("SSIM", "the standard (Wang et al. 2004, BasicSR)"),
    "ssim_released": Metric("SSIM-released", "the ASPDC paper"),
    "ssim_matlab": Metric("SSIM-MATLAB", "MPRNet, Restormer, NAFNet tables"),
    "psnr_y": Metric("PSNR-Y", _LUMA, 2, "dB"),
    "ssim_y": Metric("SSIM-Y", _LUMA),
    "psnr_aligned": Metric("PSNR-aligned", _REALBLUR, 2, "dB"),
    "ssim_aligned": Metric("SSIM-aligned", _REALBLUR),
    "aligned": Metric("aligned", "the share of images that could be aligned"),
    "lpips": Metric("LPIPS", "LPIPS v0.1 with AlexNet (pyiqa)", lower_is_better=True),
    "niqe": Metric("NIQE", "NIQE (pyiqa)", 2, lower_is_better=True, needs_reference=False),
}
DEFAULT = ("psnr", "psnr_float", "ssim", "ssim_released", "ssim_matlab")  # columns of results that others resume
DEFAULT_OF = {"realblur_j": ALIGNED, "realblur_r": ALIGNED}  # by kind of set: as its authors score it

PRINTED = ("psnr", "psnr_aligned", "ssim", "ssim_aligned")  # of the default ones, those of which papers print tables
OF_FLOATS = ("psnr_float", "ssim_released")  # all others round the image to 8 bits first


def parse_metrics(text: str) -> tuple[str, ...]:
    """Return the metrics that a comma-separated list names, each once; "default" stays, see `metrics_of`.

    Raises:
        argparse.ArgumentTypeError: a name is not known.
    """
    names: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in KNOWN and name != "default":
            raise argparse.ArgumentTypeError(f"{name!r} is not a metric; choose from default, {', '.join(KNOWN)}")
        names[name] = None
    if not names:
        raise argparse.ArgumentTypeError(f"no metric is named; choose from default, {', '.join(KNOWN)}")
    return tuple(names)


def metrics_of(names: Iterable[str], kind: str = "") -> tuple[str, ...]:
    """Return the metrics of a kind of set, each once, where "default" stands for those that its tables are made by.

    Where one of an aligned image is asked for, so is the mark of images that could not be aligned.
    """
    asked = [each for name in names for each in (DEFAULT_OF.get(kind, DEFAULT) if name == "default" else [name])]
    return tuple(dict.fromkeys([*asked, "aligned"] if set(ALIGNED) & set(asked) else asked))


def printed_metrics(kind: str) -> tuple[str, ...]:
    """Return the default metrics of a kind of set that papers print, the main one first."""
    return tuple(name for name in DEFAULT_OF.get(kind, DEFAULT) if name in PRINTED)


def protocol(names: Collection[str], crop_border: int) -> str:
    """Return how images are scored by these metrics, for tables: numbers of another protocol are not comparable."""
    without = f"images without {crop_border} px at each border (published numbers are of whole ones)"
    where = without if crop_border else "whole images"
    aligned = "aligned to the sharp ones as by RealBlur's authors"
    if not set(ALIGNED) & set(names):
        return f"{where}, not aligned"
    return f"{where}, {aligned}" if set(ALIGNED) >= set(names) else f"{where}; psnr_aligned, ssim_aligned: {aligned}"


class Scorer:
    """Scores images by the metrics asked for: on the GPU where the device is one, by OpenCV on the CPU.

    Any thread may call it. On CUDA it allocates memory and waits for results, so no other thread may record a CUDA
    graph meanwhile: `gpu` is held while it computes there.

    Args:
        names: from `KNOWN`, or "default".
        device: where to compute.
        crop_border: px at each border of an image that do not count.

    Attributes:
        names: of the metrics, in the order of the scores.
        gpu: held by the thread that computes on the GPU.

    Raises:
        UserError: pyiqa or its weights are missing.
    """

    def __init__(self, names: Sequence[str], device: torch.device, crop_border: int = 0) -> None:
        self._asked, self.names, self.device, self.crop_border = names, metrics_of(names), device, crop_border
        self.gpu = Lock()
        self._perceptual = {name: Perceptual(name, device) for name in self.names if name in MIN_SIDES}

    def of(self, kind: str) -> "Scorer":
        """Return the scorer of a kind of set, which has its own default metrics."""
        scorer = copy.copy(self)
        scorer.names = metrics_of(self._asked, kind)
        return scorer

    def __call__(self, image: np.ndarray, reference: np.ndarray | None = None) -> dict[str, float]:
        """Return an image's scores by name, without a reference those of the metrics that need none.

        Args:
            image: H×W×3, uint8 or float in [0, 1].
            reference: the same, or None.

        Raises:
            ValueError: shapes or value ranges do not fit, or the image is too small or too uniform for a metric.
        """
        if border := self.crop_border:
            height, width = image.shape[:2]
            if min(height, width) <= 2 * border:
                raise ValueError(f"without {border} px at each border nothing is left of {height}×{width} px")
            image = image[border:-border, border:-border]
            reference = None if reference is None else reference[border:-border, border:-border]
        asked = [name for name in self.names if reference is not None or not KNOWN[name].needs_reference]
        ours, scores = [name for name in asked if name in METRICS], {}
        if reference is not None and set(ALIGNED) & set(asked):
            scores |= score_aligned(image, reference)  # seconds on the CPU: the GPU is not held meanwhile
        on_gpu = self.device.type == "cuda"
        with self.gpu if on_gpu else nullcontext():
            if reference is not None and ours:
                scores |= score_on(self.device, image, reference, ours) if on_gpu else score(image, reference, ours)
            scores |= {name: metric(image, reference) for name, metric in self._perceptual.items() if name in asked}
        return {name: scores[name] for name in asked}
