"""Every cause in the table of ends, by a real fault: one line, its status, and the state saved where it should be.

A killed rank is among the tests of ranks.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_file
from tests.support.processes import Script, finished, run_script
from tests.support.samples import SAMPLES, save
from tests.support.training import STAGE, arguments, log_lines, pairs, small_disk, states
from utils.runtime.program_end import ENDS, end_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="faults are made as Linux has them")]

# Runs the script in a process in which something is broken from a step on.
BROKEN = """
import os, sys
import DR_training
from utils.runtime.program_end import user_errors_end_the_program
from utils.training.run_log import RunLog
record = RunLog.step
def step(self, number, *rest):
    record(self, number, *rest)
    if number == 3:
        FAULT
RunLog.step = step
with user_errors_end_the_program():
    DR_training.main(DR_training.parse_args(sys.argv[1:]))
"""


def run(folder: Path, *more: str, fault: str = "pass") -> subprocess.CompletedProcess:
    return run_script("-c", BROKEN.replace("FAULT", fault), *arguments(folder, *STAGE, *more))


def check(result: subprocess.CompletedProcess, status: int, line: str, folder: Path, step: int | None) -> None:
    """Check the status, that the end is one line, and after which step a state was saved; None for none."""
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    last = [text for text in result.stderr.replace("\r", "\n").splitlines() if text.strip()][-1]
    assert re.search(line, last), last
    assert [path.stem for path in states(folder)[:1]] == ([] if step is None else [f"step-{step:09}"])


@pytest.mark.parametrize(
    ("fault", "status", "line"),
    [
        ("os.kill(os.getpid(), 2)", 130, "^interrupted$"),
        ("os.kill(os.getpid(), 15)", 143, "^terminated$"),
        ("os.kill(os.getpid(), 1)", 129, "^hung up$"),
        ("raise MemoryError", 2, r"^error: not enough memory .MemoryError.; free some"),
        ("import torch; torch.empty(2**60)", 2, "^error: not enough memory .*can't allocate memory"),
        ("raise OSError(28, 'No space left on device', 'events')", 2, "^error: events cannot be written: No space"),
        ("raise BrokenPipeError", 141, "^error: the reader of the output has ended"),
    ],
)
def test_faults_in_a_step_save_the_state_and_end_in_one_line(tmp_path, fault, status, line):
    result = run(tmp_path, "--n_epochs", "50", fault=fault)
    check(result, status, line, tmp_path, 3)


def test_a_terminal_that_is_gone_saves_the_state(tmp_path):
    """Whatever is written to it then is an error."""
    gone = "import pty; ours, its = pty.openpty(); [os.dup2(its, each) for each in (1, 2)]; os.close(ours)"
    result = run(tmp_path, "--n_epochs", "50", fault=f"{gone}; os.kill(os.getpid(), 1)")
    assert result.returncode == 129
    assert [path.stem for path in states(tmp_path)] == ["step-000000003"]
    assert "interrupted after step 3; the network so far is " in log_lines(tmp_path)


def test_sigterm_before_the_loop_is_a_line(tmp_path):
    """Of the script itself, while it looks for data."""
    script = """
import runpy, signal, sys
import utils.training
utils.training.find_data = lambda *_: signal.raise_signal(signal.SIGTERM)
runpy.run_path("DR_training.py", run_name="__main__")
"""
    check(run_script("-c", script, *arguments(tmp_path, *STAGE)), 143, "^terminated$", tmp_path, None)


def test_a_defect_of_the_program_is_a_traceback_and_saves_the_state(tmp_path):
    result = run(tmp_path, "--n_epochs", "50", fault="raise ZeroDivisionError('ours')")
    assert result.returncode == 1
    assert "ZeroDivisionError: ours" in result.stderr
    assert [path.stem for path in states(tmp_path)] == ["step-000000003"]


def test_a_validation_image_that_does_not_fit_is_restored_in_tiles(tmp_path):
    """Of the six channels of a reblurring network's two images."""
    # MiB; with the first ones the whole image fits in now and then, and near the last ones PyTorch's libraries crash.
    # Where that begins varies from run to run and with PyTorch's version.
    for more in range(200, 100, -10):
        folder = tmp_path / str(more)
        result = validated_in(folder, "reblur", more, SAMPLES, "--width", "32", "--max_steps", "1")
        if result.returncode != -signal.SIGSEGV and "continuing with tiles of" in log_lines(folder):
            break
    assert result.returncode == 0, result.stderr
    assert "continuing with tiles of" in log_lines(folder)
    assert "validation, step 1: psnr" in log_lines(folder)


def test_validation_is_skipped_if_not_even_tiles_fit_and_the_run_continues(tmp_path):
    """A cluster that starts a failed run again would fail at the same image for ever."""
    for side in ("blur", "sharp"):
        save(tmp_path / "large" / side / "a.png", size=(4000, 3000))
    result = validated_in(tmp_path, "deblur", 10, tmp_path / "large")
    assert result.returncode == 0, result.stderr
    lines = log_lines(tmp_path)
    assert "validation, step 1: skipped, not enough memory for " in lines
    assert "validation, step 2: skipped, not enough memory for " in lines
    assert "DeblurringNet_NF.pth; log in" in lines
    assert load_file(states(tmp_path)[0])["progress"]["validated"] == 2


