"""The recipes, on tiny data: slices that continue one another, their history, fine-tuning with its control."""

import csv
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import load_file
from tests.support.processes import LAUNCHER, launches
from tests.support.samples import ROOT, SAMPLES, load, save
from tools import compare_finetuning, training_history
from utils.common.errors import UserError
from utils.metrics.numpy_metrics import psnr

PAIR = {side: load(SAMPLES / "test" / "GOPR0881_11_01" / side / "000203.png")[:160, :160] for side in ("blur", "sharp")}
SEQUENCES = {
    "GOPRO_sample/train/GOPR0372_07_00": 2,
    "pairs_extra/gopro/GOPR0477_11_00": 4,
    **{f"pairs_extra/gopro_gamma/{name}": 1 for name in ("GOPR0374_11_00", "GOPR0384_11_02")},
    **{f"pairs_extra/reds/{name}": 1 for name in ("000", "001", "003", "020", "val")},
}
TINY = "--width 2 --patch_size 64 --batch_size 2 --num_workers 0"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What the recipe expects, all of it made of a bundled pair."""
    for sequence, count in SEQUENCES.items():
        for side, image in PAIR.items():
            for i in range(count):
                save(tmp_path / "da ta" / sequence / side / f"{i:06}.png", image)
    for folder in ("sharp", "sharp_extra"):
        save(tmp_path / "da ta" / folder / "photograph.png", PAIR["sharp"])
    return tmp_path / "da ta"


def variables() -> dict[str, str]:
    """Return the environment in which a recipe runs: its scripts are forked, one thread each, on the CPU."""
    return {**os.environ, **launches(), "PYTHON": " ".join(LAUNCHER), "OMP_NUM_THREADS": "1", "DEVICE": "cpu"}


def interpreter(path: Path) -> str:
    """Make a program of a name with a space that takes the place of Python."""
    path.write_text(f'#!/bin/sh\nexec {shlex.join(LAUNCHER)} "$@"\n')
    path.chmod(0o700)
    return str(path)


def run(name: str, *arguments: Path | str, **more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "recipes" / name), *map(str, arguments)]
    return subprocess.run(command, env=variables() | more, capture_output=True, text=True, cwd=arguments[0].parent)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_slice_continues_the_one_before_and_never_trains_on_what_is_held_out(data, tmp_path):
    out, history = tmp_path / "o ut", tmp_path / "his tory.csv"
    flags, python = f"{TINY} --valset_dir '{data}/pairs_extra/reds/val'", interpreter(tmp_path / "py thon")
    kept = [out / "data" / "mine.png", out / "links" / "mine.txt"]  # of the user
    for file in kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    other_data = f"2*paired=LINKS/train/gopro_0372 'paired={data}/pairs_extra/reds/000'"
    for more in ({"STEPS": "3"}, {"STEPS": "2", "STAGES": "deblur", "BLUR": "", "TRAINSET": other_data}):
        result = run("open_weights.sh", data, out, FLAGS=flags, HISTORY=str(history), PYTHON=python, **more)
        assert result.returncode == 0, result.stderr[-2000:]
    assert all(file.exists() for file in kept)
    first, second = (row for row in rows(history) if row["stage"] == "deblur")
    (reblur,) = (row for row in rows(history) if row["stage"] == "reblur")
    steps = [(row["slice"], row["steps"], row["steps_in_all"]) for row in (first, second)]
    assert steps == [("0", "3", "3"), ("1", "2", "5")]
    assert (first["lr"], reblur["lr"]) == ("1e-4, halved every 4 epochs", "2e-4, halved every 8 epochs")
    assert first["data"].startswith("24*sharp 24*sharp_extra 12*frames 36*gopro_0372 72*gopro_0477 ")
    assert ("share_still" in first["data"], "share_still" in second["data"]) == (True, False)
    assert second["data"].startswith("2*gopro_0372 ")
    assert first["worst"].partition("/")[0] in ("reds_003", "gopro_gamma", "gopro_0477")
    assert float(first["gopro_0477_input"]) == pytest.approx(psnr(PAIR["blur"], PAIR["sharp"]), abs=0.001)
    for name, key in (("NF", "deblurring_state_dict"), ("R", "blurring_state_dict")):
        assert {tensor.dtype for tensor in load_file(out / f"{name}.pth")[key].values()} == {torch.float16}
    assert not list(out.glob("*/states"))
    held_out = {path.resolve() for path in (out / "links" / "validation").rglob("*.png")}
    trained_on = {path.resolve() for folder in ("train", "frames") for path in (out / "links" / folder).rglob("*.png")}
    assert len(held_out) == 2 * (1 + 1 + 2)  # of four pairs the first and the fourth
    assert len(trained_on) == 2 * (2 + 2 + 1 + 4)
    assert not held_out & trained_on


@pytest.mark.slow
def test_processes_share_a_slice(data, tmp_path):
    result = run("open_weights.sh", data, tmp_path / "o ut", FLAGS=TINY, STAGES="deblur", STEPS="2", PROCESSES="2")
    assert result.returncode == 0, result.stderr[-2000:]
    (row,) = rows(tmp_path / "o ut" / "history.csv")
    assert (row["steps"], row["lr"]) == ("2", "1e-4, halved every 4 epochs, 2 processes")


@pytest.mark.slow
def test_a_slice_that_fails_keeps_what_there_was(data, tmp_path):
    out = tmp_path / "o ut"
    out.mkdir()
    (out / "NF.pth").write_bytes(b"what an earlier slice left")
    result = run("open_weights.sh", data, out, STEPS="2", FLAGS=TINY, STAGES="deblur")
    assert result.returncode == 1
    assert "NF.pth" in result.stderr
    assert (out / "NF.pth").read_bytes() == b"what an earlier slice left"
    assert run("open_weights.sh", data, out, STAGES="sharpen").returncode == 2


@pytest.mark.slow
def test_fine_tuning_runs_with_its_control_and_is_compared_with_it(data, tmp_path, small_networks, capsys):
    pairs = f"paired={data / 'pairs_extra' / 'reds' / '000'}"
    networks = small_networks.rename(tmp_path / "ne ts")
    result = run(
        "finetune_control.sh", networks / "DeblurringNet_NF.pth", networks / "ReBlurringNet.pth",
        tmp_path / "o ut", f"'paired={data / 'pairs_extra' / 'reds' / '003'}'", pairs,
        PYTHON=interpreter(tmp_path / "py thon"), FT_STEPS="1", SEEDS="3", TEST_FLAGS="--device cpu --metrics psnr",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert "lambda0.1-seed3" in result.stdout
    compare_finetuning.main(compare_finetuning.parse_args([str(tmp_path / "o ut" / "results")]))
    assert re.search(r"^lambda0\.1 +1 seeds, 1 images", capsys.readouterr().out, re.MULTILINE)


def test_fine_tuning_does_not_begin_where_the_test_set_cannot_be_read(tmp_path):
    result = run("finetune_control.sh", tmp_path / "NF.pth", "R.pth", "out", "paired=it's", "pairs", PYTHON="false")
    assert (result.returncode, "unmatched single quote" in result.stderr) == (2, True)


def test_a_row_needs_a_run_that_has_a_state(tmp_path, small_networks):
    command = [str(tmp_path / "h.csv"), "deblur", str(small_networks / "DeblurringNet_NF.pth"), "--device", "cpu"]
    args = training_history.parse_args([*command, "--valset_dir", str(SAMPLES), "--run", str(tmp_path)])
    with pytest.raises(UserError, match=r"holds no state of stage deblur: expected the --output_dir of its run"):
        training_history.main(args)
    assert not (tmp_path / "h.csv").exists()


@pytest.mark.slow
def test_a_slice_that_is_stopped_leaves_nothing_running_and_is_resumed(data, tmp_path):
    out, command = tmp_path / "out with space", ["bash", str(ROOT / "recipes" / "open_weights.sh")]
    options = variables() | {"FLAGS": TINY, "STAGES": "deblur", "MINUTES": "9.5"}
    first = subprocess.Popen([*command, data, out], env=options, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if list(out.glob("deblur-0/states/deblur/step-*.pth")) or first.poll() is not None:
            break
        time.sleep(0.1)
    refused = run("open_weights.sh", data, out, FLAGS=TINY, STAGES="deblur")
    assert (refused.returncode, "another slice is running" in refused.stderr) == (2, True)
    time.sleep(2)
    first.terminate()
    _, output = first.communicate(timeout=120)  # ends only when nothing holds stderr any more
    assert (first.returncode, "the same command continues this slice" in output) == (1, True), output[-2000:]
    assert not (out / "history.csv").exists()
    (state,) = out.glob("deblur-0/states/deblur/step-*.pth")
    done = int(state.stem.partition("-")[2])
    result = run("open_weights.sh", data, out, FLAGS=TINY, STAGES="deblur", STEPS=str(done + 2))
    assert result.returncode == 0, result.stderr[-2000:]
    assert [(row["slice"], row["steps"]) for row in rows(out / "history.csv")] == [("0", str(done + 2))]
    result = run("open_weights.sh", data, out, FLAGS=TINY, STAGES="deblur", STEPS="1", START="elsewhere.pth")
    assert (result.returncode, "NF.pth, not from" in result.stdout) == (0, True), result.stderr[-2000:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "is no history of training"),
        ("stage,steps_in_all\ndeblur,\n", "row 2: expected a number of steps_in_all"),
        ("stage,steps_in_all\ndeblur,3,4,5\n", "row 2"),
        ("stage,steps_in_all\ndeblur\n", "is no history of training"),
        ("\udcff", "is no history of training"),
    ],
)
def test_a_table_that_is_no_history_is_refused(tmp_path, text, message):
    table = tmp_path / "history.csv"
    table.write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        training_history.read_rows(table)


@pytest.mark.parametrize("more", [["--steps", "-1"], ["--valset_dir", "a/val", "b/val"]])
def test_arguments_that_make_no_sense_are_refused(more, capsys):
    with pytest.raises(SystemExit):
        training_history.parse_args(["h.csv", "deblur", "NF.pth", "--valset_dir", "x", *more])
    assert "should" in capsys.readouterr().err


def test_shifted_partners_are_parts_of_the_pictures(tmp_path):
    for i in range(8):
        for side, image in PAIR.items():
            save(tmp_path / "pairs" / side / f"{i}.png", image)
    command = [sys.executable, ROOT / "recipes" / "shift_partners.py", "pairs", "out", "3"]
    subprocess.run(command, cwd=tmp_path, check=True)
    shifts = set()
    for i in range(8):
        assert np.array_equal(load(tmp_path / "out" / "blur" / f"{i}.png"), PAIR["blur"][3:-3, 3:-3])
        sharp = load(tmp_path / "out" / "sharp" / f"{i}.png")
        places = [(y, x) for y in range(7) for x in range(7)]
        (found,) = [at for at in places if np.array_equal(sharp, PAIR["sharp"][at[0] :, at[1] :][:154, :154])]
        shifts.add(found)
    assert len(shifts) > 4
    (tmp_path / "pairs" / "sharp" / "7.png").write_bytes(b"")
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, "7.png is no image" in refused.stderr) == (1, True)
