"""The watch over the other processes of a run."""

import os
import threading
import time

import pytest
import torch

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
