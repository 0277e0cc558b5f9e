"""Training that is stopped at any moment and resumed ends as if it had not been."""

import csv
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

import DR_training
from models.checkpoint import load_file
from tests.support.processes import run_script
from tests.support.training import NETWORK, STAGE, arguments, log_lines, pairs, same, states, train, weights
from utils.common.errors import UserError
from utils.training.checkpointing import CheckpointManager
from utils.training.run_log import RunLog

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """A run of 3 epochs of 3 frames, 6 steps, that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, *STAGE, "--n_epochs", "3", "--n_steps", "2", trainset=(str(pairs(folder)),))
    return folder


def part(folder: Path, *more: str) -> Namespace:
    return train(folder, *STAGE, "--n_epochs", "3", "--n_steps", "2", *more, trainset=(str(pairs(folder)),))


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_run_in_two_parts_ends_with_the_same_bits(tmp_path, whole_run, step):
    part(tmp_path, "--max_steps", str(step))
    part(tmp_path, "--resume", "auto")
    assert same(weights(tmp_path), weights(whole_run))
    assert f"resumed from {states(tmp_path)[-1].parent}/step-{step:09}.pth: step {step}, epoch" in log_lines(tmp_path)
    assert "changed since: max_steps" in log_lines(tmp_path)


def test_stages_that_are_finished_are_not_trained_again(tmp_path):
    small = ("--stage", "all", "--n_epochs", "1")
    train(tmp_path, *small)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "nets").glob("*.pth")}
    train(tmp_path, *small, "--resume", "auto")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "nets").glob("*.pth")} == before
    assert len(before) == 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "text"])
def test_a_damaged_state_is_reported_and_the_one_before_used(tmp_path, whole_run, damage):
    part(tmp_path, "--max_steps", "4", "--save_every", "1steps")
    newest, before = states(tmp_path)
    content = bytearray(newest.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray(b"not a state")
    newest.write_bytes(content)
    part(tmp_path, "--resume", "auto")
    assert same(weights(tmp_path), weights(whole_run))
    lines = log_lines(tmp_path)
    assert f"{newest} is damaged: its SHA-256 differs from that in {newest.name}.sha256" in lines
    assert f"resumed from {before}: step 3" in lines


def test_no_whole_state_left_is_an_error_and_not_a_new_run(tmp_path):
    part(tmp_path, "--max_steps", "2", "--save_every", "1steps")
    for state in (tmp_path / "nets" / "states" / "deblur").glob("*.pth"):
        state.write_bytes(b"")
    with pytest.raises(UserError, match=r"no state of the run can be read: .* --resume none starts a new run"):
        part(tmp_path, "--resume", "auto")


def test_what_must_not_change_is_refused_with_the_differences(tmp_path):
    part(tmp_path, "--max_steps", "1")
    with pytest.raises(UserError, match=r"architecture was \{'width': 4.*\}, is \{'width': 6"):
        part(tmp_path, "--resume", "auto", "--width", "6")
    (pairs(tmp_path) / "blur" / "000048.png").unlink()
    (pairs(tmp_path) / "sharp" / "000048.png").unlink()
    with pytest.raises(
        UserError, match=r"data was 3 frames, is 2: 1 are missing \(paired pair 000048.png\). Give those"
    ):
        part(tmp_path, "--resume", "auto")
    (state,) = states(tmp_path)
    with pytest.raises(UserError, match=r"stage was deblur, is reblur. Give those that the run was started with"):
        train(tmp_path, "--stage", "reblur", "--resume", str(state), trainset=(str(pairs(tmp_path)),))


def test_what_may_change_is_logged(tmp_path):
    part(tmp_path, "--max_steps", "1")
    (state,) = states(tmp_path)
    part(tmp_path, "--resume", str(state.parent), "--batch_size", "1", "--lr", "1e-3", "--max_steps", "4")
    lines = log_lines(tmp_path)
    assert "changed since: batch_size 2 -> 1, max_steps 1 -> 4, lr 1e-4 (default) -> 1e-3\n" in lines
    part(tmp_path, "--resume", "auto", "--batch_size", "1", "--log_dir", str(tmp_path / "other"), "--max_steps", "4")
    lines = "".join(path.read_text() for path in tmp_path.glob("other/*/log.txt"))
    assert f"changed since: lr 1e-3 -> 1e-4 (default); paths: log_dir {tmp_path}/log -> {tmp_path}/other\n" in lines
    progress = load_file(states(tmp_path)[0])["progress"]
    assert (progress["step"], progress["epoch"], progress["position"]) == (4, 1, 2)


def test_a_stopped_run_is_not_overwritten_by_accident(tmp_path):
    part(tmp_path, "--max_steps", "1")
    with pytest.raises(UserError, match=r"NF.pth exists already; give --resume auto to continue it, --overwrite"):
        part(tmp_path)
    (tmp_path / "nets" / NETWORK).unlink()
    with pytest.raises(UserError, match=r"step-000000001.pth is the state of a stopped run; give --resume auto"):
        part(tmp_path)
    part(tmp_path, "--overwrite", "--max_steps", "2")
    assert [path.name for path in states(tmp_path)] == ["step-000000002.pth"]


def test_resume_without_anything_there(tmp_path):
    part(tmp_path, "--resume", "auto", "--max_steps", "1")
    assert "no state with a step in" in log_lines(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--resume .*empty: no state step-\*.pth there; expected a folder with"):
        part(tmp_path / "other", "--resume", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"look in .*nets/states/deblur, or use --resume auto --output_dir .*nets"):
        part(tmp_path / "other", "--resume", str(tmp_path / "nets"))
    with pytest.raises(UserError, match=r"--resume 'nowhere.pth': expected auto, none, or a state step-"):
        part(tmp_path / "other", "--resume", "nowhere.pth")


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small file system")
def test_a_full_disk_ends_the_run_with_the_old_state_intact(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={14 * 2**20}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        paths = ["--output_dir", str(disk / "nets"), "--log_dir", str(tmp_path / "log"), "--keep", "100"]
        command = arguments(tmp_path, *STAGE, *paths, "--save_every", "1steps", "--n_epochs", "400")
        result = run_script("DR_training.py", *command)
        assert result.returncode == 2
        full = r"error: .* cannot be written: no space left on the disk \(.*iB free\); make room.* unchanged|intact\."
        assert re.search(full, result.stderr)
        assert "Traceback" not in result.stderr
        found = CheckpointManager(disk / "nets" / "states" / "deblur", 1).newest()
        assert found is not None
        _, content, problems = found
        assert content["progress"]["step"] >= 1
        assert not problems
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_that_is_killed_before_its_first_state_is_due_can_go_on(tmp_path, whole_run, monkeypatch):
    """Whatever ends it: the network is written every epoch, so that without a state it could not even start again."""

    def die(*arguments, **named):
        raise SystemExit(1)

    monkeypatch.setattr(RunLog, "epoch", die)  # after the first epoch's network was written
    with pytest.raises(SystemExit):
        part(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "nets" / NETWORK).exists()
    part(tmp_path, "--resume", "auto")
    assert same(weights(tmp_path), weights(whole_run))


def test_an_error_in_training_keeps_the_steps_before_it(tmp_path, whole_run):
    frame = pairs(tmp_path) / "sharp" / "000048.png"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:2000])
    with pytest.raises(UserError, match="000048.png is damaged"):
        part(tmp_path, "--batch_size", "1")
    assert "continue with --resume auto" in log_lines(tmp_path)
    frame.write_bytes(whole)
    part(tmp_path, "--batch_size", "1", "--resume", "auto")
    part(tmp_path / "one", "--batch_size", "1")
    assert same(weights(tmp_path), weights(tmp_path / "one"))


def test_a_lost_network_is_written_again_and_only_that_is_logged(tmp_path, whole_run):
    part(tmp_path)
    (tmp_path / "nets" / NETWORK).unlink()
    part(tmp_path, "--resume", "auto")
    assert same(weights(tmp_path), weights(whole_run))
    assert "nothing left to train: 6 steps are done, 6 were requested; wrote" in log_lines(tmp_path)


@pytest.mark.parametrize("fewer", ["--max_steps", "--n_epochs"])
def test_fewer_steps_than_are_done_are_a_warning(tmp_path, fewer):
    part(tmp_path, "--max_steps", "5")
    part(tmp_path, "--resume", "auto", fewer, "2")
    asked = {"--max_steps": 2, "--n_epochs": 4}[fewer]
    assert f"nothing left to train: 5 steps are done, {asked} were requested; " in log_lines(tmp_path)
    assert "WARNING: the run stays at step 5, which is later than requested" in log_lines(tmp_path)


def test_a_network_that_is_not_that_of_the_last_state_is_a_warning(tmp_path):
    """An error in the middle of an epoch saves a state alone, and so do those that are due there."""
    part(tmp_path, "--max_steps", "2")
    network = tmp_path / "nets" / NETWORK
    earlier = network.read_bytes()
    part(tmp_path, "--resume", "auto", "--max_steps", "3")
    network.rename(tmp_path / "of_step_3.pth")
    network.write_bytes(earlier)
    part(tmp_path, "--resume", "auto", "--max_steps", "3")
    assert f"{network} is unchanged, but not the network of step 3: to have that written, move" in log_lines(tmp_path)
    assert network.read_bytes() == earlier
    network.unlink()
    for last in (f"wrote {network}", f"{network} is unchanged"):
        part(tmp_path, "--resume", "auto", "--max_steps", "3")
        assert log_lines(tmp_path).endswith(f"nothing left to train: 3 steps are done, 3 were requested; {last}\n")
    assert network.read_bytes() == (tmp_path / "of_step_3.pth").read_bytes()


def test_an_older_state_takes_the_place_of_newer_ones_only_if_asked_to(tmp_path):
    part(tmp_path, "--save_every", "1steps", "--keep", "9")
    older = states(tmp_path)[-2]
    before = {path: path.read_bytes() for path in (tmp_path / "nets").rglob("*.pth")}
    with pytest.raises(UserError, match=r"NF.pth exists already; give --resume auto .*--overwrite"):
        part(tmp_path, "--resume", str(older))
    assert {path: path.read_bytes() for path in (tmp_path / "nets").rglob("*.pth")} == before
    part(tmp_path, "--resume", str(older), "--overwrite", "--max_steps", "4", "--keep", "9")
    assert [load_file(path)["progress"]["step"] for path in states(tmp_path)] == [4, 2, 1]


def test_a_run_from_a_state_of_another_folder_leaves_that_run_alone(tmp_path):
    """Its log above all: rows after the state had been replaced. So it is with a copy of the folder."""
    part(tmp_path / "first", "--save_every", "1steps", "--keep", "9")
    shutil.copytree(tmp_path / "first" / "nets", tmp_path / "copy" / "nets")
    before = {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()}
    part(tmp_path / "second", "--max_steps", "1", "--seed", "7")
    log = ("--log_dir", str(tmp_path / "first" / "log"))
    state = str(states(tmp_path / "first")[-2])
    part(tmp_path / "second", "--resume", state, "--overwrite", "--max_steps", "3", "--keep", "9", *log)
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in states(tmp_path / "second")] == ["step-000000003.pth", "step-000000002.pth"]
    part(tmp_path / "copy", "--resume", "auto", "--n_epochs", "4", *log)
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_is_the_same_from_everywhere_and_its_copy_is_not(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    part(Path(), "--max_steps", "1")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    part(Path("run"), "--resume", "auto", "--max_steps", "2")
    (log,) = (tmp_path / "run" / "log").iterdir()
    before = {path: path.read_bytes() for path in log.iterdir()}
    monkeypatch.chdir(tmp_path / "copy")
    part(Path(), "--resume", "auto", "--max_steps", "3", "--log_dir", str(log.parent))
    assert {path: path.read_bytes() for path in log.iterdir()} == before


def test_the_best_network_of_a_run_that_another_one_replaces_goes_too(tmp_path):
    part(tmp_path / "a", "--max_steps", "2")
    best = tmp_path / "b" / "nets" / "DeblurringNet_NF_best.pth"
    validation = ("--valset_dir", str(pairs(tmp_path)), "--val_every", "1")
    part(tmp_path / "b", "--max_steps", "1", "--seed", "7", *validation)
    assert best.exists()
    part(tmp_path / "b", "--resume", str(states(tmp_path / "a")[0]), "--overwrite", "--max_steps", "3")
    assert not best.exists()


def test_the_means_of_an_interrupted_epoch_are_of_all_its_steps(tmp_path, whole_run):
    part(tmp_path, "--max_steps", "3")
    part(tmp_path, "--resume", "auto")

    def epochs(folder):
        (table,) = folder.glob("log/*/log.csv")
        with table.open(newline="") as file:
            return {row["epoch"]: row["loss"] for row in csv.DictReader(file)}

    assert epochs(tmp_path) == pytest.approx(epochs(whole_run))


def test_nothing_is_written_among_images_that_are_read(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(pairs(tmp_path) / "blur" / "000048.png", photos)
    small = arguments(tmp_path, "--stage", "finetune", "--log_dir", str(photos / "log"), trainset=(str(photos),))
    with pytest.raises(UserError, match=r"--log_dir .*log is inside .*photos, whose images are read at any depth"):
        DR_training.main(DR_training.parse_args(small))
