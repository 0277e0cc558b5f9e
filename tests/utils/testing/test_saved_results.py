"""Scores of pictures that any method saved, and the published ones for comparison."""

import csv
import json
import shutil

import pytest

import D_testing
from tests.support.samples import SAMPLES, load, save
from utils.common.errors import UserError
from utils.images.codecs import read_image
from utils.metrics.numpy_metrics import METRICS, score
from utils.metrics.published import PUBLISHED, published_on

IMAGE = "GOPR0881_11_01/000203.png"


def run(folder, *more, testset=SAMPLES):
    arguments = ["--testset_dir", str(testset), "--save_dir", str(folder), "--device", "cpu", *more]
    D_testing.main(D_testing.parse_args(arguments))


def row(folder):
    with (folder / "results.csv").open() as file:
        (only,) = csv.DictReader(file)
    return only


@pytest.mark.slow
def test_saved_pictures_score_what_they_hold_whatever_they_are_called(tmp_path, small_networks):
    run(tmp_path / "ours", "--weights", str(small_networks / "DeblurringNet_FT.pth"))
    saved = tmp_path / "ours" / "GOPRO" / IMAGE
    expected = score(read_image(saved), load(SAMPLES / "test" / "GOPR0881_11_01" / "sharp" / "000203.png"))
    for name in ("GOPRO/GOPR0881_11_01/000203.png", IMAGE, "GOPR0881_11_01_000203.png", "000203.png"):
        folder = tmp_path / name.replace("/", "+")
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(saved, folder / name)
        before = {path: path.read_bytes() for path in folder.rglob("*.png")}
        run(tmp_path / "scores" / folder.name, "--from_results", str(folder))
        found = row(tmp_path / "scores" / folder.name)
        assert {metric: float(found[metric]) for metric in METRICS} == pytest.approx(expected, abs=1e-6)
        assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
        assert not list((tmp_path / "scores" / folder.name).rglob("*.png"))


def test_missing_and_ambiguous_pictures_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"1 of 1 pictures are missing \(GOPR0881_11_01/000203\)"):
        run(tmp_path / "scores", "--from_results", str(tmp_path / "empty"))
    picture = load(SAMPLES / "test" / "GOPR0881_11_01" / "blur" / "000203.png")
    for name in ("000203.png", "GOPR0881_11_01_000203.png"):
        save(tmp_path / "two" / name, picture)
    with pytest.raises(UserError, match=r"000203 could be any of .*; keep one of them"):
        run(tmp_path / "scores", "--from_results", str(tmp_path / "two"))
    with pytest.raises(UserError, match="nowhere is no folder"):
        run(tmp_path / "scores", "--from_results", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="scores against sharp images"):
        run(tmp_path / "scores", "--from_results", str(tmp_path / "two"), testset=tmp_path / "two")
    save(tmp_path / "small" / "000203.png", picture[:100, :100])
    with pytest.raises(UserError, match=r"000203\.png is 100×100 px, the test image .*000203\.png 640×384; expected"):
        run(tmp_path / "scores", "--from_results", str(tmp_path / "small"))


@pytest.mark.slow
def test_published_results_are_printed_for_comparison(tmp_path, small_networks, capsys):
    run(tmp_path / "out", "--weights", str(small_networks / "DeblurringNet_FT.pth"))
    out = capsys.readouterr().out
    assert "ASPDC, fine-tuned          32.09 dB / 0.959" in out
    published = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["GOPRO"]["published"]
    assert all(each["protocol"] and each["source"] for each in published)
    assert [each["method"] for each in published][:2] == [each.method for each in PUBLISHED[:2]]
    assert {each["method"] for each in published_on("hide")} >= {"ASPDC, fine-tuned", "Restormer"}
    assert published_on("paired") == []
