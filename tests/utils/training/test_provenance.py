"""What a resumed run must have in common with the stopped one, and which changes are logged."""

import pytest
import torch

from models.checkpoint import load_file
from tests.support.training import STAGE, log_lines, states, train
from utils.common.errors import UserError
from utils.common.files import save_tensors
from utils.training.checkpointing import CheckpointManager
from utils.training.progress import Progress

pytestmark = pytest.mark.slow


def test_the_reblurring_network_is_known_by_its_tensors(tmp_path, small_networks):
    small, file = ("--stage", "finetune", "--n_epochs", "1", "--overwrite"), small_networks / "ReBlurringNet.pth"
    train(tmp_path, *small, "--max_steps", "1")
    content = load_file(file)
    save_tensors({"note": "saved again", **content}, file)
    train(tmp_path, *small[:4], "--resume", "auto")
    assert "without effect on the result: reblurring_weights SHA-256 " in log_lines(tmp_path)
    next(iter(content["blurring_state_dict"].values())).view(-1)[0] += 1e-3
    save_tensors(content, file)
    with pytest.raises(UserError, match=r"reblurring_weights was \w{64}, is \w{64}"):
        train(tmp_path, *small[:4], "--resume", "auto")


def test_another_number_of_threads_is_logged(tmp_path):
    before = torch.get_num_threads()
    train(tmp_path, *STAGE, "--max_steps", "1")
    try:
        torch.set_num_threads(before + 1)
        train(tmp_path, *STAGE, "--resume", "auto", "--max_steps", "2")
    finally:
        torch.set_num_threads(before)
    assert f"changed since: max_steps 1 -> 2, threads {before} -> {before + 1}\n" in log_lines(tmp_path)
    (state,) = states(tmp_path)[:1]
    content = load_file(state)
    del content["settings"]["threads"]  # as earlier versions wrote it
    CheckpointManager(state.parent, 1).save(Progress.from_file(content["progress"]), content, again=True)
    train(tmp_path, *STAGE, "--resume", "auto", "--max_steps", "3")
    assert log_lines(tmp_path).count("threads ") == 1


def test_a_flag_that_an_earlier_version_did_not_have_is_logged_unless_it_is_at_its_default(tmp_path):
    train(tmp_path, *STAGE, "--max_steps", "1")
    (state,) = states(tmp_path)[:1]
    content = load_file(state)
    del content["settings"]["warmup_steps"], content["settings"]["accumulate"]
    CheckpointManager(state.parent, 1).save(Progress.from_file(content["progress"]), content, again=True)
    train(tmp_path, *STAGE, "--resume", "auto", "--max_steps", "2", "--warmup_steps", "2")
    assert "changed since: max_steps 1 -> 2, warmup_steps 0 -> 2\n" in log_lines(tmp_path)
