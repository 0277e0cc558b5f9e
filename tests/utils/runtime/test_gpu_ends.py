"""Runs of the training script on GPUs: how near a resumed one, and one of several processes, ends to a whole one."""

from functools import partial
from itertools import combinations

import pytest
import torch

from models.checkpoint import load_file
from tests.support.gpu import GPU_MARKS  # skips this file without a GPU
from tests.support.processes import Script, finished, torchrun
from tests.support.samples import SAMPLES

pytestmark = GPU_MARKS

SCRIPT = [
    "--stage",
    "deblur",
    "--trainset_dir",
    str(SAMPLES),
    "--width",
    "8",
    "--patch_size",
    "64",
    "--num_workers",
    "2",
]


def end_of(folder, *more, start=Script):
    paths = ["--output_dir", str(folder / "nets"), "--log_dir", str(folder / "log")]
    status, _, err = finished(start("DR_training.py", *SCRIPT, "--batch_size", "2", *paths, *more))
    assert status == 0, err
    return load_file(folder / "nets" / "DeblurringNet_NF.pth")["deblurring_state_dict"]


def distance(first, second):
    one, other = (torch.cat([each[name].flatten() for name in first]) for each in (first, second))
    return ((one - other).norm() / other.norm()).item()


def resumed_and_whole(folder, *more):
    whole = end_of(folder / "whole", *more, "--n_epochs", "30")
    end_of(folder / "parts", *more, "--n_epochs", "30", "--max_steps", "13")
    return end_of(folder / "parts", *more, "--n_epochs", "30", "--resume", "auto"), whole


def test_a_resumed_run_ends_within_the_noise(tmp_path):
    """Whole runs of one seed differ, too, since atomic additions come in any order: two of them by 4e-8 or by 1e-4."""
    parts, whole = resumed_and_whole(tmp_path)
    others = [end_of(tmp_path / f"again-{i}", "--n_epochs", "30") for i in range(3)]
    noise = max(distance(*two) for two in combinations((whole, *others), 2))
    assert distance(parts, whole) < 5 * noise + 1e-6
    assert noise < 1e-3


def test_a_deterministic_run_ends_in_the_same_bits(tmp_path):
    parts, whole = resumed_and_whole(tmp_path, "--deterministic")
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_train_as_one(tmp_path, processes):
    if torch.cuda.device_count() < processes:
        pytest.skip(f"needs {processes} GPUs")
    more = ("--n_epochs", "20", "--max_steps", "20", "--valset_dir", str(SAMPLES), "--deterministic")
    start = partial(torchrun, processes=processes)
    together, again = (end_of(tmp_path / name, *more, start=start) for name in ("together", "again"))
    assert all(torch.equal(together[name], again[name]) for name in together)
    one, halves = (end_of(tmp_path / n, *more, "--accumulate", n) for n in ("1", "2"))  # the same sums in another order
    assert distance(together, one) < 2 * distance(halves, one) + 1e-6
