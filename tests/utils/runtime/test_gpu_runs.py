"""Whole runs of the training script on one GPU and on several: what stops them, and what continues them."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_file
from tests.support.gpu import GPU_MARKS  # skips this file without a GPU
from tests.support.processes import Script, finished, torchrun
from tests.support.training import STAGE, arguments, log_lines, pairs, same, small_disk, states, weights

pytestmark = GPU_MARKS


@pytest.fixture(params=[1, 2, 4])
def processes(request):
    return with_gpus(request.param)


def with_gpus(count):
    if torch.cuda.device_count() < count:
        pytest.skip(f"needs {count} GPUs")
    return count


def start(folder: Path, processes: int, *more: str) -> Script:
    """Start a run with recorded steps: 24 frames an epoch, in batches of four."""
    on_gpus = ("--device", "auto", "--width", "8", "--patch_size", "64", "--batch_size", "4", "--num_workers", "1")
    options = arguments(folder, *STAGE, *on_gpus, *more, trainset=(f"8*{pairs(folder.parent)}",))
    return (
        torchrun("DR_training.py", *options, processes=processes)
        if processes > 1
        else Script("DR_training.py", *options)
    )


def run(folder: Path, processes: int, *more: str, status: int = 0) -> tuple[str, str]:
    """Run to the end, and return what was written to stdout and to stderr."""
    ended, out, err = finished(start(folder, processes, *more))
    assert ended == status, err
    return out, err


def stop(process: Script, number: int, whole: bool) -> tuple[int, str, str]:
    """Send a signal after two epochs, to all processes or to the last one; return status, stdout and stderr."""
    for line in process.stdout:
        if "epoch 2" in line:
            break
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    if whole:
        os.killpg(process.pid, number)
    if number == signal.SIGKILL:  # torchrun's processes have groups of their own
        for rank in ranks if whole else ranks[-1:]:
            with suppress(ProcessLookupError):
                os.kill(int(rank), number)
    return finished(process)


@pytest.mark.parametrize(("processes", "whole"), [(1, True), (2, False), (2, True), (4, False)])
def test_a_killed_run_is_resumed_to_the_same_bits(tmp_path, processes, whole):
    with_gpus(processes)
    more = ("--deterministic", "--save_every", "4steps")
    status, _, err = stop(start(tmp_path / "killed", processes, *more, "--n_epochs", "9999"), signal.SIGKILL, whole)
    assert status != 0
    if not whole:
        assert "error: a process of the run was lost; --resume auto continues" in err
    (newest, *_) = states(tmp_path / "killed")
    steps = str(load_file(newest)["progress"]["step"] + 9)
    run(tmp_path / "killed", processes, *more, "--n_epochs", "9999", "--max_steps", steps, "--resume", "auto")
    run(tmp_path / "whole", processes, *more, "--n_epochs", "9999", "--max_steps", steps)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


@pytest.mark.parametrize(("many", "few"), [(2, 1), (4, 2)])
def test_other_numbers_of_processes_continue_a_run(tmp_path, many, few):
    """With all that a run can be asked for: micro-batches, validation, an average, images that are left out."""
    with_gpus(many)
    data = pairs(tmp_path)
    frame = data / "blur" / "000047.png"
    shutil.copytree(data, tmp_path / "validation")
    frame.write_bytes(frame.read_bytes()[:9000])
    more = ("--accumulate", "2", "--skip_bad_images", "--ema_decay", "0.9", "--precision", "bf16", "--clip_grad", "1")
    more += ("--valset_dir", str(tmp_path / "validation"), "--val_every", "1", "--resume", "auto", "--n_epochs", "99")
    for processes, steps in ((many, 8), (few, 16), (many, 24)):
        out, err = run(tmp_path / "run", processes, *more, "--max_steps", str(steps))
        assert "stream does not match" not in err
        assert "NaN" not in out
    assert load_file(states(tmp_path / "run")[0])["progress"]["step"] == 24
    text = log_lines(tmp_path / "run")
    assert len(re.findall(r"validation, step (8|16|24): psnr \d", text)) == 3
    assert f"skipped in every epoch: {frame}" in text
    assert re.search("changed since: .*processes", text)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_ends_the_run(tmp_path, processes, number, status):
    ended, out, err = stop(start(tmp_path / "run", processes, "--n_epochs", "9999"), number, whole=True)
    assert ended == status if processes == 1 else ended != 0
    assert "continue with --resume auto" in out
    assert 'DR_training.py", line' not in err
    newest = states(tmp_path / "run")[0]
    assert load_file(newest)["progress"]["step"] == int(newest.stem.partition("-")[2])


def test_an_error_on_one_rank_ends_all(tmp_path, processes):
    frame = pairs(tmp_path) / "blur" / "000047.png"
    frame.write_bytes(frame.read_bytes()[:9000])
    _, err = run(tmp_path / "run", processes, "--n_epochs", "9999", status=2 if processes == 1 else 1)
    assert f"error: {frame} is damaged or incomplete" in err
    assert 'DR_training.py", line' not in err


def test_a_full_disk_ends_the_run(tmp_path, processes):
    more = ("--n_epochs", "9999", "--save_every", "1steps", "--keep", "1000")
    (tmp_path / "run").mkdir()
    with small_disk(tmp_path / "run" / "nets", 2**25):
        _, err = run(tmp_path / "run", processes, *more, status=2 if processes == 1 else 1)
    assert re.search("^error: .*no space left on the disk", err, re.MULTILINE), err


def test_kernels_are_compiled_once_a_machine(tmp_path, processes, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "kernels"))
    for name, compiled in (("first", 1), ("second", 0)):
        run(tmp_path / name, processes, "--max_steps", "2")
        text = log_lines(tmp_path / name)
        assert text.count("compiling kernels for this GPU") == compiled
        assert len(re.findall(r"compiled \d\d kernels in [\d.]+ s", text)) == compiled
