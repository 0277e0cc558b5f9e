"""Locks of output folders between processes, and what processes that were killed leave."""

import os
import platform
import signal
import sys

import pytest

from tests.support.processes import Script
from utils.common.errors import UserError
from utils.common.files import LOCK, lock_output_dir

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")

# Holds the lock with a forked process beside it, as a run has that loads its data in workers.
HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from utils.common.files import lock_output_dir
with lock_output_dir(Path(sys.argv[1]), "--output_dir"):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_lock_names_its_process_and_dies_with_it(tmp_path):
    folder = tmp_path / "out"
    holder = Script("-c", HOLDER, str(folder))
    worker = int(holder.stdout.readline())
    try:
        found = rf"another run \(process {holder.pid} on {platform.node()}\) is writing into --save_dir {folder}; wait"
        with pytest.raises(UserError, match=found), lock_output_dir(folder, "--save_dir"):
            pass
        with lock_output_dir(tmp_path / "other", "--save_dir"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        os.kill(worker, 0)  # it still runs
        assert list(folder.iterdir()) == [folder / LOCK]
        with lock_output_dir(folder, "--save_dir"):
            assert f"process {os.getpid()} on " in (folder / LOCK).read_text()
        assert not list(folder.iterdir())
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_folder_that_was_made_and_is_empty_is_removed(tmp_path):
    folder = tmp_path / "a" / "new"
    with lock_output_dir(folder, "--save_dir"):
        assert list(folder.iterdir()) == [folder / LOCK]
    assert not folder.exists()


def test_a_run_that_ends_while_another_starts_does_not_let_two_in(tmp_path, monkeypatch):
    """The other has opened the file that is removed then."""
    import fcntl

    lockf, opened = fcntl.lockf, []

    def lock_after_the_end_of_another(file, how):
        opened.append(file)
        if len(opened) == 1:
            (tmp_path / LOCK).unlink()
        lockf(file, how)

    monkeypatch.setattr(fcntl, "lockf", lock_after_the_end_of_another)
    with lock_output_dir(tmp_path, "--save_dir"):
        assert len(opened) == 2
        assert os.path.samestat(os.fstat(opened[1]), (tmp_path / LOCK).stat())
