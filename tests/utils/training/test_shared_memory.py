"""How much shared memory the batches of data loading processes take, and what is advised where there is less."""

import shutil
from collections import namedtuple

import pytest

from utils.common.errors import UserError
from utils.training.shared_memory import check_shared_memory

MIB = 2**20


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ((9 * MIB, 351, 8), "8 data loading processes keep up to 0.1 GiB .* --shm-size 1g, or give --num_workers 3"),
        ((9 * MIB, 351, 3), ""),  # two batches each, and one that is in use
        ((9 * MIB, 5, 8), ""),  # all of an epoch's, and one of the next
        ((9 * MIB, 351, 0), ""),
        ((9 * MIB, 351, 3, 2), "6 data loading processes .* give --num_workers 1"),
        (
            (900 * MIB, 351, 8),
            "8 data loading processes keep .* 14.9 GiB .* --shm-size 15g, or give --num_workers 0",
        ),
    ],
)
def test_dockers_default(tmp_path, monkeypatch, given, advice):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(64 * MIB))
    if not advice:
        check_shared_memory(*given, folder=tmp_path)
        return
    with pytest.raises(UserError, match=f"{tmp_path} has 64.0 MiB free, and {advice}$"):
        check_shared_memory(*given, folder=tmp_path)
    check_shared_memory(*given, folder=tmp_path / "missing")  # a system without it
