"""What a training run leaves behind: arguments, a text log, TensorBoard curves and picture strips."""

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
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

Batch = dict[str, Tensor]

_STRIP_ROWS = 3


class RunLog:
    """A new folder for one stage of one run, and a progress bar.

    The folder holds `arguments.json`, `log.txt` and TensorBoard's events.

    Args:
        log_dir: where the folder is made; its name is the stage and the time, so that no earlier run is touched.
        stage: the training stage.
        arguments: the script's arguments.
        total_steps: where the progress bar ends.
        done_steps: where it begins.
    """

    def __init__(
        self, log_dir: Path, stage: str, arguments: dict[str, Any], total_steps: int, done_steps: int = 0
    ) -> None:
        self.folder = _new_folder(log_dir, f"{stage}_{datetime.now():%Y%m%d-%H%M%S}")
        versions = {
            "aspdc": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        }
        record = {"command": sys.argv, "arguments": arguments, "versions": versions}
        with atomic_write(self.folder / "arguments.json") as path:
            path.write_text(json.dumps(record, indent=2, default=str))
        self._stage = stage
        self._text = (self.folder / "log.txt").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(self.folder))
        self._bar = tqdm(total=total_steps, initial=done_steps, desc=stage, unit="step", dynamic_ncols=True)
        self._epoch_start = self._step_start = time.perf_counter()
        self._data_time = self._lr = 0.0
        self._sums: Counter[str] = Counter()
        self._steps = 0

    def line(self, text: str) -> None:
        """Print a line and add it to log.txt at once."""
        tqdm.write(f"{self._stage}: {text}")
        self._text.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {self._stage}: {text}\n")
        self._text.flush()

    def batches(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """Yield an epoch's batches, timing how long each was waited for."""
        waiting_since = self._epoch_start = time.perf_counter()
        for batch in loader:
            self._step_start = time.perf_counter()
            self._data_time = self._step_start - waiting_since
            yield batch
            waiting_since = time.perf_counter()

    def step(self, step: int, losses: dict[str, Tensor], lr: float) -> dict[str, float]:
        """Record a step's losses (scalars), its learning rate and its times in s; return the losses as numbers."""
        values = {
            name: loss.item() for name, loss in losses.items()
        }  # waits for the device, so that the times are true
        times = {"time/data": self._data_time, "time/step": time.perf_counter() - self._step_start}
        for name, value in ({f"loss/{name}": value for name, value in values.items()} | times | {"lr": lr}).items():
            self._board.add_scalar(name, value, step)
        self._sums.update(values)
        self._steps += 1
        self._lr = lr
        self._bar.update()
        self._bar.set_postfix(loss=f"{values['total']:.4f}", lr=f"{lr:.1e}")
        return values

    def epoch(self, epoch: int, step: int, columns: dict[str, Tensor]) -> None:
        """End an epoch: a line with its mean losses, and a picture strip with a column per (N, 3, H, W) batch."""
        means = ", ".join(f"{name} {total / self._steps:.5f}" for name, total in self._sums.items())
        seconds = time.perf_counter() - self._epoch_start
        self.line(f"epoch {epoch}, step {step:,}: loss {means}, learning rate {self._lr:.3g}, {seconds:.1f} s")
        self._sums.clear()
        self._steps = 0
        rows = zip(*(batch[:_STRIP_ROWS] for batch in columns.values()), strict=True)
        for i, row in enumerate(rows):
            pictures = [to_uint8(to_float_image(image)) for image in row]
            self._board.add_image(f"{' | '.join(columns)}/{i}", side_by_side(pictures), step, dataformats="HWC")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        self._board.close()
        self._text.close()


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder that did not exist, also where another run makes one of the same name at the same time."""
    folder, i = parent / name, 0
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            i += 1
            folder = parent / f"{name}-{i}"
