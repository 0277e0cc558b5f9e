"""What a training run leaves behind: arguments, a text log, TensorBoard curves and picture strips."""

import json
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.files import atomic_write
from utils.images import side_by_side, to_float_image, to_uint8
from utils.version import __version__

_STRIP_ROWS = 3


class RunLog:
    """A new folder for one stage of one run: `arguments.json`, `log.txt` and TensorBoard's events.

    Args:
        log_dir: where the folder is made; its name is the stage and the time, so that no earlier run is touched.
        stage: the training stage.
        arguments: plain values, written as they are.
    """

    def __init__(self, log_dir: Path, stage: str, arguments: dict[str, Any]) -> None:
        name = f"{stage}_{datetime.now():%Y%m%d-%H%M%S}"
        self.folder = next(
            folder for i in range(1000) if not (folder := log_dir / (f"{name}-{i}" if i else name)).exists()
        )
        self.folder.mkdir(parents=True)
        versions = {
            "aspdc": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        }
        with atomic_write(self.folder / "arguments.json") as path:
            path.write_text(json.dumps({"command": sys.argv, "arguments": arguments, "versions": versions}, indent=2))
        self._text = (self.folder / "log.txt").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(self.folder))

    def line(self, text: str) -> None:
        """Print a line and add it to log.txt at once."""
        tqdm.write(text)
        self._text.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")
        self._text.flush()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add one value per curve at a step."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def strip(self, step: int, columns: dict[str, Tensor]) -> None:
        """Add a picture strip: one row an image, one column per batch of (N, 3, H, W) images in [-1, 1]."""
        rows = [
            side_by_side([to_uint8(to_float_image(image)) for image in row])
            for row in zip(*(batch[:_STRIP_ROWS] for batch in columns.values()), strict=True)
        ]
        for i, row in enumerate(rows):
            self._board.add_image(f"{' | '.join(columns)}/{i}", row, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close everything."""
        self._board.close()
        self._text.close()
