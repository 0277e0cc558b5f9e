"""Runs that end early: killed, by Ctrl-C and SIGTERM, with a loss that diverges, by paths that cannot be written."""

import os
import platform
import random
import re
import shutil
import signal
import time

import pytest

import DR_training
from models.checkpoint import load_deblurring_net, load_file
from tests.support.processes import Script, interrupt, run_script
from tests.support.samples import ROOT
from tests.support.training import STAGE, arguments, pairs, same, states, train, weights
from utils.common.errors import UserError
from utils.common.files import _HOST, LOCK
from utils.training.run_log import RunLog


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_twenty_kills_at_random_moments_change_no_bit(tmp_path):
    def start(name: str) -> Script:
        more = (*STAGE, "--n_epochs", "40", "--save_every", "1steps", "--resume", "auto")
        options = arguments(tmp_path / name, *more, trainset=(str(pairs(tmp_path)),))
        return Script("DR_training.py", *options, stderr=False)

    def newest() -> int:
        found = states(tmp_path / "killed")
        return int(found[0].stem.partition("-")[2]) if found else 0

    def end(script: Script) -> int:
        script.communicate()
        return script.returncode

    assert end(start("whole")) == 0
    rng, statuses, reached = random.Random(0), [], set()
    for _ in range(20):
        script = start("killed")
        for line in script.stdout:
            if "2 patches of 32" in line:  # the loop begins
                break
        before = newest()
        while newest() == before and script.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(script.pid, signal.SIGKILL)
        statuses.append(end(script))
        reached.add(newest())
    assert statuses.count(-signal.SIGKILL) >= 10  # later ones may find the run at its end
    assert len(reached) >= 10  # kills in the middle, not before the first step or all at one
    assert end(start("killed")) == 0
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [(15, 143, "0"), (15, 143, "2"), (2, 130, "0"), (2, 130, "2"), (1, 129, "2")],
    ids=["SIGTERM", "SIGTERM with workers", "SIGINT", "SIGINT with workers", "SIGHUP with workers"],
)
def test_signals_save_and_exit_with_a_status_of_their_own(tmp_path, number, status, workers):
    ended, rest = interrupt(tmp_path, "epoch 2", workers, number, ("--n_epochs", "400"))
    assert ended == status, rest
    assert "Traceback" not in rest
    assert "continue with --resume auto" in rest
    (state,) = states(tmp_path)
    assert load_file(state)["progress"]["step"] == int(state.stem.partition("-")[2])


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_leaves_a_loadable_checkpoint(tmp_path, workers):
    status, rest = interrupt(tmp_path, "epoch 1", workers)
    assert status == 130, rest
    assert "interrupted after step" in rest
    assert "Traceback" not in rest
    assert load_deblurring_net(tmp_path / "nets" / "DeblurringNet_NF.pth").arguments["width"] == 4


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_before_the_first_step_keeps_the_old_network(tmp_path, small_networks, monkeypatch):
    before = (small_networks / "DeblurringNet_NF.pth").read_bytes()
    line = RunLog.line

    def line_then_interrupt(self, text):
        line(self, text)
        if "frames" in text:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunLog, "line", line_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *STAGE, "--overwrite")
    assert (small_networks / "DeblurringNet_NF.pth").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("step", [1, 2])
def test_ctrl_c_between_batches_of_unequal_size(tmp_path, monkeypatch, step):
    data = tmp_path / "pairs"
    shutil.copytree(ROOT / "samples" / "GOPRO" / "train" / "GOPR0372_07_00", data)
    for side in ("blur", "sharp"):
        shutil.copy(data / side / "000047.png", data / side / "000048.png")  # three frames, batches of two and one
    record = RunLog.step

    def record_then_interrupt(self, number, *numbers):
        if number == step:
            signal.raise_signal(signal.SIGINT)
        record(self, number, *numbers)

    monkeypatch.setattr(RunLog, "step", record_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *STAGE, trainset=(str(data),))
    (log,) = (tmp_path / "log").glob("*/log.txt")
    lines = log.read_text().splitlines()
    assert f"interrupted after step {step}; the network so far is " in lines[-1]
    assert len([line for line in lines if "epoch" in line]) == 1
    load_deblurring_net(tmp_path / "nets" / "DeblurringNet_NF.pth")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no such locks")
