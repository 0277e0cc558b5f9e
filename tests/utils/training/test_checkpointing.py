"""States on disk: killed while they are written, with any bytes as SHA-256, with keys that are not ours."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from models.checkpoint import CheckpointError, load_file
from utils.common.errors import SystemLacksError, UserError
from utils.common.files import file_digest, save_tensors
from utils.training.checkpointing import CheckpointManager
from utils.training.optimization import OptimizationSettings, TrainingState
from utils.training.progress import Progress
from utils.training.provenance import ResumeSettings

MUST_MATCH = {"stage": "deblur", "architecture": {}, "data": ["a pair"]}


def a_run() -> TrainingState:
    """A network after a step, with an average."""
    torch.manual_seed(0)
    training = TrainingState(nn.Linear(1, 1), 1e-4, OptimizationSettings(ema_decay=0.9))
    training.backward(training.network(torch.ones(1)), numbers=torch.zeros(1))
    training.optimizer.step()
    return training


def save(folder: Path, *steps: int) -> CheckpointManager:
    manager, about = CheckpointManager(folder, 9), {"settings": {}, "validated_on": "", "log": "log", "sums": {}}
    for step in steps:
        manager.save(Progress(step), {"fixed": MUST_MATCH, **about, **a_run().to_file()})
    return manager


def content(change: Callable[[dict], object]) -> Callable[[Path, Path], None]:
    """Return a function that changes a state's content, and its SHA-256 with it."""

    def damage(state: Path, checksum: Path) -> None:
        changed = load_file(state)
        change(changed)
        save_tensors(changed, state)
        checksum.write_text(file_digest(state))

    return damage


def make_a_folder(path: Path) -> None:
    path.unlink()
    (path / "x").mkdir(parents=True)


DAMAGES = [
    ("its SHA-256 differs", lambda _, checksum: checksum.write_bytes(b"\xff\xfe\x00")),
    ("its SHA-256 differs", lambda _, checksum: checksum.write_bytes(b"")),
    ("its SHA-256 differs", lambda _, checksum: checksum.write_bytes(b"0" * 10**6)),
    ("the SHA-256 of a state, cannot be read: Is a directory", lambda _, checksum: make_a_folder(checksum)),
    ("is a folder", lambda state, _: make_a_folder(state)),
    ("network is missing", content(lambda state: state.pop("network"))),
    ("progress.step is missing", content(lambda state: state["progress"].pop("step"))),
    ("progress.speed is unknown", content(lambda state: state["progress"].update(speed=1))),
    ("random.torch is missing", content(lambda state: state["random"].pop("torch"))),
    ("optimizer.0.exp_avg is missing", content(lambda state: state["optimizer"][0].pop("exp_avg"))),
    ("fixed.data is missing", content(lambda state: state["fixed"].pop("data"))),
    ("fixed.stage is missing", content(lambda state: state["fixed"].pop("stage"))),
    ("settings are no texts", content(lambda state: state["settings"].update(lr=1))),
    ("sums are no numbers", content(lambda state: state["sums"].update(total="1"))),
    ("progress has numbers that are no counts", content(lambda state: state["progress"].update(epoch=-4))),
    ("progress has numbers that are no counts", content(lambda state: state["progress"].update(step=float("nan")))),
    ("the optimizer has moments of 1 tensors", content(lambda state: state["optimizer"].popitem())),
    ("moments of 0 tensors", content(lambda state: (state["optimizer"].clear(), state["progress"].update(step=1000)))),
    ("other shapes", content(lambda state: state["optimizer"][0].update(exp_avg=torch.zeros(3)))),
    ("its weights are not finite", content(lambda state: state["network"]["weight"].fill_(torch.inf))),
    ("log is of type NoneType", content(lambda state: state.update(log=None))),
    ("later is unknown", content(lambda state: state.update(later=1))),
    ("the network has 1", content(lambda state: state["network"].popitem())),
    ("does not fit the network", content(lambda state: state["average"].popitem())),
    ("does not fit the network", content(lambda state: state["random"].update(python=1))),
    ("is not the state of a training run", content(dict.clear)),
]


@pytest.mark.parametrize(("problem", "damage"), DAMAGES)
def test_a_state_that_is_none_of_ours_is_reported_and_the_one_before_used(tmp_path, problem, damage):
    before, newest = reversed(save(tmp_path, 3, 4).files())
    damage(newest, newest.with_name(f"{newest.name}.sha256"))
    training = TrainingState(nn.Linear(1, 1), 1e-4, OptimizationSettings(ema_decay=0.9))
    resumed = CheckpointManager(tmp_path, 9).resume("auto", training, ResumeSettings(MUST_MATCH, {}))
    assert resumed.progress.step == 3
    assert torch.equal(training.network.weight, load_file(before)["network"]["weight"])
    line, where = resumed.notes
    assert problem in line
    assert newest.name in line
    assert f"resumed from {before}" in where
    CheckpointManager(tmp_path, 9).clear(from_step=3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [before.name, f"{before.name}.sha256"]


@pytest.mark.parametrize(("problem", "damage"), DAMAGES)
def test_no_state_that_can_be_used_is_one_line(tmp_path, problem, damage):
    manager = save(tmp_path, 4)
    (state,) = manager.files()
    damage(state, state.with_name(f"{state.name}.sha256"))
    for which, error in (("auto", UserError), (str(tmp_path), UserError), (str(state), (UserError, CheckpointError))):
        with pytest.raises(error, match=problem if which != str(state) or state.is_file() else "no state") as found:
            manager.resume(which, a_run(), ResumeSettings(MUST_MATCH, {}))
        assert "\n" not in str(found.value)


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_kill_while_a_state_is_written_again_leaves_a_whole_one(tmp_path, monkeypatch, killed_at):
    """Between the state and its checksum, in either order of renaming."""
    manager = save(tmp_path, 0)
    state = load_file(manager.files()[0])
    replaced = []
    replace = Path.replace

    def killed(self, target):
        replaced.append(target)
        if len(replaced) == killed_at:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        manager.save(Progress(), state, again=True)
    path, _, problems = CheckpointManager(tmp_path, 1).newest()
    assert (path.name, problems) == ("step-000000000.pth", [])


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ESTALE, SystemLacksError), (errno.EMFILE, SystemLacksError), (errno.EACCES, CheckpointError)],
)
def test_a_state_that_cannot_be_read_now_is_not_passed_over(tmp_path, monkeypatch, number, kind):
    """The run that continued from the one before would delete it."""
    manager = save(tmp_path, 3, 4)

    def load(path, **_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(kind, match=r"step-0*4\.pth"):
        manager.newest()
    monkeypatch.undo()
    assert manager.newest()[0] == manager.files()[0]
