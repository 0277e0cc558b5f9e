"""LPIPS and NIQE as pyiqa computes them, where it is installed; their weights come from the internet at first use."""

import textwrap
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

from utils.common.errors import UserError
from utils.images.conversion import to_uint8
from utils.metrics.numpy_metrics import check_shapes, check_values

INSTALL = "make perceptual (for non-commercial use only, see docs/install.md)"
MIN_SIDES = {"lpips": 31, "niqe": 96}  # px: what AlexNet's strides leave something of, a block


class Perceptual:
    """LPIPS (v0.1, AlexNet; Zhang et al. 2018) or NIQE (Mittal et al. 2013) of images rounded to 8 bits.

    Args:
        name: "lpips" or "niqe".
        device: where to compute.

    Raises:
        UserError: pyiqa is not installed, or its weights are neither on disk nor to be had.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        # On CUDA a run may allow TF32, which has three digits; products of float64 are never shortened.
        self._dtype = torch.float64 if device.type == "cuda" else torch.float32
        self._network = _load(name).to(device, self._dtype)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, reference: np.ndarray | None = None) -> float:
        """Return the metric of an H×W×3 image, uint8 or float in [0, 1]; LPIPS against its reference.

        Raises:
            ValueError: shapes or value ranges do not fit, or the image is too small, or too uniform for NIQE.
        """
        check_shapes(image, image if reference is None else reference)
        least, (height, width) = MIN_SIDES[self.name], image.shape[:2]
        if min(height, width) < least:
            raise ValueError(f"{self.name.upper()} needs at least {least}×{least} px, got {height}×{width}")
        if self.name == "lpips":
            assert reference is not None
            return self._network(self._to_device(_tensor(image)), self._to_device(_tensor(reference))).item()
        from pyiqa.utils.color_util import to_y_channel  # pyright: ignore[reportMissingImports] (optional)

        # Its luma is rounded, and ties are common: computed in one place, they fall the same way on every device.
        luma = to_y_channel(_tensor(image), 255.0) / 255.0
        try:
            value = self._network(self._to_device(luma)).item()
        # How NaN shows in every block's features. The name is PyTorch's documented one, which its types hide.
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            value = float("nan")
        if not np.isfinite(value):
            raise ValueError("NIQE is not defined for an image without any texture")
        return value

    def _to_device(self, values: Tensor) -> Tensor:
        return values.to(self.device, self._dtype)


def _tensor(image: np.ndarray) -> Tensor:
    """Return an image as pyiqa reads it from a PNG: (1, 3, H, W) float32 in [0, 1] of 8-bit values."""
    check_values(image)
    return torch.from_numpy(np.ascontiguousarray(to_uint8(image))).permute(2, 0, 1)[None].float() / 255.0


def _load(name: str) -> nn.Module:
    """Return pyiqa's network for a metric."""
    try:
        import pyiqa  # pyright: ignore[reportMissingImports] (optional)
    except ImportError as error:
        raise UserError(f"--metrics {name} needs pyiqa ({error}); install it with: {INSTALL}") from error
    try:
        return pyiqa.create_metric(name, device=torch.device("cpu")).net
    except Exception as error:  # of the connection, or of any library that reads the files
        reason = textwrap.shorten(str(error), 200)
        raise UserError(f"--metrics {name}: {_what_is_missing(name)} ({reason})") from error


def _what_is_missing(name: str) -> str:
    """Say which of a metric's files could not be downloaded and where they belong, or else which cannot be read."""
    files = {url: folder / Path(urlparse(url).path).name for url, folder in _weights(name).items()}
    if missing := [f"{url} as {path}" for url, path in files.items() if not path.exists()]:
        return f"its weights could not be downloaded; fetch them by other means and save {' and '.join(missing)}"
    return f"its weights cannot be read; remove {' and '.join(map(str, files.values()))} to download them again"


def _weights(name: str) -> dict[str, Path]:
    """Return the addresses of a metric's files with the folders where pyiqa and torchvision look for them."""
    from pyiqa.archs import lpips_arch, niqe_arch  # pyright: ignore[reportMissingImports] (optional)
    from pyiqa.utils import download_util  # pyright: ignore[reportMissingImports] (optional)
    from torchvision.models import AlexNet_Weights

    folder = Path(download_util.DEFAULT_CACHE_DIR)
    if name == "niqe":
        return {niqe_arch.default_model_urls["niqe"]: folder}
    alexnet = AlexNet_Weights.IMAGENET1K_V1.url
    return {alexnet: Path(torch.hub.get_dir()) / "checkpoints", lpips_arch.default_model_urls["0.1_alex"]: folder}
