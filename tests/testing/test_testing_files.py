"""What D_testing.py is given and where it writes: names of any bytes, single files, figures, idle arguments."""

import csv
import json
import os
import sys

import pytest
import torch

import D_testing
from datasets import parse_source
from tests.support.processes import run_script
from tests.support.samples import SAMPLE, SAMPLES, load, save
from utils.common.errors import UserError
from utils.testing.result_files import read_table

ODD = os.fsdecode(b"caf\xe9.png")  # Latin 1, no UTF-8


@pytest.fixture
def photos(tmp_path):
    save(tmp_path / "photos" / "a.png", load(SAMPLE)[:24, :40])
    return tmp_path / "photos"


def command(source, out, small_networks, *more):
    weights = small_networks / "DeblurringNet_FT.pth"
    return ["--testset_dir", str(source), "--save_dir", str(out), "--weights", str(weights), "--device", "cpu", *more]


def run(*arguments):
    D_testing.main(D_testing.parse_args(command(*arguments)))


def refused(capsys, *arguments):
    """Return the parser's message."""
    with pytest.raises(SystemExit) as ended:
        D_testing.parse_args(["--testset_dir", "photos", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_names_that_are_no_utf_8_are_names(tmp_path, small_networks, photos):
    folder = tmp_path / os.fsdecode(b"\xfcber")
    photos.rename(folder)
    (folder / "a.png").rename(folder / ODD)
    (folder / "b.png").write_bytes(b"")
    out = tmp_path / "out"
    for more, left in (((), 1), (("--resume", "--figures", "2"), 1)):
        arguments = command(folder, out, small_networks, *more)
        result = run_script("D_testing.py", *arguments)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert f"{left} of the files were skipped" in result.stderr
        assert r"\udcfcber: 1 image," in result.stdout
        (row,) = read_table(out / "results.csv")
        assert row["image"] == ODD
        assert (out / row["saved_as"]).exists()
        assert b"caf\xe9.png" in (out / "results.csv").read_bytes()
        assert json.loads((out / "summary.json").read_text())["sets"][folder.name]["images"] == 1
        assert "%E9.png" in (out / "report.html").read_text()
    assert (out / "figures" / folder.name / f"{ODD.removesuffix('.png')}_crops.png").exists()


@pytest.mark.slow
def test_figures_of_pictures_that_differ_in_their_suffix_alone_are_two(tmp_path, small_networks, photos):
    save(photos / "a.jpg", load(SAMPLE)[:24, 40:80])
    run(photos, tmp_path / "out", small_networks, "--figures", "2")
    crops = sorted(path.name for path in (tmp_path / "out" / "figures" / "photos").glob("*_crops.png"))
    assert crops == ["a.jpg_crops.png", "a.png_crops.png"]


def test_figures_are_not_written_over_inputs_nor_over_others(tmp_path, small_networks, photos):
    out = tmp_path / "out"
    foreign = save(out / "figures" / "a_crops.png", load(SAMPLE)[:24, :40])
    before = foreign.read_bytes()
    for more in ((), ("--resume",)):
        with pytest.raises(UserError, match=r"a_crops\.png exists already; give --overwrite"):
            run(photos / "a.png", out, small_networks, "--figures", *more)
    for more in ((), ("--overwrite",)):
        with pytest.raises(UserError, match=r"a_crops\.png is one of the files to restore"):
            run(photos / "a.png", out, small_networks, "--figures", "--testset_dir", str(foreign), *more)
    assert foreign.read_bytes() == before


def test_a_single_file_has_no_kind(tmp_path, small_networks, photos):
    with pytest.raises(UserError, match=r"gopro=.*a\.png is a single file, .*; give it without a kind"):
        run(f"gopro={photos / 'a.png'}", tmp_path / "out", small_networks)
    run(f"unpaired={photos / 'a.png'}", tmp_path / "out", small_networks)
    assert (tmp_path / "out" / "a.png").exists()


def test_a_folder_named_as_the_results_is_another_set_than_single_files(tmp_path, small_networks, photos):
    save(tmp_path / "out" / "a.png", load(SAMPLE)[:24, :40])
    (tmp_path / "x").mkdir()
    (tmp_path / "out").rename(tmp_path / "x" / "out")
    run(tmp_path / "x" / "out", tmp_path / "out", small_networks, "--testset_dir", str(photos / "a.png"))
    with (tmp_path / "out" / "results.csv").open() as file:
        assert {row["set"] for row in csv.DictReader(file)} == {"out", "out-2"}


def test_results_in_the_working_directory_bear_its_name(tmp_path, small_networks, photos, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(photos / "a.png", ".", small_networks)
    (row,) = read_table(tmp_path / "here" / "results.csv")
    assert (row["set"], row["saved_as"]) == ("here", "a.png")


def test_empty_arguments_are_refused(capsys):
    for flag in ("--save_dir", "--from_results", "--tile"):
        assert f"{flag}: an argument is empty" in refused(capsys, flag, "")
        assert f"{flag}: an argument is empty" in refused(capsys, f"{flag}=")
    with pytest.raises(UserError, match="path is empty"):
        parse_source("")


@pytest.mark.parametrize("more", [("--tile", "off"), ("--self_ensemble",), ("--weights", "a.pth", "--tile", "auto")])
def test_what_only_networks_use_is_refused_with_results_of_others(capsys, more):
    named = ", ".join(each for each in more if each.startswith("--"))
    assert f"without a network: omit {named}" in refused(capsys, "--from_results", "theirs", *more)
    D_testing.parse_args(["--testset_dir", "photos", "--from_results", "theirs"])


@pytest.mark.slow
def test_videos_alone_leave_no_table_and_what_failed_is_in_the_summary(tmp_path, small_networks, capsys, monkeypatch):
    pytest.importorskip("av", reason="videos need PyAV")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12:30.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"1 of the files .*:\n.*12:30\.mp4 cannot be read as a video"):
        run("12:30.mp4", tmp_path / "out", small_networks)
    out = capsys.readouterr().out
    assert "report.html, summary.json are in" in out
    assert "results.csv" not in out
    problems = json.loads((tmp_path / "out" / "summary.json").read_text())["problems"]
    assert len(problems) == 1
    assert "12:30.mp4" in problems[0]


def test_missing_results_of_others_are_listed_before_anything_is_written(tmp_path):
    (tmp_path / "theirs").mkdir()
    where = ["--testset_dir", str(SAMPLES), "--save_dir", str(tmp_path / "out"), "--from_results"]
    with pytest.raises(UserError, match="1 of 1 pictures are missing"):
        D_testing.main(D_testing.parse_args([*where, str(tmp_path / "theirs")]))
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_not_finite_is_no_picture(tmp_path, small_networks, photos):
    """It had been saved as a black one, and the set had been complete."""
    content = torch.load(small_networks / "DeblurringNet_FT.pth", weights_only=True)
    for tensor in content["deblurring_state_dict"].values():
        tensor *= 1e30 if tensor.dim() == 4 else 1
    torch.save(content, tmp_path / "DeblurringNet_FT.pth")
    with pytest.raises(UserError, match=r"the network's result for .*a\.png is not finite; give --precision fp32"):
        run(photos, tmp_path / "out", tmp_path)
    assert not list((tmp_path / "out").rglob("a.png"))


def test_a_set_of_which_no_image_is_left_has_no_scores_any_more(tmp_path, small_networks, photos):
    out = tmp_path / "out"
    run(photos, out, small_networks)
    (restored,) = out.rglob("a.png")
    restored.unlink()
    (photos / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="1 of the files were skipped"):
        run(photos, out, small_networks, "--resume")
    assert json.loads((out / "summary.json").read_text())["sets"] == {}


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda text: text[:-3], "its last line has no end"),
        (lambda text: text.replace(",24,", ","), "other columns"),
        (lambda text: text.replace(",40,", ",nan,"), "could not convert|invalid literal"),
        (lambda text: text.rstrip().rpartition(",")[0] + ",nan\n", "is no number"),
    ],
)
def test_a_damaged_table_is_no_table(tmp_path, small_networks, photos, damage, what):
    run(photos, tmp_path / "out", small_networks)
    table = tmp_path / "out" / "results.csv"
    table.write_text(damage(table.read_text()))
    with pytest.raises(ValueError, match=what):
        read_table(table)
    with pytest.raises(UserError, match="damaged"):
        run(photos, tmp_path / "out", small_networks, "--resume")