def test_two_runs_at_once_do_not_share_a_folder_and_a_killed_one_leaves_it(tmp_path):
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    endless = ("--n_epochs", "100000")
    first = Script("DR_training.py", *arguments(tmp_path, *STAGE, *endless), stderr=False)
    for line in first.stdout:
        if "epoch 1" in line:
            break
    os.kill(first.pid, signal.SIGSTOP)
    before = files()
    for more in ((), ("--resume", "auto"), ("--overwrite",)):
        result = run_script("DR_training.py", *arguments(tmp_path, "--stage", "all", *more))
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert f"another run (process {first.pid} on {platform.node()}) is writing into --output_dir" in result.stderr
    assert files() == before
    train(tmp_path / "other", *STAGE, "--max_steps", "1")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    train(tmp_path, *STAGE, "--resume", "auto", "--max_steps", "1")
    assert not (tmp_path / "nets" / LOCK).exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_what_killed_runs_left_is_removed_at_the_next_start(tmp_path):
    """Of runs killed in the middle of a state, a network, a table of the log and a frame of the cache."""
    killed = """
import os, sys
from pathlib import Path
import DR_training
from utils.common import files
replace = Path.replace
def replaced(self, target):
    if target.suffix == sys.argv[1]:
        os.kill(os.getpid(), 9)
    replace(self, target)
Path.replace = replaced
DR_training.main(DR_training.parse_args(sys.argv[2:]))
"""
    options = arguments(tmp_path, *STAGE, "--n_epochs", "1", "--resume", "auto", "--cache_dir", str(tmp_path / "cache"))
    folders = {".npy": "cache", ".pth": "nets/states/deblur", ".csv": "log/deblur_*"}
    for suffix, folder in folders.items():
        assert run_script("-c", killed, suffix, *options).returncode == -signal.SIGKILL
        (left,) = tmp_path.glob(f"{folder}/.*.tmp*")
        assert left.suffix == suffix
    written = ("nets", "nets/states/deblur", "cache")
    of_another_host = [tmp_path / folder / ".x.1-00000000.tmp.pth" for folder in written]
    of_a_live_process = [path.with_name(f".x.{os.getppid()}-{_HOST}.tmp.pth") for path in of_another_host]
    for path in (*of_another_host, *of_a_live_process):
        path.write_bytes(b"")
    train(tmp_path, *STAGE, "--n_epochs", "1", "--resume", "auto", "--cache_dir", str(tmp_path / "cache"))
    left = {path for path in tmp_path.rglob(".*") if path.is_file()}
    assert left == {path for path in (*of_another_host, *of_a_live_process) if path.parent.name != "deblur"}


@pytest.mark.parametrize("flag", ["--output_dir", "--log_dir"])
def test_places_that_cannot_be_written_are_refused_at_the_start(tmp_path, flag):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{flag} .*file cannot be written in"):
        train(tmp_path, *STAGE, flag, str(tmp_path / "file"))


def test_a_data_set_given_twice_is_refused(tmp_path):
    source = str(ROOT / "samples" / "GOPRO")
    with pytest.raises(UserError, match="--trainset_dir names .*GOPRO twice"):
        train(tmp_path, *STAGE, trainset=(source, f"gopro={source}"))


@pytest.mark.parametrize("times", ["0", "1001", "100000000", "1.5", ""])
def test_a_set_is_repeated_from_once_to_a_thousand_times(tmp_path, times):
    source = f"{times}*{ROOT / 'samples' / 'GOPRO'}"
    with pytest.raises(UserError, match=rf"{re.escape(source)}: expected N\*PATH with N from 1 to 1000; for a path"):
        train(tmp_path, *STAGE, trainset=(source,))


def test_a_set_to_validate_on_is_not_repeated(tmp_path):
    source = f"2*{ROOT / 'samples' / 'GOPRO'}"
    with pytest.raises(UserError, match=r"--valset_dir 2\*.*: expected a path; repeating frames is for training"):
        train(tmp_path, *STAGE, "--valset_dir", source)


def test_a_start_that_fails_leaves_no_empty_folders(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        train(tmp_path, *STAGE, trainset=(str(tmp_path / "nowhere"),))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "log").mkdir()  # it was there
    with pytest.raises(UserError, match="nowhere does not exist"):
        train(tmp_path, *STAGE, trainset=(str(tmp_path / "nowhere"),))
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--batch_size", "0", "should be at least 1"),
        ("--patch_size", "7", "should be at least 8"),
        ("--width", "3", "should be an even number from 2 to 512"),
        ("--lr", "nan", "should be a number above 0"),
        ("--gamma", "-1", "should be a number above 0"),
        ("--lambda_B", "nan", "should be a number from 0 up"),
        ("--lr", "1e300", "should be at most 1e+30, got '1e300'"),
        ("--patch_size", "1" + "0" * 20, "should be at most 4096"),
        ("--save_every", "1.5steps", "of epochs and steps a whole one, got '1.5steps'"),
        ("--output_dir", "a\nb", "without line breaks and other control characters, got 'a\\nb'"),
        ("--output_dir", "", "an argument is empty, perhaps by a shell variable that is not set"),
        ("--seed", "-1", "should be from 0 to 4294967295"),
        ("--num_workers", "-1", "should be at least 0"),
        ("--keep", "two", "should be a whole number, got 'two'"),
        ("--ema_decay", "1", "should be a number from 0 up to below 1"),
        ("--reblurring_weights", "x.pth", "goes with --stage reblur or finetune"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path, capsys, flag, value, message):
    with pytest.raises(SystemExit) as exit_status:
        DR_training.parse_args(arguments(tmp_path, *STAGE, flag, value))
    assert exit_status.value.code == 2
    error = capsys.readouterr().err
    assert flag in error
    assert message in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--trainset_dir", "nowhere"), "error: nowhere does not exist; expected the folder of a data set"),
        (("--device", "meta"), "error: --device meta is not supported; expected auto, cpu, cuda, cuda:N or mps"),
        (("--device", "mps"), "error: --device mps is not available (PyTorch finds no GPU of Apple's here)"),
        (("--device", "cuda:99"), "error: --device cuda:99 is not available"),
    ],
)
def test_bad_arguments_are_one_message_and_status_2(tmp_path, run_here, more, message):
    result = run_here("DR_training.py", *arguments(tmp_path), *more)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
