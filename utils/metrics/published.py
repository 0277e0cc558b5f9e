"""Published results on GoPro's and HIDE's test sets, trained on GoPro, for comparison."""

from dataclasses import dataclass
from typing import Any

_RESTORMER_TABLE = "PSNR on 8 bits, SSIM as MATLAB's (ssim_matlab)"
_PAPER = "PSNR on floats (psnr_float), SSIM with a data range of 2 (ssim_released)"
_UNKNOWN = "that of its source, not checked"


@dataclass(frozen=True)
class Published:
    """A method's results.

    Attributes:
        method: its name.
        gopro: PSNR in dB and SSIM on GoPro's 1,111 test images; None for a number that was not found.
        hide: the same on HIDE's 2,025.
        protocol: how the numbers were computed.
        source: where they stand.
    """

    method: str
    gopro: tuple[float | None, float | None]
    hide: tuple[float | None, float | None]
    protocol: str
    source: str


PUBLISHED = (
    Published("ASPDC, before fine-tuning", (31.97, 0.957), (29.98, 0.944), _PAPER, "arXiv:2106.14336"),
    Published("ASPDC, fine-tuned", (32.09, 0.959), (30.04, 0.945), _PAPER, "arXiv:2106.14336"),
    Published("DeblurGAN-v2", (29.55, 0.934), (26.61, 0.875), _UNKNOWN, "its README; HIDE: arXiv:2111.09881"),
    Published("MIMO-UNet+", (32.45, 0.957), (None, None), _UNKNOWN, "github.com/chosj95/MIMO-UNet"),
    Published("MPRNet", (32.66, 0.959), (30.96, 0.939), _RESTORMER_TABLE, "arXiv:2111.09881"),
    Published("Restormer", (32.92, 0.961), (31.22, 0.942), _RESTORMER_TABLE, "arXiv:2111.09881"),
    Published("Stripformer", (33.08, 0.962), (None, None), _UNKNOWN, "github.com/pp00704831/Stripformer-ECCV-2022-"),
    Published("NAFNet-64", (33.71, 0.9668), (None, None), _UNKNOWN, "github.com/megvii-research/NAFNet"),
    Published("FFTformer", (34.21, 0.969), (31.62, None), _UNKNOWN, "CVPR 2023"),
    Published("AdaRevD", (34.60, None), (None, None), _UNKNOWN, "arXiv:2406.09135"),
)


def published_on(kind: str) -> list[dict[str, Any]]:
    """Return the published results on a kind of set, "gopro" or "hide"; none for others."""
    if kind not in ("gopro", "hide"):
        return []
    rows = [(each, getattr(each, kind)) for each in PUBLISHED]
    return [
        {"method": each.method, "psnr": psnr, "ssim": ssim, "protocol": each.protocol, "source": each.source}
        for each, (psnr, ssim) in rows
        if psnr is not None
    ]
