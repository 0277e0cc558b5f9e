"""Processes that torchrun starts train as one does: the same losses and weights, one log, one end."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler

from models.checkpoint import load_file
from tests.support.processes import finished, run_ranks, torchrun
from tests.support.training import arguments, log_lines, pairs, states, train, values, weights

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="torchrun's gloo needs POSIX")]

STAGE = ("--stage", "deblur", "--n_epochs", "10")


def start(folder: Path, *more: str) -> subprocess.Popen:
    return torchrun("DR_training.py", *arguments(folder, *more, trainset=(str(pairs(folder)),)))


def run_on_ranks(folder: Path, *more: str) -> tuple[list[int], str, str]:
    return run_ranks("DR_training.py", *arguments(folder, *more, trainset=(str(pairs(folder)),)))


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of all weights in parts of their norm."""
    one, other = (torch.cat([each[name].flatten() for name in second]) for each in (first, second))
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_two_processes_train_as_one(tmp_path, accumulate):
    """Twenty steps of two and one frames: every other step leaves a rank without one of its own."""
    more = (*STAGE, "--batch_size", "2", "--accumulate", accumulate, "--max_steps", "20")
    statuses, out, err = run_on_ranks(tmp_path / "two", *more)
    assert statuses == [0, 0], err
    assert out.count("3 pairs") == 1  # one process speaks
    train(tmp_path / "one", *more, trainset=(str(pairs(tmp_path / "two")),))
    losses = [values(tmp_path / name / "log", "deblur", "loss/total") for name in ("two", "one")]
    assert len(losses[0]) == 20
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    # Not each of them: where a gradient is nothing but rounding, Adam makes steps of full size of it.
    assert difference(weights(tmp_path / "two"), weights(tmp_path / "one")) < 1e-5
    (folder,) = (tmp_path / "two" / "log").iterdir()
    assert json.loads((folder / "arguments.json").read_text())["processes"] == 2


def test_two_processes_fine_tune_as_one_to_each_weight(tmp_path, small_networks):
    more = ("--stage", "finetune", "--n_epochs", "10", "--max_steps", "20")
    for name in ("one", "two"):
        shutil.copytree(small_networks, tmp_path / name / "nets")
        (tmp_path / name / "nets" / "DeblurringNet_FT.pth").unlink()
    statuses, _, err = run_on_ranks(tmp_path / "two", *more)
    assert statuses == [0, 0], err
    train(tmp_path / "one", *more, trainset=(str(pairs(tmp_path / "two")),))
    two, one = (weights(tmp_path / name, "DeblurringNet_FT.pth") for name in ("two", "one"))
    assert max((two[name] - one[name]).abs().max().item() for name in one) < 1e-5


def test_parts_of_a_batch_make_the_same_step(tmp_path):
    for name, more in (("whole", ()), ("parts", ("--accumulate", "3"))):
        train(tmp_path / name, *STAGE, "--batch_size", "3", "--max_steps", "5", *more, trainset=(str(pairs(tmp_path)),))
    assert difference(weights(tmp_path / "parts"), weights(tmp_path / "whole")) < 1e-5


def test_processes_go_on_with_what_one_began_and_validate_each_image_once(tmp_path):
    train(tmp_path, *STAGE, "--max_steps", "2", trainset=(str(pairs(tmp_path)),))
    validation = ("--valset_dir", str(pairs(tmp_path)), "--val_every", "1")
    more = (*STAGE, "--max_steps", "4", *validation)
    statuses, _, err = run_on_ranks(tmp_path, *more, "--resume", "auto")
    assert statuses == [0, 0], err
    train(tmp_path / "one", *more, trainset=(str(pairs(tmp_path)),))
    assert "resumed from" in log_lines(tmp_path)
    found = [
        re.findall(r"step 4: psnr ([\d.]+) \(input [\d.]+\), psnr_float ([\d.]+)", log_lines(tmp_path / each))
        for each in ("", "one")
    ]
    assert [float(value) for value in found[0][0]] == pytest.approx([float(value) for value in found[1][0]], abs=2e-3)


def test_one_ranks_failure_ends_the_others_with_its_message(tmp_path):
    frame = pairs(tmp_path) / "blur" / "000047.png"
    whole = frame.read_bytes()
    frame.write_bytes(whole[: len(whole) // 2])  # its header is whole, so that it is met in training
    begun = time.monotonic()
    statuses, _, err = run_on_ranks(tmp_path, *STAGE, "--batch_size", "2", "--n_epochs", "1000")
    assert statuses == [2, 2]
    assert time.monotonic() - begun < 60
    assert f"error: {frame} is damaged or incomplete" in err
    others = re.findall(r"rank (\d) ends because rank (\d) failed: (.*)", err)
    assert all(first != second and str(frame) in text for first, second, text in others)
    assert 'DR_training.py", line' not in err  # no traceback of ours


def test_an_error_on_all_ranks_is_printed_once(tmp_path):
    status, _, err = finished(start(tmp_path, *STAGE, "--valset_dir", str(tmp_path / "nowhere")))
    assert status != 0
    # The store, which says whether another rank failed before, torch 2.4 keeps in rank 0's process, not in torchrun's.
    most = 1 if "use_agent_store" in vars(DynamicRendezvousHandler) else 2
    assert 1 <= len(re.findall(r"^error: .*nowhere does not exist", err, re.MULTILINE)) <= most


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_one_state_for_all(tmp_path, number):
    process = start(tmp_path, *STAGE, "--n_epochs", "1000")
    for line in process.stdout:
        if "epoch 2" in line:
            break
    os.killpg(process.pid, number)  # to torchrun and to each process, as a terminal or a cluster does
    status, out, err = finished(process)
    assert status != 0
    assert "continue with --resume auto" in out
    assert 'DR_training.py", line' not in err
    (state,) = states(tmp_path)
    assert load_file(state)["progress"]["step"] == int(state.stem.partition("-")[2])


def test_a_process_that_is_killed_ends_the_other_with_a_line(tmp_path):
    process = start(tmp_path, *STAGE, "--n_epochs", "1000")
    for line in process.stdout:
        if "epoch 1" in line:
            break
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[1]), signal.SIGKILL)
    status, _, err = finished(process)
    assert status != 0
    assert "error: a process of the run was lost; --resume auto continues" in err
    assert 'DR_training.py", line' not in err
    train(tmp_path, *STAGE, "--resume", "auto", "--max_steps", "2", trainset=(str(pairs(tmp_path)),))


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_more_processes_than_gpus_are_refused(tmp_path):
    statuses, _, err = run_on_ranks(tmp_path, *STAGE, "--device", "cuda")
    assert statuses == [2, 2]
    assert "torchrun started 2 processes on a node with 0 GPUs" in err
