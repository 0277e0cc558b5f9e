"""Losses and gradients that are not finite, images that break in training, folders that look wrong at the start."""

import csv
import math
from pathlib import Path

import pytest

from tests.support.samples import SAMPLES
from tests.support.training import log_lines, pairs, same, states, train, values, weights
from utils.common.errors import UserError
from utils.training.data import TrainingData

STAGE = ("--stage", "deblur", "--n_epochs", "3")
MANY_BAD_STEPS = r"4 consecutive steps\. Lower --lr, give --clip_grad, .* in .*blur:(\n  0000\d\d\.png)+$"


def run(folder: Path, *more: str, data: Path | None = None):
    return train(folder, *STAGE, *more, trainset=(str(data or pairs(folder)),))


def break_a_frame(monkeypatch, name: str) -> None:
    """Let every patch of a frame be NaN."""
    whole = TrainingData._on_device

    def broken(self, loaded):
        batch = whole(self, loaded)
        for image, path in zip(batch.images["blurry"], batch.names, strict=True):
            if Path(path).name == name:
                image.fill_(math.nan)
        return batch

    monkeypatch.setattr(TrainingData, "_on_device", broken)


@pytest.mark.slow
def test_a_step_with_nan_changes_nothing_and_is_reported_with_its_files(tmp_path, monkeypatch):
    break_a_frame(monkeypatch, "000048.png")
    run(tmp_path, "--batch_size", "1")
    text = log_lines(tmp_path)
    skipped = [text.splitlines()[i : i + 2] for i, line in enumerate(text.splitlines()) if "skipped step" in line]
    assert len(skipped) == 3  # once an epoch
    assert all("loss total nan" in line and files == "  000048.png" for line, files in skipped)
    assert "3 steps skipped" in text
    assert all(map(math.isfinite, values(tmp_path / "log", "deblur", "loss/total")))
    assert len(values(tmp_path / "log", "deblur", "loss/total")) == 6

    where = next(i for i in range(1, 4) if f"skipped step {i}:" in text)  # of the first epoch
    assert where > 1  # else there is nothing to compare with
    for name, steps in (("before", where - 1), ("after", where)):
        run(tmp_path / name, "--batch_size", "1", "--max_steps", str(steps), data=tmp_path / "pairs")
    assert same(weights(tmp_path / "before"), weights(tmp_path / "after"))


@pytest.mark.slow
def test_skipped_steps_are_counted_over_all_parts_of_a_run(tmp_path, monkeypatch):
    break_a_frame(monkeypatch, "000048.png")
    for more in (("--max_steps", "4"), ("--max_steps", "5"), ("--n_epochs", "3")):
        run(tmp_path, "--batch_size", "1", "--resume", "auto", *more)
    (table,) = tmp_path.glob("log/*/log.csv")
    with table.open(newline="") as file:
        assert [(row["epoch"], row["steps_skipped"]) for row in csv.DictReader(file)] == [
            ("1", "1"),
            ("2", "2"),
            ("3", "3"),
        ]
    assert "3 steps skipped" in log_lines(tmp_path)


@pytest.mark.slow
def test_a_run_whose_last_steps_were_skipped_says_so_at_its_end(tmp_path):
    run(tmp_path, "--max_steps", "2")
    assert "WARNING" not in log_lines(tmp_path)
    run(tmp_path, "--resume", "auto", "--max_steps", "4", "--lr", "1e30")
    warning = log_lines(tmp_path).splitlines()[-1]
    assert "WARNING: skipped 1 step of 4, the last one, too: the network may have diverged" in warning
    assert f"--resume {tmp_path}/nets/states/deblur/step-N.pth --overwrite, with a lower --lr" in warning


@pytest.mark.slow
def test_too_many_bad_steps_in_a_row_end_the_run_and_keep_what_was_there(tmp_path, monkeypatch):
    run(tmp_path, "--max_steps", "2")
    before = (tmp_path / "nets" / "DeblurringNet_NF.pth").read_bytes()
    for name in ("000046.png", "000047.png", "000048.png"):
        break_a_frame(monkeypatch, name)
    with pytest.raises(UserError, match=MANY_BAD_STEPS):
        run(tmp_path, "--resume", "auto", "--max_bad_steps", "4", "--n_epochs", "9", "--save_every", "1steps")
    assert (tmp_path / "nets" / "DeblurringNet_NF.pth").read_bytes() == before
    assert [path.name for path in states(tmp_path)] == ["step-000000002.pth"]


@pytest.mark.slow
def test_a_diverging_run_ends_with_status_2(tmp_path):
    with pytest.raises(UserError, match="the loss or gradient was not finite in 20 consecutive steps"):
        run(tmp_path, "--lr", "1e30", "--n_epochs", "100")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def test_an_image_that_breaks_in_training_ends_it_with_its_name(tmp_path):
    truncate(pairs(tmp_path) / "sharp" / "000048.png")
    with pytest.raises(UserError, match=r"sharp/000048\.png is damaged or incomplete"):
        run(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--cache_dir", "cache")])
def test_or_it_is_skipped_and_counted(tmp_path, more, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truncate(pairs(tmp_path) / "sharp" / "000048.png")
    run(tmp_path, "--skip_bad_images", *more)
    text = log_lines(tmp_path)
    assert len([line for line in text.splitlines() if "skipped in every epoch" in line and "000048.png" in line]) == 1
    assert text.count(", 1 image skipped") == 3  # a line an epoch
    assert len(values(tmp_path / "log", "deblur", "loss/total")) == 6


@pytest.mark.slow
def test_swapped_sides_are_reported_at_the_start(tmp_path, run_here):
    data = pairs(tmp_path)
    (data / "sharp").rename(data / "other")
    (data / "blur").rename(data / "sharp")
    (data / "other").rename(data / "blur")
    paths = ["--output_dir", str(tmp_path / "nets"), "--log_dir", str(tmp_path / "log"), "--device", "cpu"]
    small = ["--stage", "deblur", "--width", "4", "--patch_size", "32", "--max_steps", "1", "--num_workers", "0"]
    result = run_here("DR_training.py", "--trainset_dir", str(data), *paths, *small)
    assert result.returncode == 0
    (warning,) = [line for line in result.stdout.splitlines() if "WARNING" in line]
    assert "swapped" in warning
    baseline = run_here("DR_training.py", "--trainset_dir", str(SAMPLES), *paths, *small, "--overwrite")
    assert baseline.returncode == 0
    assert "WARNING" not in baseline.stdout
