"""Published results on test sets, for comparison: of networks trained on GoPro, and on REDS of networks of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RESTORMER_TABLE = "PSNR on 8 bits, SSIM as MATLAB's (ssim_matlab)"
_PAPER = "PSNR on floats (psnr_float), SSIM with a data range of 2 (ssim_released)"
_MMAGIC = "PSNR on 8 bits (psnr), standard SSIM (ssim)"
_UNKNOWN = "that of its source, not checked"
_ALIGNED = "aligned, as RealBlur's authors (psnr_aligned, ssim_aligned)"
_NOT_ALIGNED = "not aligned: other numbers than RealBlur's protocol gives (psnr)"
_REDS = "300 of val's images, with JPEG (val_blur_jpeg); trained on REDS"

Score = tuple[float, float | None]
IMAGES = {"reds_jpeg": 300}  # that published results are of, by kind of set, where these are not the whole test set


@dataclass(frozen=True)
class Published:
    """A method's results in a table.

    Attributes:
        method: its name.
        scores: PSNR in dB and SSIM by kind of set: on GoPro's 1,111 test images, HIDE's 2,025, RealBlur-J's and -R's
            980; None for an SSIM that was not found.
        protocol: how the numbers were computed.
        source: where they stand.
    """

    method: str
    scores: Mapping[str, Score]
    protocol: str
    source: str


def _sets(gopro: Score, hide: Score | None = None) -> dict[str, Score]:
    return {"gopro": gopro} | ({} if hide is None else {"hide": hide})


def _realblur(r: Score, j: Score) -> dict[str, Score]:
    return {"realblur_r": r, "realblur_j": j}


PUBLISHED = (
    Published("ASPDC, before fine-tuning", _sets((31.97, 0.957), (29.98, 0.944)), _PAPER, "arXiv:2106.14336"),
    Published("ASPDC, fine-tuned", _sets((32.09, 0.959), (30.04, 0.945)), _PAPER, "arXiv:2106.14336"),
    Published("DeblurGAN-v2", _sets((29.55, 0.934), (26.61, 0.875)), _UNKNOWN, "its README; HIDE: arXiv:2111.09881"),
    Published("MIMO-UNet+", _sets((32.45, 0.957)), _UNKNOWN, "github.com/chosj95/MIMO-UNet"),
    Published("MPRNet", _sets((32.66, 0.959), (30.96, 0.939)), _RESTORMER_TABLE, "arXiv:2111.09881"),
    Published("Restormer", _sets((32.92, 0.961), (31.22, 0.942)), _RESTORMER_TABLE, "arXiv:2111.09881"),
    Published("Stripformer", _sets((33.08, 0.962)), _UNKNOWN, "github.com/pp00704831/Stripformer-ECCV-2022-"),
    Published("NAFNet-64", _sets((33.71, 0.9668)), _RESTORMER_TABLE, "github.com/megvii-research/NAFNet"),
    Published("NAFNet-64, by MMagic", _sets((33.7246, 0.9479)), _MMAGIC, "github.com/open-mmlab/mmagic"),
    Published("FFTformer", _sets((34.21, 0.969), (31.62, None)), _UNKNOWN, "CVPR 2023"),
    Published("AdaRevD", _sets((34.60, None)), _UNKNOWN, "arXiv:2406.09135"),
    Published("SRN", _realblur((35.66, 0.947), (28.56, 0.867)), _ALIGNED, "PromptRestorer (NeurIPS 2023), table 2"),
    Published("MIMO-UNet+", _realblur((35.54, 0.947), (27.63, 0.837)), _ALIGNED, "PromptRestorer, table 2"),
    Published("MPRNet", _realblur((35.99, 0.952), (28.70, 0.873)), _ALIGNED, "PromptRestorer, table 2"),
    Published("Restormer", _realblur((36.19, 0.957), (28.96, 0.879)), _ALIGNED, "PromptRestorer, table 2"),
    Published(
        "MPRNet, not aligned", _realblur((33.914, 0.9425), (26.515, 0.8240)), _NOT_ALIGNED, "EnsIR (NeurIPS 2024)"
    ),
    Published(
        "Restormer, not aligned", _realblur((33.984, 0.9463), (26.626, 0.8274)), _NOT_ALIGNED, "EnsIR (NeurIPS 2024)"
    ),
    Published("MPRNet", {"reds_jpeg": (28.79, 0.811)}, _REDS, "arXiv:2204.04676, table 9"),
    Published("HINet", {"reds_jpeg": (28.83, 0.862)}, _REDS, "arXiv:2204.04676, table 9"),
    Published("MAXIM", {"reds_jpeg": (28.93, 0.865)}, _REDS, "arXiv:2204.04676, table 9"),
    Published("NAFNet-64", {"reds_jpeg": (29.09, 0.867)}, _REDS, "arXiv:2204.04676, table 9"),
)


def published_on(kind: str) -> list[dict[str, Any]]:
    """Return the published results on a kind of set, one of those in `Published.scores`; none for others."""
    rows = [(each, *each.scores[kind]) for each in PUBLISHED if kind in each.scores]
    return [
        {"method": each.method, "psnr": psnr, "ssim": ssim, "protocol": each.protocol, "source": each.source}
        for each, psnr, ssim in rows
    ]
