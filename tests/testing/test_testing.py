"""The testing script: restored images, scores and summaries, with and without ground truth."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

import D_testing
from models.checkpoint import load_deblurring_net
from tests.support.processes import run_script
from tests.support.samples import ROOT, SAMPLES, save
from utils.common.errors import UserError
from utils.images.codecs import read_image
from utils.images.conversion import to_uint8
from utils.inference.evaluation import restore
from utils.metrics.numpy_metrics import psnr, score
from utils.metrics.scorer import DEFAULT
from utils.testing.inputs import find_inputs

PAIR = SAMPLES / "test" / "GOPR0881_11_01"
NAME = "GOPR0881_11_01/000203.png"


@pytest.mark.slow
def test_a_run_does_not_wait_for_libraries_that_it_has_no_use_for(tmp_path, small_networks):
    save(tmp_path / "in" / "a.png", size=(32, 32))
    arguments = [f"unpaired={tmp_path / 'in'}", str(small_networks / "DeblurringNet_FT.pth"), str(tmp_path / "out")]
    script = """
import sys, D_testing
data, weights, out = sys.argv[1:]
common = ["--testset_dir", data, "--weights", weights, "--device", "cpu"]
D_testing.main(D_testing.parse_args([*common, "--save_dir", out]))
print([each for each in ("albumentations", "matplotlib", "torchvision", "torch._dynamo") if each in sys.modules])
D_testing.main(D_testing.parse_args([*common, "--save_dir", out + "2", "--figures", "--deform_op", "torchvision"]))
print([each for each in ("albumentations", "matplotlib", "torchvision") if each in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stdout.splitlines() if line[:1] == "["] == ["[]", "['matplotlib', 'torchvision']"]


@pytest.mark.slow
def test_the_script_restores_and_scores_real_pairs(tmp_path, small_networks):
    weights = small_networks / "DeblurringNet_FT.pth"
    result = run_script(
        "D_testing.py", "--testset_dir", str(SAMPLES), "--weights", str(weights), "--save_dir", str(tmp_path / "out"),
        "--device", "cpu", "--deform_op", "torchvision",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    blurry, sharp = (read_image(PAIR / side / "000203.png") for side in ("blur", "sharp"))
    saved = read_image(tmp_path / "out" / "GOPRO" / NAME)
    network = load_deblurring_net(weights, deform_op="torchvision").to(memory_format=torch.channels_last)
    restored = restore(network, blurry, torch.device("cpu"))
    assert (saved == to_uint8(restored)).all()

    with (tmp_path / "out" / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["set"], row["image"], row["height"], row["width"]) == ("GOPRO", NAME, "384", "640")
    assert float(row["psnr"]) == pytest.approx(psnr(saved, sharp), abs=1e-9)  # what the PNG holds
    for name, value in score(restored, sharp, DEFAULT).items():
        assert float(row[name]) == pytest.approx(value, abs=1e-6)
    for name, value in score(blurry, sharp, DEFAULT).items():
        assert float(row[f"input_{name}"]) == pytest.approx(value, abs=1e-9)

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sets"]["GOPRO"]["images"] == 1
    assert summary["sets"]["GOPRO"]["output"]["psnr"] == pytest.approx(float(row["psnr"]))
    network = summary["networks"]["DeblurringNet_FT"]
    assert (network["modulation"], network["deform_op"]) == ("aligned", "torchvision")
    for name in DEFAULT:
        assert f"\n{name:14}" in result.stdout
    assert f"input PSNR {float(row['input_psnr']):.2f} dB" in result.stdout


def run(tmp_path, weights, *sets, more=()):
    sources = [argument for source in sets for argument in ("--testset_dir", str(source))]
    D_testing.main(
        D_testing.parse_args(
            [*sources, "--weights", str(weights), "--save_dir", str(tmp_path / "out"), "--device", "cpu", *more]
        )
    )


def crops(folder, *names, box=(0, 0, 40, 24)):
    folder.mkdir(parents=True)
    for name in names:
        with Image.open(PAIR / "blur" / "000203.png") as image:
            image.crop(box).save(folder / name)
    return folder


def test_a_folder_without_ground_truth_is_restored_and_not_scored(tmp_path, small_networks, capsys):
    photos = crops(tmp_path / "photos" / "trip", "a.png", "b.jpg").parent
    run(tmp_path, small_networks / "DeblurringNet_FT.pth", photos)
    assert read_image(tmp_path / "out" / "photos" / "trip" / "a.png").shape == (24, 40, 3)
    assert read_image(tmp_path / "out" / "photos" / "trip" / "b.png").shape == (24, 40, 3)
    assert "no ground truth: restored and saved, not scored" in capsys.readouterr().out
    with (tmp_path / "out" / "results.csv").open() as file:
        assert [set(row) for row in csv.DictReader(file)] == [
            {"set", "image", "saved_as", "height", "width", "seconds"}
        ] * 2
    assert "output" not in json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["photos"]


@pytest.mark.slow
def test_several_sets_with_and_without_ground_truth_in_one_run(tmp_path, small_networks):
    photos = crops(tmp_path / "photos", "a.png")
    run(tmp_path, small_networks / "DeblurringNet_FT.pth", PAIR.parent, photos, photos)
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows] == ["GOPRO_test", "photos", "photos-2"]
    assert [bool(row["psnr"]) for row in rows] == [True, False, False]


def test_limit(tmp_path, small_networks):
    photos = crops(tmp_path / "photos", "a.png", "b.png", "c.png")
    run(tmp_path, small_networks / "DeblurringNet_FT.pth", photos, more=("--limit", "2"))
    assert sorted(path.name for path in (tmp_path / "out" / "photos").iterdir()) == ["a.png", "b.png"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["photos"]
    assert (summary["images"], summary["images_in_set"]) == (2, 3)


def test_images_that_differ_in_their_suffix_alone_both_stay(tmp_path, small_networks):
    photos = crops(tmp_path / "photos", "a.png", "a.jpg", "b.jpg")
    run(tmp_path, small_networks / "DeblurringNet_FT.pth", photos)
    assert sorted(path.name for path in (tmp_path / "out" / "photos").iterdir()) == [
        "a.jpg.png",
        "a.png.png",
        "b.jpg.png",
    ]


def test_names_that_end_in_numbers_keep_sets_apart(tmp_path, small_networks):
    folders = [crops(tmp_path / "s" / name, "a.png") for name in ("a-2", "a")]
    sources = [*folders, folders[1], tmp_path / "s" / "a" / ".." / "a"]
    inputs, _ = find_inputs([str(source) for source in sources], ("blur", "sharp"), tmp_path / "out", None)
    assert [each.name for each in inputs] == ["a-2", "a", "a-3", "a-4"]


def test_scores_before_an_unreadable_image_are_kept(tmp_path, small_networks):
    photos = crops(tmp_path / "photos", "a.png", "b.png", box=(0, 0, 200, 200))
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:-20_000])
    with pytest.raises(UserError, match="b.png is damaged or incomplete"):
        run(tmp_path, small_networks / "DeblurringNet_FT.pth", photos)
    with (tmp_path / "out" / "results.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["a.png"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["photos"]["complete"] is False


def test_equal_images_have_no_finite_psnr(tmp_path, small_networks):
    for side in ("blur", "sharp"):
        crops(tmp_path / "pairs" / side, "a.png")
    run(tmp_path, small_networks / "DeblurringNet_FT.pth", tmp_path / "pairs")
    text = (tmp_path / "out" / "summary.json").read_text()
    assert json.loads(text)["sets"]["pairs"]["input"]["psnr"] is None
    assert "Infinity" not in text


def test_save_dir_that_cannot_be_written_in(tmp_path, small_networks):
    photos = crops(tmp_path / "photos", "a.png")
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="--save_dir .*out cannot be written in"):
        run(tmp_path, small_networks / "DeblurringNet_FT.pth", photos)


