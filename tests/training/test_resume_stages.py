"""What a resumed run checks of the other stages, on whose networks it depends."""

import shutil

import pytest

import DR_training
from tests.support.samples import small_samples
from tests.support.training import NETWORK, pairs, same, states, train, weights
from utils.common.errors import UserError

pytestmark = pytest.mark.slow


def test_another_reblurring_network_is_refused(tmp_path):
    small = ("--n_epochs", "1", "--width", "4")
    train(tmp_path, "--stage", "all", *small)
    train(tmp_path, "--stage", "reblur", *small, "--overwrite", "--seed", "7")
    with pytest.raises(UserError, match=r"reblurring_weights was \w{64}, is \w{64}"):
        train(tmp_path, "--stage", "finetune", *small, "--resume", "auto")


def test_other_data_of_a_later_stage_is_refused_before_the_first_is_trained(tmp_path):
    small = ("--n_epochs", "1", "--width", "4")
    train(tmp_path, "--stage", "all", *small)
    for stage in ("reblur", "deblur"):
        shutil.rmtree(tmp_path / "nets" / "states" / stage)
    for name in ("ReBlurringNet.pth", "DeblurringNet_NF.pth"):
        (tmp_path / "nets" / name).unlink()
    with pytest.raises(
        UserError, match="states/finetune/step-.* cannot be resumed with these arguments: data was 2 frames, is 3"
    ):
        train(tmp_path, "--stage", "all", *small, "--resume", "auto", trainset=(str(pairs(tmp_path / "other")),))
    assert not (tmp_path / "nets" / "states" / "reblur").exists()


def test_more_epochs_of_all_stages_are_refused_before_the_first_is_trained(tmp_path):
    """Finetune would have failed after them, or with the same R continued from the old D."""
    train(tmp_path, "--stage", "all", "--n_epochs", "1", "--width", "4")
    with pytest.raises(UserError, match="step-.*: finetune has begun, from networks that reblur and deblur would now"):
        train(tmp_path, "--stage", "all", "--n_epochs", "2", "--width", "4", "--resume", "auto")
    assert [path.name for path in states(tmp_path, "reblur")] == ["step-000000001.pth"]
    train(tmp_path, "--stage", "all", "--n_epochs", "1", "--width", "4", "--resume", "auto")
    (state,) = states(tmp_path, "deblur")
    state.write_bytes(b"")
    with pytest.raises(
        UserError, match=rf"networks that deblur \({state} is damaged: its SHA-256 .*\) would now train"
    ):
        train(tmp_path, "--stage", "all", "--n_epochs", "1", "--width", "4", "--resume", "auto")


def test_a_run_that_was_stopped_before_its_first_step_takes_the_networks_of_today(tmp_path, monkeypatch):
    """Fine-tuning would have gone on from a deblurring network that was trained further meanwhile."""
    small = ("--n_epochs", "1", "--width", "4")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    for stage in ("reblur", "deblur"):
        train(tmp_path, "--stage", stage, *small)
    monkeypatch.setattr(DR_training, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "--stage", "finetune", *small)
    monkeypatch.undo()
    assert (tmp_path / "nets" / "states" / "finetune" / "step-000000000.pth").exists()
    train(tmp_path, "--stage", "deblur", "--n_epochs", "3", "--width", "4", "--resume", "auto", "--lr", "1e-2")
    more_data = {"trainset": (str(small_samples()), f"unpaired={pairs(tmp_path) / 'blur'}")}
    train(tmp_path, "--stage", "all", *small, "--resume", "auto", **more_data)
    resumed = weights(tmp_path, "DeblurringNet_FT.pth")
    train(tmp_path, "--stage", "finetune", *small, "--overwrite", **more_data)
    assert same(resumed, weights(tmp_path, "DeblurringNet_FT.pth"))


def test_a_run_that_replaces_all_stages_leaves_no_state_of_later_ones(tmp_path, monkeypatch):
    """Stopped in its first stage and resumed, it had taken the others' old networks for its own."""
    small = ("--stage", "all", "--max_steps", "1")
    train(tmp_path, *small)
    assert all(states(tmp_path, stage) for stage in ("reblur", "deblur", "finetune"))

    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as changed:
        changed.setattr(DR_training, "make_stage", no_memory)
        with pytest.raises(MemoryError):
            train(tmp_path, *small, "--overwrite", "--seed", "7")
    assert all(states(tmp_path, stage) for stage in ("reblur", "deblur", "finetune"))  # it replaced nothing yet

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(DR_training, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *small, "--overwrite", "--seed", "7")
    assert not any(states(tmp_path, stage) for stage in ("reblur", "deblur", "finetune"))
    monkeypatch.undo()
    with pytest.raises(UserError, match=rf"{NETWORK} exists already, and has no states to continue from; move it away"):
        train(tmp_path, *small, "--resume", "auto")
    for name in (NETWORK, "DeblurringNet_FT.pth"):
        (tmp_path / "nets" / name).unlink()
    train(tmp_path, *small, "--resume", "auto")
