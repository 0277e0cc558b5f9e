"""The watch over the other processes of a run."""

import os
import signal
import threading
import time

import pytest
import torch

from tests.support.processes import run_ranks
from utils.runtime.distributed import init_distributed

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="torchrun's gloo needs POSIX")]


def test_the_watch_over_the_others_ends_before_the_process_does(monkeypatch):
    """PyTorch aborts a process whose Python ends while a thread is inside the store: 14 of 15 that always are."""
    place = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    for name, value in {**place, "TORCHELASTIC_RUN_ID": "one", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}.items():
        monkeypatch.setenv(name, str(value))
    asked = threading.Event()

    def slow_check(_store, _keys):
        asked.set()
        time.sleep(2)
        return False

    monkeypatch.setattr(torch.distributed.Store, "check", slow_check)
    before = set(threading.enumerate())
    with init_distributed("cpu") as distributed:
        assert asked.wait(60)
        assert distributed.is_distributed
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


STUCK = """
import ctypes, os, signal
from utils.runtime.distributed import init_distributed
from utils.runtime.program_end import user_errors_end_the_program

with user_errors_end_the_program(), init_distributed("cpu") as distributed:
    distributed.barrier()
    if distributed.rank == END:
        os.kill(os.getpid(), signal.SIGKILL)
    if distributed.rank == 0:
        ctypes.CDLL(None).sleep(100 if END == 2 else 2)  # as NCCL waits: Python's signals are not handled there
"""


def test_a_process_that_waits_in_c_for_one_that_was_killed_ends_with_a_line():
    statuses, _, err = run_ranks("-c", STUCK.replace("END", "2"), processes=3)
    assert statuses == [2, 0, -signal.SIGKILL]
    assert "error: a process of the run was lost; --resume auto continues from the last saved state (rank 2" in err


def test_a_process_that_left_is_not_missed():
    statuses, _, err = run_ranks("-c", STUCK.replace("END", "3"), processes=2)
    assert statuses == [0, 0], err


MEANS = """
import torch
from utils.runtime import gradients
from utils.runtime.flat_parameters import FlatParameters
from utils.runtime.distributed import init_distributed

gradients._SMALLEST = 1  # several chunks of few numbers
with init_distributed("cpu") as distributed:
    network = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1, bias=False)).requires_grad_(True)
    torch.nn.init.constant_(network[0].weight, distributed.rank + 1.0)
    torch.nn.init.constant_(network[1].weight, 1.0)
    network[1].weight.requires_grad_(False)
    flat = FlatParameters(network)
    mean = distributed.gradient_mean(flat)
    assert torch.equal(network[0].weight, torch.ones(1, 2)), "not the first process's weights"
    assert len(mean._chunks) == 3
    numbers = torch.tensor([distributed.rank + 1.0, torch.inf])
    with mean(numbers):
        network(torch.full((1, 2), distributed.rank + 1.0)).sum().backward()
    weight, bias = flat.views(flat.whole.grad)
    assert torch.equal(weight, torch.full((1, 2), 1.5)), weight
    assert torch.equal(bias, torch.ones(1)), bias
    assert numbers.tolist() == [1.5, torch.inf], numbers
    # What autograd kept is looked at after the backward pass, see parameter_gradients_aside.
    assert torch.equal(network[0].weight.grad, torch.full((1, 2), distributed.rank + 1.0)), network[0].weight.grad
    network.zero_grad()
    network(torch.full((1, 2), distributed.rank + 1.0)).sum().backward()  # the first micro-batches of a step
    assert torch.equal(network[0].weight.grad, torch.full((1, 2), distributed.rank + 1.0))
"""


def test_weights_are_those_of_the_first_process_and_gradients_are_means():
    statuses, _, err = run_ranks("-c", MEANS)
    assert statuses == [0, 0], err
