"""The folder of a run."""

import io
import os
import shutil

import numpy as np
import pytest
import torch

from tests.support.training import values
from utils.common.errors import UserError
from utils.training.progress import Progress
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


def test_a_run_resumed_before_its_first_step_replaces_all_curves(tmp_path):
    for psnr in (20.0, 21.0):  # the first was killed before a state with a step was saved
        with RunLog(tmp_path / "deblur_1", "deblur", {}, 1) as log:
            log.validation(1, {"psnr": psnr}, {}, best=True)
    assert values(tmp_path, "deblur", "validation/psnr") == [21.0]


def test_a_part_whose_steps_were_all_skipped_has_their_learning_rate(tmp_path):
    black = torch.zeros(1, 3, 8, 8)
    with RunLog(tmp_path / "log", "deblur", {}, 1) as log:
        list(log.batches([None]))
        log.skipped("skipped", lr=1e-4)
        log.epoch(Progress(step=1, epoch=1), black, black, black, left_out=0)
    assert "learning rate 0.0001" in (tmp_path / "log" / "log.txt").read_text()


def test_a_folder_that_is_deleted_during_a_validation_is_not_made_again(tmp_path):
    folder = tmp_path / "log"
    with RunLog(folder, "deblur", {}, 1) as log:
        log.validation(1, {"psnr": 20.0}, {}, best=True)
        log._board.flush()  # its thread writes
        shutil.rmtree(folder)
        with pytest.raises(UserError, match="was deleted while the run writes in it"):
            log.validation(2, {"psnr": 21.0}, {}, best=True)
    assert not folder.exists()
