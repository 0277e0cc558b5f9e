"""The log of a training run: arguments, text, TensorBoard curves, a table, image strips."""

import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue] (generated)
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.common.errors import UserError, counted, some
from utils.common.files import atomic_write
from utils.images.codecs import encode_png
from utils.images.conversion import side_by_side, to_float_image, to_uint8
from utils.training.checkpointing import Resumed
from utils.training.curves import Curves, Row
from utils.training.progress import Progress
from utils.training.validation import INPUT

Item = TypeVar("Item")

AnyLog = TypeVar("AnyLog", bound="Log")

_STRIP_ROWS = 3
_STEPS, _SECONDS, _SKIPPED = "steps", "seconds", "steps skipped"  # among the losses' sums


@dataclass
class _Times:
    """Times of a step by `time.perf_counter`: start of waiting for its batch, start and end of the step."""

    waiting_since: float
    start: float
    end: float | None = None

    def until_now(self) -> float:
        return self.end or time.perf_counter()


class Log:
    """What a run logs to. This one, of ranks other than the main one, records nothing; `RunLog` does."""

    folder: Path | None = None
    sums: Mapping[str, float] = MappingProxyType({})
    steps_skipped = 0

    def line(self, text: str) -> None:
        """Record a line of text."""

    def batches(self, loader: Iterable[Item]) -> Iterator[Item]:
        """Yield an epoch's batches."""
        yield from loader

    def step(self, step: int, losses: dict[str, float], norm: float, lr: float) -> None:
        """Record a step that changed the weights."""

    def skipped(self, text: str, lr: float) -> None:
        """Record a step that did not change the weights."""

    def epoch(self, progress: Progress, blurry: Tensor, output: Tensor, sharp: Tensor, left_out: int) -> None:
        """Record the end of an epoch, or of the part that was done."""

    def validation(self, step: int, means: dict[str, float], strips: dict[str, np.ndarray], best: bool) -> None:
        """Record a validation."""

    def close(self) -> None:
        """Write what is left."""

    def __enter__(self: AnyLog) -> AnyLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # Report the error that ended the run, not one of closing the log, such as a full disk.
        with nullcontext() if kind is None else suppress(UserError, OSError):
            self.close()


