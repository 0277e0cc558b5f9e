"""What a step of `DR_training.py` takes in a run of the script itself, beside the recorded step alone."""

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from threading import Thread

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datasets import find_images
from models.checkpoint import STAGE_FILES
from utils.common.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_SAMPLE_EVERY = 100  # ms


@dataclass(frozen=True)
class StageRun:
    """A stage in a run.

    Attributes:
        stage: its name.
        step: mean seconds between two steps, of the last three quarters.
        busy: percentage of that time in which the GPU worked, as its driver says; None if unknown.
    """

    stage: str
    step: float
    busy: float | None


def run_training(
    frames: Path, batch: int, size: int, precision: str, device: torch.device, steps: int, processes: int
) -> list[StageRun]:
    """Train the three stages for a number of steps each, with a cache and the log, in one epoch.

    Args:
        frames: a data set.
        batch: patches a step and process.
        size: of the patches in px.
        precision: number format.
        device: with several processes a GPU for each, or the CPU.
        steps: of each stage.
        processes: that share the work.

    Raises:
        UserError: the script failed.
    """
    pairs = len(find_images(frames, "train"))
    with tempfile.TemporaryDirectory(prefix="training-") as folder, _gpu_samples(device) as samples:
        command = [
            *(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] * (processes > 1)),
            *("DR_training.py", "--stage", "all", "--max_steps", str(steps), "--batch_size", str(batch * processes)),
            *("--trainset_dir", f"{math.ceil((steps + 1) * batch * processes / pairs)}*{frames.resolve()}"),
            *("--patch_size", str(size), "--precision", precision, "--device", str(device.type)),
            *("--cache_dir", f"{folder}/cache", "--output_dir", f"{folder}/nets", "--log_dir", f"{folder}/log"),
        ]
        result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            raise UserError(f"DR_training.py ended with status {result.returncode}: {result.stderr[-2000:]}")
        return [_stage_run(stage, next(Path(folder, "log").glob(f"{stage}_*")), samples()) for stage in STAGE_FILES]


def _stage_run(stage: str, log: Path, samples: list[tuple[float, float]]) -> StageRun:
    events = EventAccumulator(str(log), size_guidance={"scalars": 0}).Reload().Scalars("loss/total")
    events = events[len(events) // 4 :]  # after the first, which compile and record
    first, last = events[0], events[-1]
    busy = [share for at, share in samples if first.wall_time <= at <= last.wall_time]
    step = (last.wall_time - first.wall_time) / (last.step - first.step)
    return StageRun(stage, step, fmean(busy) if busy else None)


@contextmanager
def _gpu_samples(device: torch.device) -> Iterator[Callable[[], list[tuple[float, float]]]]:
    """Yield a function that returns when, and in what percentage of the time before, the first GPU has worked."""
    samples: list[tuple[float, float]] = []
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
    if device.type != "cuda":
        yield lambda: samples
        return
    with subprocess.Popen([*query, "-lms", str(_SAMPLE_EVERY)], stdout=subprocess.PIPE, text=True) as process:

        def read() -> None:
            for line in process.stdout or ():
                with suppress(ValueError):
                    samples.append((time.time(), float(line)))

        Thread(target=read, daemon=True).start()
        yield lambda: samples
        process.kill()


def print_runs(runs: list[StageRun], recorded: dict[str, float], what: str) -> None:
    """Print a line for each stage.

    Args:
        runs: the stages of a run.
        recorded: seconds of the step alone, by stage.
        what: the work and the device.
    """
    print(what)
    print(f"{'stage':10}{'step in a run':>15}{'step alone':>12}{'ratio':>8}{'GPU busy':>10}")
    for run in runs:
        alone = recorded[run.stage]
        busy = "unknown" if run.busy is None else f"{run.busy:.0f} %"
        times = f"{run.step * 1000:12.2f} ms{alone * 1000:9.2f} ms"
        print(f"{run.stage:10}{times}{run.step / alone:8.3f}{busy:>10}")
