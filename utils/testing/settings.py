"""Settings of a test run; see the flags of D_testing.py with these names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.images.saving import PNG, SaveSettings


@dataclass(frozen=True)
class NetworkSettings:
    """What makes the restored images: networks, or the folder of another method's."""

    save_dir: Path
    weights: Sequence[Path]
    from_results: Path | None = None
    modulation: str = "auto"
    deform_op: str = "auto"
    precision: str = "fp32"
    tile: int | Literal["auto"] | None = "auto"
    tile_overlap: int = 320
    self_ensemble: bool = False


@dataclass(frozen=True)
class RunSettings:
    """Where results go and how, which images are restored, and what may be written over."""

    save_dir: Path
    resume: bool = False
    overwrite: bool = False
    limit: int | None = None
    num_workers: int = 1
    figures: int = 0
    figure_blocks: Sequence[int] = ()
    precision: str = "fp32"
    saving: SaveSettings = PNG
