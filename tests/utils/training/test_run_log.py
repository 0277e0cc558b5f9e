"""The folder of a run."""

from utils.training.run_log import new_run_folder


def test_two_runs_in_the_same_second_have_folders_of_their_own(tmp_path):
    assert len({new_run_folder(tmp_path, "deblur") for _ in range(3)}) == 3
