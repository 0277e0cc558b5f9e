"""Scores of pictures that any method saved, and the published ones for comparison."""

import csv
import json
import re
import shutil

import pytest

import D_testing
from tests.support.samples import SAMPLES, load, save, save_all
from utils.common.errors import UserError
from utils.images.codecs import read_image
from utils.metrics.aligned_metrics import ALIGNED
from utils.metrics.numpy_metrics import score
from utils.metrics.published import PUBLISHED, published_on
from utils.metrics.scorer import DEFAULT
from utils.testing.inputs import find_inputs
from utils.testing.saved_results import SavedResults

PRINTED = "published (on|results)"

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
    expected = score(read_image(saved), load(SAMPLES / "test" / "GOPR0881_11_01" / "sharp" / "000203.png"), DEFAULT)
    for name in ("GOPRO/GOPR0881_11_01/000203.png", IMAGE, "GOPR0881_11_01_000203.png", "000203.png"):
        folder = tmp_path / name.replace("/", "+")
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(saved, folder / name)
        before = {path: path.read_bytes() for path in folder.rglob("*.png")}
        run(tmp_path / "scores" / folder.name, "--from_results", str(folder))
        found = row(tmp_path / "scores" / folder.name)
        assert {metric: float(found[metric]) for metric in DEFAULT} == pytest.approx(expected, abs=1e-6)
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


def test_a_warning_says_that_the_pictures_are_the_blurry_ones(tmp_path, capsys):
    """Methods save their input beside their output; the names of both may fit."""
    warning = "warning: the pictures score exactly as the blurry images do"
    blurry, name = load(SAMPLES / "test" / "GOPR0881_11_01" / "blur" / "000203.png"), "GOPR0881_11_01/blur/000203.png"
    save(tmp_path / "same" / name, blurry)
    save(tmp_path / "other" / name, blurry[::-1])
    run(tmp_path / "scores", "--from_results", str(tmp_path / "same"))
    assert warning in capsys.readouterr().out
    run(tmp_path / "others", "--from_results", str(tmp_path / "other"))
    assert warning not in capsys.readouterr().out


SCENES = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
HIDE_NAMES = ("1fromGOPR0950.png", "12fromGOPR1096.MP4.png")


def realblur(folder, as_list):
    """Return RealBlur's test set by its list or by its folder: two scenes whose files have the same names."""
    save_all(folder / SCENES, *(f"scene{i}/{{blur/blur_7,gt/gt_7,blur/blur_12,gt/gt_12}}.png" for i in (230, 231)))
    lines = [
        f"{SCENES}/scene{i}/gt/gt_{j}.png {SCENES}/scene{i}/blur/blur_{j}.png" for i in (230, 231) for j in (7, 12)
    ]
    (folder / "RealBlur_J_test_list.txt").write_text("\n".join(lines))
    return folder / ("RealBlur_J_test_list.txt" if as_list else SCENES)


def hide(folder):
    names = [f"test/{part}/{name}" for part, name in zip(("test-close-ups", "test-long-shot"), HIDE_NAMES, strict=True)]
    save_all(folder, *names, *(f"GT/{name}" for name in HIDE_NAMES))
    return folder


def pictures_of(testset, saved, *names, set_names=()):
    """Return which of the pictures of these names are those of the set's images, in their order."""
    save_all(saved, *names)
    inputs, _ = find_inputs([str(testset)], ("blur", "sharp"), saved.parent, None, set_names)
    return [path.relative_to(saved).as_posix() for path in SavedResults(saved).files(inputs[0])]


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        "scene{0}_blur_{1}.png", "scene{0}/blur/blur_{1}.jpg", "scene{0}/blur_{1}.png", "scene{0}-blur_{1}.png",
        "scene{0}_blur_blur_{1}.png", "RealBlur/scene{0}/blur_{1}.png", "RealBlur/scene{0}_blur_{1}.png",
        f"RealBlur/{SCENES}/scene{{0}}/blur/blur_{{1}}.png",
    ],
)  # fmt: skip
def test_pictures_of_realblur_are_found_by_the_names_that_methods_write(tmp_path, as_list, form):
    if SCENES in form and not as_list:
        form = form.replace(f"{SCENES}/", "")
    names = [form.format(i, j) for i in (231, 230) for j in (7, 12)]
    testset = realblur(tmp_path / "data", as_list)
    found = pictures_of(testset, tmp_path / "saved", *names, "scene230/gt/gt_7.png", set_names=["RealBlur"])
    (inputs,), _ = find_inputs([str(testset)], ("blur", "sharp"), tmp_path, None)
    scenes = [(path.parent.parent.name.removeprefix("scene"), path.stem[5:]) for path in inputs.images.blurry]
    assert found == [form.format(*each) for each in scenes]
    (tmp_path / "saved" / form.format(230, 7)).unlink()
    with pytest.raises(UserError, match=r"1 of 4 pictures are missing \(.*scene230/.*blur_7\); of none, .*\bgt_7"):
        pictures_of(testset, tmp_path / "saved", set_names=["RealBlur"])


