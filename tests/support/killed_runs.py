"""Run as a script: train in new processes and kill them at random moments, twenty times, then let one end.

python -m tests.support.killed_runs WHOLE KILLED prints the statuses of the killed ones, -9 where SIGKILL came in time.
Imports take seconds and a run of this size less, so this process imports once, starts no thread, and forks.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from tests.support.training import STAGE, pairs, train


def start(folder: Path, *more: str) -> int:
    """Start training in a process of its own; return its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        torch.set_num_threads(1)
        train(folder, *STAGE, "--n_epochs", "40", "--save_every", "1steps", *more, trainset=(str(pairs(folder)),))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(process: int) -> int:
    """Return how a process ended: its status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(whole: Path, killed: Path) -> None:
    """Train once without a kill, and once with twenty."""
    assert wait(start(whole)) == 0
    rng = random.Random(0)
    for _ in range(20):
        process = start(killed, "--resume", "auto")
        time.sleep(rng.uniform(0.2, 1.2))
        os.kill(process, signal.SIGKILL)
        print("killed:", wait(process), flush=True)
    assert wait(start(killed, "--resume", "auto")) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