class RunLog(Log):
    """The log folder of a stage's run, and a progress bar.

    The folder holds `arguments.json`, `log.txt`, `log.csv`, `curves.png` and TensorBoard's events. A resumed run
    continues an existing folder: all that was logged after `done_steps` is replaced, except in `log.txt`.

    Args:
        folder: see `new_run_folder`.
        stage: the training stage.
        record: content of `arguments.json`.
        total_steps: last step.
        done_steps: steps done before.
        sums: of losses, steps and seconds of the current epoch of a resumed run, and of all skipped steps, see
            `RunLog.sums`.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        record: dict[str, Any],
        total_steps: int,
        done_steps: int = 0,
        sums: dict[str, float] | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        name = "arguments.json"
        if done_steps and (folder / name).exists():
            name = f"arguments-from-step-{done_steps}.json"
        with atomic_write(folder / name) as path:
            path.write_text(json.dumps(record, indent=2, default=str))
        self._stage = stage
        self._text = (folder / "log.txt").open("a", encoding="utf-8", errors="surrogateescape")
        self._board = SummaryWriter(str(folder), purge_step=done_steps + 1)
        data = [Path(text).name or text for text in record.get("arguments", {}).get("trainset_dir", ())]
        title = f"{folder.name}{': ' if data else ''}{some(data, 3)}"
        self._curves = Curves(folder, done_steps, title.encode(errors="backslashreplace").decode())
        self._bar = tqdm(total=total_steps, initial=done_steps, desc=stage, unit="step", dynamic_ncols=True)
        self._epoch_start = time.perf_counter()
        self._times: deque[_Times] = deque()  # of steps that are not recorded yet
        self._lr = 0.0
        self._sums: Counter[str] = Counter(sums or {})
        self._steps = int(self._sums.pop(_STEPS, 0))
        self._seconds_before = self._sums.pop(_SECONDS, 0.0)
        self.steps_skipped = int(self._sums.pop(_SKIPPED, 0))

    @property
    def sums(self) -> dict[str, float]:  # pyright: ignore[reportIncompatibleVariableOverride] (of a plain attribute)
        """The sums from which the means of the current epoch are computed, and all skipped steps, for the state."""
        seconds = self._seconds_before + time.perf_counter() - self._epoch_start
        sums: dict[str, float] = {_SKIPPED: self.steps_skipped} if self.steps_skipped else {}
        return sums | ({**self._sums, _STEPS: self._steps, _SECONDS: seconds} if self._steps else {})

    def line(self, text: str) -> None:
        """Print a line and add it to log.txt at once."""
        tqdm.write(f"{self._stage}: {text}")
        self._text.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {self._stage}: {text}\n")
        self._text.flush()

    def batches(self, loader: Iterable[Item]) -> Iterator[Item]:
        """Yield an epoch's batches, timing how long each was waited for."""
        waiting_since = self._epoch_start = time.perf_counter()
        for batch in loader:
            self._times.append(times := _Times(waiting_since, time.perf_counter()))
            yield batch
            waiting_since = times.end = time.perf_counter()

    def step(self, step: int, losses: dict[str, float], norm: float, lr: float) -> None:
        """Record a step that changed the weights: losses, the gradient's norm, learning rate, and its times in s."""
        last = self._times.popleft()
        times = {"time/data": last.start - last.waiting_since, "time/step": last.until_now() - last.start}
        curves = {f"loss/{name}": value for name, value in losses.items()} | times
        numbers = curves | {"gradient norm": norm, "lr": lr}
        self._add_event(step, [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])
        self._sums.update(losses)
        self._steps += 1
        self._lr = lr
        self._bar.set_postfix(loss=f"{losses['total']:.4f}", lr=f"{lr:.1e}", refresh=False)  # not at every step
        self._bar.update()

    def skipped(self, text: str, lr: float) -> None:
        """Record a step that did not change the weights."""
        self._times.popleft()
        self._lr = lr
        self._bar.update()
        self.steps_skipped += 1
        self.line(text)

    def epoch(self, progress: Progress, blurry: Tensor, output: Tensor, sharp: Tensor, left_out: int) -> None:
        """Record the end of an epoch, or of the part that was done.

        Args:
            progress: after the last step.
            blurry: images of the last batch, (N, 3, H, W).
            output: the network's output for them.
            sharp: their ground truth.
            left_out: number of images that this process could not read; logged if not 0, as skipped steps are.
        """
        self._check_folder()
        complete, step = progress.samples_seen == 0, progress.step
        epoch = progress.epoch + (not complete)
        means = {name: total / max(self._steps, 1) for name, total in self._sums.items()}
        seconds = self._seconds_before + time.perf_counter() - self._epoch_start
        text = ", ".join(f"{name} {mean:.5f}" for name, mean in means.items()) or "none"
        wrong = {"step": self.steps_skipped, "image": left_out}
        skipped = "".join(f", {counted(count, noun)} skipped" for noun, count in wrong.items() if count)
        self.line(f"epoch {epoch}, step {step:,}: loss {text}, learning rate {self._lr:.3g}, {seconds:.1f} s{skipped}")
        losses = {"loss" if name == "total" else f"loss_{name}": mean for name, mean in means.items()}
        numbers: Row = {"epoch": epoch, **losses, "lr": self._lr, "seconds": round(seconds, 3)}
        self._curves.add(step, numbers | {"steps_skipped": self.steps_skipped, "images_left_out": left_out})
        if complete:
            self._sums.clear()
            self._steps, self._seconds_before = 0, 0.0
        columns = {"blurry": blurry, f"{self._stage} output": output, "sharp": sharp}
        rows = zip(*(batch[:_STRIP_ROWS] for batch in columns.values()), strict=True)
        strips = []
        for i, row in enumerate(rows):
            strip = side_by_side([to_uint8(to_float_image(image.nan_to_num())) for image in row])
            height, width, _ = strip.shape
            # A tenth of the time of `add_image`, while the GPU waits.
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_png(strip))
            strips.append(Summary.Value(tag=f"{' | '.join(columns)}/{i}", image=image))
        self._add_event(step, strips)

    def _check_folder(self) -> None:
        """Raise `UserError` where the log folder is gone: the next file would make a new one, without the others."""
        assert self.folder is not None
        if not self.folder.is_dir():
            raise UserError(
                f"the log folder {self.folder} was deleted while the run writes in it; continue with --resume auto, "
                "and leave it there until the end"
            )

    def _add_event(self, step: int, values: Sequence[Summary.Value]) -> None:
        """Add one TensorBoard event with several values: each event costs the main thread as much."""
        assert self._board.file_writer is not None  # until it is closed
        self._check_folder()  # TensorBoard's thread would end with a traceback
        self._board.file_writer.add_summary(Summary(value=values), step)

    def validation(self, step: int, means: dict[str, float], strips: dict[str, np.ndarray], best: bool) -> None:
        """Record the scores of a validation and its picture strips, blurry | output | sharp.

        Args:
            step: after which it was.
            means: by metric, see `utils.training.validation.Validation`.
            strips: by name.
            best: whether it is the best so far.
        """
        self._check_folder()
        before = {"psnr": f" (input {means[INPUT]:.4f})"} if INPUT in means else {}
        scores = (f"{name} {mean:.4f}{before.get(name, '')}" for name, mean in means.items() if name != INPUT)
        self.line(f"validation, step {step:,}: {', '.join(scores)}{', the best so far' if best else ''}")
        for name, mean in means.items():
            self._board.add_scalar(f"validation/{name}", mean, step)
        for name, strip in strips.items():
            tag = name.encode(errors="backslashreplace").decode()  # of a file name that is not UTF-8
            self._board.add_image(f"validation/{tag}", strip, step, dataformats="HWC")
        self._curves.add(step, {f"val_{name}": mean for name, mean in means.items()})

    def close(self) -> None:
        """Close the progress bar and the files, and draw the curves.

        Raises:
            OSError, UserError: one of them cannot be written; the others are closed nevertheless.
        """
        with ExitStack() as stack:
            for close in (self._text.close, self._board.close, self._bar.close):
                stack.callback(close)
            if self.folder is not None and self.folder.is_dir():  # drawing would make it anew
                stack.callback(self._curves.draw)


def open_log(log_dir: Path, stage: str, record: dict[str, Any], last_step: int, resumed: Resumed, is_main: bool) -> Log:
    """Return the log of a stage's run: in the folder of the resumed run if that is in `log_dir`, else in a new one."""
    if not is_main:
        return Log()
    folder = resumed.log
    if folder is None or not folder.is_dir() or folder.parent.resolve() != log_dir.resolve():
        folder = new_run_folder(log_dir, stage)
    log = RunLog(folder, stage, record, last_step, resumed.progress.step, resumed.sums)
    for note in resumed.notes:
        log.line(note)
    return log


def new_run_folder(log_dir: Path, stage: str) -> Path:
    """Make a folder for a run, named by the stage and the time, so that no earlier run is overwritten."""
    return _new_folder(log_dir, f"{stage}_{datetime.now():%Y%m%d-%H%M%S}")


def _new_folder(parent: Path, name: str) -> Path:
    """Create a folder that did not exist, even if another run creates one of that name at the same time."""
    folder, i = parent / name, 0
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            i += 1
            folder = parent / f"{name}-{i}"
