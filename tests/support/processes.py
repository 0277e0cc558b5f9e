"""The scripts in processes of their own: run to their end, joined by torchrun, or sent a signal."""

import os
import signal
import subprocess
import sys

from tests.support.samples import ROOT
from tests.support.training import STAGE, arguments


def run_script(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


def torchrun(*command: str, processes: int = 2) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*launcher, *command], cwd=ROOT, env=environment, start_new_session=True, **pipes)


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def interrupt(tmp_path, moment: str, workers: str, number: int = signal.SIGINT, more: tuple[str, ...] = ()):
    """Start training, send a signal once a line holds `moment`; return the exit status and the rest of the output."""
    command = ["DR_training.py", *arguments(tmp_path, *STAGE, "--overwrite", "--num_workers", workers, *more)]
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell's background jobs, and what they start, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stdout:
            if moment in line:
                break
        os.killpg(process.pid, number)  # as a terminal does: to the workers, too
        rest = process.stdout.read()
        return process.wait(60), rest
