"""The folder of a run."""

import io
import os

import numpy as np
import pytest

from utils.training.run_log import RunLog, new_run_folder


def test_two_runs_in_the_same_second_have_folders_of_their_own(tmp_path):
    assert len({new_run_folder(tmp_path, "deblur") for _ in range(3)}) == 3


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_utf_8_are_logged(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())  # what is printed is escaped by `user_errors_end_the_program`
    name = os.fsdecode(b"q\xfe.png")
    with RunLog(tmp_path / "log", "deblur", {}, 1) as log:
        log.validation(1, {"psnr": 20.0}, {name: np.zeros((8, 8, 3), np.uint8)}, best=True)
        log.line(f"skipped: {name}")
    assert b"skipped: q\xfe.png" in (tmp_path / "log" / "log.txt").read_bytes()