def test_pairs_too_small_to_score_are_named(tmp_path, small_networks):
    for side in ("blur", "sharp"):
        crops(tmp_path / "pairs" / side, "a.png", box=(0, 0, 10, 10))
    with pytest.raises(UserError, match="a.png cannot be scored: SSIM needs at least 11×11 px, got 10×10"):
        run(tmp_path, small_networks / "DeblurringNet_FT.pth", tmp_path / "pairs")


def test_results_never_lie_among_the_inputs(tmp_path, small_networks):
    photos = crops(tmp_path / "out", "a.png")
    before = (photos / "a.png").read_bytes()
    with pytest.raises(UserError, match="would lie inside .* which is read from; give a --save_dir elsewhere"):
        run(tmp_path, small_networks / "DeblurringNet_FT.pth", photos)
    assert (photos / "a.png").read_bytes() == before


def test_missing_weights_are_one_message_and_status_2(run_here):
    result = run_here("D_testing.py", "--testset_dir", str(SAMPLES), "--weights", "nets/DeblurringNet_FT.pth")
    assert result.returncode == 2
    assert "error: nets/DeblurringNet_FT.pth does not exist. It holds the network that the finetune" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_images_at_full_size_of_the_real_sets(tmp_path, small_networks, shared):
    sets = (shared / "data" / "GOPRO_sample" / "test", shared / "data" / "unpaired")
    run(tmp_path, small_networks / "DeblurringNet_FT.pth", *sets, more=("--limit", "1"))
    golden = json.loads((shared / "golden" / "metrics.json").read_text())["GOPR0384_11_00/000001.png"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]
    assert summary["GOPRO_sample_test"]["input"] == pytest.approx(golden, abs=1e-4)
    assert summary["GOPRO_sample_test"]["images_in_set"] == 9
    assert summary["unpaired"]["images_in_set"] == 4


def modulation(folder):
    return json.loads((folder / "summary.json").read_text())["networks"]["DeblurringNet_FT"]["modulation"]


@pytest.mark.slow
def test_released_weights_are_read_as_released(tmp_path, released_weights):
    from models.released_names import DEBLURRING_KEY

    torch.save({"epoch": 1, DEBLURRING_KEY: released_weights("deblurring", 0)}, tmp_path / "DeblurringNet_FT.pth")
    photos = crops(tmp_path / "photos", "a.png", box=(0, 0, 16, 12))
    run(tmp_path, tmp_path / "DeblurringNet_FT.pth", photos)
    assert modulation(tmp_path / "out") == "released"
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, tmp_path / "DeblurringNet_FT.pth", photos, more=("--modulation", "aligned"))
    assert modulation(tmp_path / "out") == "aligned"