@pytest.mark.parametrize("form", ["{1}", "{0}/{1}", "test/{0}/{1}", "{0}_{1}", "HIDE/{1}", "HIDE/{0}-{1}"])
def test_pictures_of_hide_are_found_by_the_names_that_methods_write(tmp_path, form):
    names = [form.format(*each) for each in zip(("test-close-ups", "test-long-shot"), HIDE_NAMES, strict=True)]
    assert pictures_of(hide(tmp_path / "data"), tmp_path / "saved", *names[::-1], set_names=["HIDE"]) == names


def test_a_picture_that_could_be_of_several_images_is_of_none(tmp_path):
    testset, saved = realblur(tmp_path / "data", True), tmp_path / "saved"
    rest = [f"scene{i}_blur_{j}.png" for i, j in ((230, 12), (231, 7), (231, 12))]
    with pytest.raises(
        UserError, match=r"1 of 4 .*scene230/blur/blur_7\); of none, or of several of them: blur_7\.png"
    ):
        pictures_of(testset, saved, "blur_7.png", *rest)
    with pytest.raises(UserError, match=r"scene230/blur/blur_7 could be any of .*scene230/blur_7.*; keep one of them"):
        pictures_of(testset, saved, "scene230/blur_7.png", "scene230_blur_7.png")
    save_all(tmp_path / "alike", "{blur,sharp}/{a/b_1,a_b/1,a/c/1}.png")
    with pytest.raises(UserError, match=r"3 of 3 .*several of them: 1\.png, a_b_1\.png"):
        pictures_of(tmp_path / "alike", tmp_path / "flat", "a_b_1.png", "1.png")
    exact = ["a/b_1.png", "a/c/1.png", "a_b/1.png"]
    assert pictures_of(tmp_path / "alike", tmp_path / "exact", *exact) == exact


def test_a_picture_that_could_be_of_two_sets_is_refused(tmp_path):
    day, night = (pairs(tmp_path / name, "a.png") for name in ("day", "night"))
    save(tmp_path / "saved" / "a.png", size=(120, 120))
    more = ("--testset_dir", str(night), "--from_results", str(tmp_path / "saved"))
    with pytest.raises(UserError, match=r"a\.png could be of day and of night; put each set's pictures into a folder"):
        run(tmp_path / "out", *more, testset=day)


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_our_own_pictures_are_found_where_names_differ_in_their_endings_alone(tmp_path, ending):
    save_all(tmp_path / "data", "{blur,sharp}/{a.png,a.jpg,b.jpg}")
    names = [f"data/{name}{ending}" for name in ("a.jpg", "a.png", "b.jpg")]
    assert pictures_of(tmp_path / "data", tmp_path / "saved", *names) == names


@pytest.mark.slow
def test_published_results_are_on_the_page_and_in_the_summary(tmp_path, small_networks, capsys):
    run(tmp_path / "out", "--weights", str(small_networks / "DeblurringNet_FT.pth"))
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if re.match(PRINTED, line)]
    assert line == "published results on GoPro are of 1,111 images, not comparable with these of 1: report.html"
    published = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["GOPRO"]["published"]
    for kind in ("gopro", "hide", "realblur_j", "realblur_r", "reds_jpeg"):
        assert published_on(kind)
        assert all(each["psnr"] and each["protocol"] and each["source"] for each in published_on(kind))
    assert [each["method"] for each in published][:2] == [each.method for each in PUBLISHED[:2]]
    assert {each["method"] for each in published_on("hide")} >= {"ASPDC, fine-tuned", "Restormer"}
    assert published_on("paired") == published_on("reds") == []


def pairs(folder, *names):
    """Write pairs of 120×120 px."""
    for side in ("blur", "sharp"):
        picture = load(SAMPLES / "test" / "GOPR0881_11_01" / side / "000203.png")
        for name in names:
            save(folder / side / name, picture[100:220, 200:320])
    return folder


