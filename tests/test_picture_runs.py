"""Runs over photographs: single files, broken ones among many, nothing written over, a killed run that goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import D_testing
from tests.helpers import ROOT
from utils.errors import UserError
from utils.images import read_image


def command(folder, *sources, more=()):
    named = [argument for source in sources for argument in ("--testset_dir", str(source))]
    weights = folder / "nets" / "DeblurringNet_FT.pth"
    return [*named, "--weights", str(weights), "--save_dir", str(folder / "out"), "--device", "cpu", *more]


def run(folder, *sources, more=()):
    D_testing.main(D_testing.parse_args(command(folder, *sources, more=more)))


def rows(folder):
    with (folder / "out" / "results.csv").open() as file:
        return [row["image"] for row in csv.DictReader(file)]


def test_single_files(tmp_path, small_networks, photo):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        photo.save(tmp_path / folder / "shaky.jpg")
    run(tmp_path, tmp_path / "x" / "shaky.jpg")
    assert read_image(tmp_path / "out" / "shaky.png").shape == (48, 72, 3)
    run(tmp_path, tmp_path / "x" / "shaky.jpg", tmp_path / "y" / "shaky.jpg", more=("--overwrite",))
    assert len(rows(tmp_path)) == 2
    assert len(list((tmp_path / "out").rglob("shaky.png"))) == 3


def test_one_broken_file_among_many_is_told_at_the_end(tmp_path, small_networks, photo, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a", "b", "c", "d"):
        photo.save(photos / f"{name}.png")
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:300])
    (photos / "c.png").write_bytes(b"no image")
    photo.crop((0, 0, 7, 40)).save(photos / "e.png")
    left_out = r"3 of the files were left out:\n .*b\.png .*\n .*c\.png cannot be read.*\n .*e\.png is 7×40 px; .* 8×8"
    with pytest.raises(UserError, match=left_out):
        run(tmp_path, photos)
    assert rows(tmp_path) == ["a.png", "d.png"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["photos"]
    assert (summary["complete"], len(summary["problems"])) == (False, 3)
    photo.save(photos / "b.png")
    (photos / "c.png").unlink()
    (photos / "e.png").unlink()
    kept = (tmp_path / "out" / "photos" / "a.png").stat().st_mtime_ns
    run(tmp_path, photos, more=("--resume",))
    assert sorted(rows(tmp_path)) == ["a.png", "b.png", "d.png"]
    assert (tmp_path / "out" / "photos" / "a.png").stat().st_mtime_ns == kept


def test_nothing_is_written_over_unless_asked_to(tmp_path, small_networks, photo):
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "a.png")
    run(tmp_path, tmp_path / "photos")
    with pytest.raises(UserError, match=r"out/results\.csv exists already; give --resume .* --overwrite"):
        run(tmp_path, tmp_path / "photos")
    run(tmp_path, tmp_path / "photos", more=("--overwrite",))
    with pytest.raises(UserError, match=r"other settings: self_ensemble was False, is True"):
        run(tmp_path, tmp_path / "photos", more=("--resume", "--self_ensemble"))
    (tmp_path / "other" / "photos").mkdir(parents=True)
    photo.save(tmp_path / "other" / "photos" / "a.png")
    with pytest.raises(UserError, match=r"other settings: testset_dir was .*photos'\], is .*other/photos'\]"):
        run(tmp_path, tmp_path / "other" / "photos", more=("--resume",))
    before = (tmp_path / "photos" / "a.png").read_bytes()
    with pytest.raises(UserError, match="is one of the files to restore"):
        D_testing.main(
            D_testing.parse_args(
                ["--testset_dir", str(tmp_path / "photos" / "a.png"), "--save_dir", str(tmp_path / "photos"),
                 "--weights", str(small_networks / "DeblurringNet_FT.pth"), "--device", "cpu", "--overwrite"]
            )
        )  # fmt: skip
    assert (tmp_path / "photos" / "a.png").read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_killed_run_goes_on_to_the_same_results(tmp_path, small_networks, photo):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(12):
        photo.resize((400, 300)).save(photos / f"{i:02}.png")
    process = subprocess.Popen([sys.executable, "D_testing.py", *command(tmp_path, photos)], cwd=ROOT)
    while not (tmp_path / "out" / "photos" / "02.png").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = set((tmp_path / "out" / "photos").glob("*.png"))
    assert len(left) < 12
    run(tmp_path, photos, more=("--resume",))
    assert sorted(rows(tmp_path)) == [f"{i:02}.png" for i in range(12)]
    for path in (tmp_path / "out" / "photos").glob("*.png"):
        assert read_image(path).shape == (300, 400, 3)