def validated_in(folder: Path, stage: str, more: int, images: Path, *options: str) -> subprocess.CompletedProcess:
    """Train for two epochs, and validate with so many MiB more than the process has."""
    script = """
import resource, sys
import DR_training
validate = DR_training.validate
def limited(*given, **named):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, resource.RLIM_INFINITY))
    try:
        return validate(*given, **named)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
DR_training.validate = limited
DR_training.torch.set_num_threads(1)
DR_training.main(DR_training.parse_args(sys.argv[2:]))
"""
    validated = ("--valset_dir", str(images), "--val_every", "1")
    trained = arguments(folder, "--stage", stage, "--n_epochs", "2", *validated, *options)
    return run_script("-c", script, str(more), *trained)


def test_a_decoder_that_raises(tmp_path):
    data = pairs(tmp_path)
    damaged = data / "sharp" / "000048.png"
    damaged.write_bytes(damaged.read_bytes()[:10_000])
    result = run_script("DR_training.py", *arguments(tmp_path, *STAGE, "--n_epochs", "9", trainset=(str(data),)))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "000048.png is damaged or incomplete" in result.stderr


def test_steps_that_are_not_finite_save_nothing(tmp_path):
    result = run(tmp_path, "--n_epochs", "50", "--lr", "1e30", "--max_bad_steps", "3", "--save_every", "1000steps")
    assert result.returncode == 2
    assert "error: the loss or gradient was not finite in 3 consecutive steps. Lower --lr" in result.stderr
    assert not states(tmp_path)


def test_a_network_that_diverged_before_a_validation(tmp_path):
    more = ("--valset_dir", str(SAMPLES), "--val_every", "1", "--save_every", "1epochs", "--keep", "1")
    result = run(tmp_path, "--n_epochs", "50", "--lr", "1e30", *more)
    check(result, 2, "^error: validation: .* is not finite, it has diverged. Go back to a state before", tmp_path, 1)
    assert states(tmp_path)[0].with_name("step-000000000.pth").exists()  # one more than are kept


@pytest.mark.parametrize(("batch", "step"), [("1", 4), ("2", 3)])  # within an epoch, at the end of one
def test_a_log_folder_that_is_deleted(tmp_path, batch, step):
    fault = "import shutil; self._board.flush(); shutil.rmtree(self.folder)"
    result = run(tmp_path, "--n_epochs", "9", "--batch_size", batch, fault=fault)
    check(result, 2, r"^error: the log folder .*/log/deblur_\S+ was deleted while .* --resume auto", tmp_path, step)
    assert not list((tmp_path / "log").rglob("*"))
    assert run(tmp_path, "--batch_size", batch, "--max_steps", "5", "--resume", "auto").returncode == 0
    assert "resumed from" in log_lines(tmp_path)


def test_a_killed_worker(tmp_path):
    process = Script("DR_training.py", *arguments(tmp_path, *STAGE, "--n_epochs", "5000", "--num_workers", "1"))
    for line in process.stdout:
        if "epoch 2" in line:
            break
    for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    status, _, err = finished(process)
    assert status == 2, err
    assert "Traceback" not in err
    assert "error: a data loading process was killed" in err.splitlines()[-1]
    assert states(tmp_path)


# Gives the process a shared memory of its own, as a container has one.
SMALL_SHARED_MEMORY = """
import ctypes, subprocess, sys
size = sys.argv.pop(1)
if ctypes.CDLL(None).unshare(0x00020000):  # CLONE_NEWNS
    sys.exit(77)
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm"], check=True)
"""


TOO_SMALL = "has 16 KiB free, and 2 data .* 18 KiB of .*; start docker with --shm-size 1g, or give --num_workers 0$"
FULL = "is full, .*: start docker with a larger --shm-size, or give a smaller --num_workers"


@pytest.mark.parametrize(("size", "line"), [("16k", TOO_SMALL), ("1m", FULL)])
def test_shared_memory_that_is_too_small_or_full(tmp_path, size, line):
    fault = "open('/dev/shm/of_another', 'wb').write(bytes(2**20))"  # as much as there is
    code = SMALL_SHARED_MEMORY + BROKEN.replace("FAULT", f"\n        try: {fault}\n        except OSError: pass")
    options = arguments(tmp_path, *STAGE, "--n_epochs", "500", "--batch_size", "1", "--num_workers", "2")
    result = run_script("-c", code, size, *options)
    if result.returncode == 77:
        pytest.skip("this user cannot mount file systems")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    assert re.search(f"^error: /dev/shm {line}", result.stderr.splitlines()[-1]), result.stderr
    assert bool(states(tmp_path)) == (size == "1m")


def test_full_shared_memory_in_the_words_of_torch_2_4():
    error = RuntimeError("unable to write to file </torch_2792_1300110686_7>: No space left on device (28)")
    assert end_of(error).cause == "full shared memory"


def test_nothing_is_saved_after_a_lost_rank():
    assert [end.cause for end in ENDS if not end.saved] == ["a lost rank"]
    assert end_of(torch.distributed.DistNetworkError("Connection reset")).cause == "a lost rank"
    assert end_of(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")).cause == "a lost rank"
    assert end_of(ZeroDivisionError()) is None


@pytest.mark.parametrize(("full", "size"), [("nets", 2**22), ("log", 2**22), ("cache", 2**17)])
def test_a_full_disk(tmp_path, full, size):
    more = ("--n_epochs", "200", "--save_every", "1steps", "--keep", "100", "--cache_dir", str(tmp_path / "cache"))
    with small_disk(tmp_path / full, size):
        if full == "log":  # a run's text and events are small: next to nothing is left
            (tmp_path / "log" / "ballast").write_bytes(bytes(size - 3 * 4096))
        result = run(tmp_path, *more)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr, result.stderr
        last = result.stderr.splitlines()[-1]
        assert re.search("^error: .*([Nn]o space left|cannot be written|are free; make room)", last), last
        if full == "log":
            assert states(tmp_path)