def result(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.slow
def test_each_set_is_scored_by_its_own_protocol_which_its_results_name(tmp_path, capsys):
    night, day = (pairs(tmp_path / name, "a.png", "b.png") for name in ("night", "day"))
    for folder in (night, day):
        save(tmp_path / "saved" / folder.name / "a.png", load(folder / "blur" / "a.png"))
        save(tmp_path / "saved" / folder.name / "b.png", size=(120, 120))  # black: ECC cannot align it
    out = tmp_path / "out"
    run(out, "--testset_dir", str(day), "--from_results", str(tmp_path / "saved"), testset=f"realblur_j={night}")
    found, printed = result(out), capsys.readouterr().out
    dark, bright = found["sets"]["night"], found["sets"]["day"]
    assert found["metrics"] == [*ALIGNED, *DEFAULT]
    assert (list(dark["output"]), list(bright["output"])) == (list(ALIGNED), list(DEFAULT))
    assert dark["protocol"] == "whole images, aligned to the sharp ones as by RealBlur's authors"
    assert bright["protocol"] == "whole images, not aligned"
    assert (dark["input"]["aligned"], dark["output"]["aligned"]) == (1.0, 0.5)
    line = f"{night / 'blur' / 'b.png'}: ECC could not align the result, scored unaligned (aligned: 0)"
    assert dark["notes"] == ["a part of the realblur_j test set: 2 of 980 images", line]
    assert all(each in printed for each in (line, f"scored: {dark['protocol']}", f"scored: {bright['protocol']}"))
    assert re.search(r"\nRealBlur-J: 2 images\n(.*\n)+day: 2 images\n", printed)
    assert re.search(r"\nRealBlur-J +restored .*\nday +input ", printed)
    assert "published results on RealBlur-J are of 980 images, not comparable with these of 2: report.html" in printed
    with (out / "results.csv").open() as file:
        rows = [[row[name] for name in ("set", "psnr", "aligned")] for row in csv.DictReader(file)]
    assert [(name, bool(psnr), aligned) for name, psnr, aligned in rows] == [
        ("night", False, "1.0"), ("night", False, "0.0"), ("day", True, ""), ("day", True, ""),
    ]  # fmt: skip
    assert dark["protocol"] in (out / "report.html").read_text()


def test_published_results_are_printed_once_for_all_sets_of_a_kind(tmp_path, capsys):
    parts = [f"gopro={pairs(tmp_path / name, f'{name}.png')}" for name in ("one", "other")]
    for name in ("one", "other"):
        save(tmp_path / "saved" / f"{name}.png", size=(120, 120))
    arguments = ["--testset_dir", *parts, "--from_results", str(tmp_path / "saved"), "--metrics", "psnr"]
    D_testing.main(D_testing.parse_args([*arguments, "--save_dir", str(tmp_path / "out"), "--device", "cpu"]))
    line = "published results on GoPro are of 1,111 images, not comparable with these of 1: report.html"
    assert capsys.readouterr().out.count(line) == 1


def test_cropped_borders_are_named_and_not_compared_with_published_results(tmp_path, capsys):
    part = pairs(tmp_path / "GOPRO_part", "a.png")
    more = ("--from_results", str(part / "blur"), "--metrics", "psnr,psnr_y", "--crop_border", "4")
    run(tmp_path / "out", *more, testset=part)
    summary = result(tmp_path / "out")
    blurry, sharp = (load(part / side / "a.png")[4:-4, 4:-4] for side in ("blur", "sharp"))
    expected = score(blurry, sharp, ("psnr", "psnr_y"))
    (only,) = summary["sets"].values()
    assert only["output"] == only["input"] == pytest.approx(expected)
    assert only["protocol"].startswith("images without 4 px at each border")
    assert (only["published"], row(tmp_path / "out")["crop_border"]) == ([], "4")
    assert not re.search(PRINTED, capsys.readouterr().out)
    run(tmp_path / "out", *more, "--resume", testset=part)
    with pytest.raises(UserError, match=r"crop_border was 4, is not given"):
        run(tmp_path / "out", *more[:-2], "--resume", testset=part)


@pytest.mark.parametrize(
    ("folder", "kind", "warning"),
    [
        ("GOPRO/train", "gopro", "this is train/, used where test/ is expected"),
        ("REDS/train/train_{}", "reds_jpeg", "this is train/"),
        ("REDS/train_{}", "reds_jpeg", "these are the images of train_blur_jpeg/"),
        ("realblur_j_train_list.txt", "realblur_j", "by its name this list is not of test pairs"),
    ],
)
def test_training_images_are_not_compared_with_published_results(tmp_path, capsys, folder, kind, warning):
    root = tmp_path / folder.partition("/train_{}")[0]
    for side in ("blur_jpeg" if kind == "reds_jpeg" else "blur", "sharp"):
        place = tmp_path / folder.format(side) if "{}" in folder else root / side
        save(tmp_path / "RealBlur" / side / "a.png" if kind == "realblur_j" else place / "a.png", size=(24, 24))
    if kind == "realblur_j":
        root.write_text("RealBlur/blur/a.png RealBlur/sharp/a.png")
    save(tmp_path / "saved" / "a.png", size=(24, 24))
    run(tmp_path / "out", "--from_results", str(tmp_path / "saved"), "--metrics", "psnr", testset=root)
    (only,) = result(tmp_path / "out")["sets"].values()
    assert (only["kind"], only["published"]) == (kind, [])
    printed = capsys.readouterr().out
    assert (warning in printed, re.search(PRINTED, printed)) == (True, None)
