"""D_testing.py as people call it: names with a dash, sets by their names, other formats and names of what is saved."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

import D_testing
from datasets import find_named_sets
from tests.support.networks import identity_file
from tests.support.pictures import VALUES, png
from tests.support.samples import SAMPLE, load, save, save_all
from utils.common.errors import UserError
from utils.images.codecs import read_image
from utils.images.saving import SaveSettings
from utils.metrics.numpy_metrics import psnr
from utils.testing.inputs import find_inputs
from utils.testing.result_files import read_table

SIDES = ("blur", "sharp")


@pytest.fixture
def run(tmp_path):
    """Run the script with a network that returns its input."""
    network = identity_file(tmp_path / "identity.pth")

    def test(*arguments, save_dir="out"):
        common = ["--weights", str(network), "--save_dir", str(tmp_path / save_dir), "--device", "cpu"]
        D_testing.main(D_testing.parse_args([*common, *map(str, arguments)]))

    return test


def refused(capsys, *arguments):
    """Return the parser's message."""
    with pytest.raises(SystemExit):
        D_testing.parse_args(["--testset_dir", "photos", *arguments])
    return capsys.readouterr().err


def made(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))


def pairs(folder, sides=SIDES, name="a.png"):
    for side, original in zip(sides, SIDES, strict=True):
        save(folder / side / name, load(SAMPLE.parents[1] / original / SAMPLE.name)[:48, :64])
    return folder


@pytest.mark.parametrize("before", [[], ["--testset_dir"], ["--testset_dir", "b"]])
def test_what_stands_after_two_dashes_are_paths(before):
    args = D_testing.parse_args(["--limit", "2", *before, "--", "-a.png", "--limit", "c"])
    assert (args.testset_dir, args.limit) == ([*before[1:], "-a.png", "--limit", "c"], 2)


def test_pictures_whose_names_begin_with_a_dash_are_restored(tmp_path, run, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "-a.png")
    with pytest.raises(SystemExit):
        D_testing.parse_args(["--testset_dir", "-a.png", "b.png"])
    assert "-a.png is a file: paths that begin with a dash stand at the end, after --" in capsys.readouterr().err
    run("--", "-a.png")
    assert made(tmp_path / "out") == ["-a.png", *made(tmp_path / "out")[1:]]


def test_the_scores_are_those_of_the_restored_pixels_not_of_the_jpeg(tmp_path, run):
    data = pairs(tmp_path / "pairs")
    run("--testset_dir", data, "--output_format", "jpg", "--quality", "30", "--suffix=-restored")
    (row,) = read_table(tmp_path / "out" / "results.csv")
    saved = tmp_path / "out" / "pairs" / "a-restored.jpg"
    assert row["saved_as"] == "pairs/a-restored.jpg"
    blurry, sharp = (load(data / side / "a.png") for side in SIDES)
    assert row["psnr"] == pytest.approx(psnr(blurry, sharp), abs=1e-9)
    assert abs(psnr(read_image(saved), sharp) - row["psnr"]) > 0.01
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (settings["output_format"], settings["quality"], settings["suffix"]) == ("jpeg", 30, "-restored")
    assert "strip_metadata" not in settings


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_a_resumed_run_restores_what_is_cut_and_has_the_same_settings(tmp_path, run, name):
    save_all(tmp_path / "photos", "{a,b}.png")
    command = ("--testset_dir", tmp_path / "photos", "--output_format", name)
    run(*command)
    cut, whole = sorted(path for path in (tmp_path / "out" / "photos").iterdir())
    content, before = cut.read_bytes(), whole.stat().st_mtime_ns
    cut.write_bytes(content[:-5])
    with pytest.raises(UserError, match=f"other settings: output_format was {name}, is not given"):
        run(*command[:2], "--resume")
    run(*command, "--resume")
    assert (cut.read_bytes(), whole.stat().st_mtime_ns) == (content, before)


def test_what_a_format_does_not_hold_is_a_line(tmp_path, run, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "deep.png").write_bytes(png(VALUES[..., :3], 16, 2))
    run("--testset_dir", tmp_path / "photos", "--output_format", "jpeg")
    note = f"{tmp_path / 'photos' / 'deep.png'}: saved as JPEG without 8 of its 16 bits per channel"
    assert capsys.readouterr().out.count(note) == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["photos"]["notes"] == [note]


def test_a_picture_that_is_too_large_for_webp_is_skipped(tmp_path, run):
    save(tmp_path / "photos" / "wide.png", size=(16_384, 8))
    with pytest.raises(UserError, match=r"wide\.png is 16384×8 px, and WebP holds at most 16,383 a side"):
        run("--testset_dir", tmp_path / "photos", "--output_format", "webp")


@pytest.mark.parametrize("flags", [("--output_format", "jpeg"), ("--output_format", "png", "--suffix", "_x")])
def test_names_that_would_meet_keep_their_endings(tmp_path, run, flags):
    save_all(tmp_path / "photos", "a.{png,jpg}")
    run("--testset_dir", tmp_path / "photos", *flags)
    ending = "_x.png" if "--suffix" in flags else ".jpg"
    assert made(tmp_path / "out" / "photos") == [f"a.jpg{ending}", f"a.png{ending}"]


def test_two_inputs_are_never_restored_into_one_file(tmp_path, run, monkeypatch):
    """Single pictures of one name are saved by their paths, which a folder of that name shares."""
    first, *rest = tmp_path.parts[1:]
    save_all(tmp_path, "{x,y}/a.png")
    save_all(tmp_path / "z" / first, f"{'/'.join(rest)}/x/a.jpg")
    sources = [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", tmp_path / "z" / first]
    with pytest.raises(UserError, match=r"x/a\.png would be written twice, from two inputs"):
        run("--testset_dir", *sources)
    assert not (tmp_path / "out" / first).exists()


def test_a_suffix_is_of_the_names_of_videos_too(tmp_path):
    save_all(tmp_path / "photos", "a.png")
    (tmp_path / "photos" / "b.MP4").write_bytes(b"")
    _, videos = find_inputs([str(tmp_path / "photos")], SIDES, tmp_path / "out", None, (), SaveSettings(suffix="_x"))
    assert [path.as_posix() for path in videos.values()] == ["photos/b_x.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quality", "90"), "--quality is of JPEG and WebP"),
        (("--output_format", "jpeg", "--quality", "101"), "should be from 1 to 100"),
        (("--output_format", "webp", "--figures"), "--figures shows the saved images: omit it"),
        (("--suffix", "-sharp"), "expected one argument; a value that begins with a dash is written --suffix=-sharp\n"),
        (("--weights", "--x-y"), "at least one argument; a value that begins with a dash is written --weights=--x-y\n"),
        (("--suffix", "--over"), "--suffix: expected one argument\n"),  # which is short for a flag
        (("--suffix", "a/b"), "expected a part of a file's name, without folders"),
        (("--from_results", "theirs", "--suffix", "_x"), "without a network: omit --suffix"),
        (("more", "--sets", "GoPro"), "--sets are found in one --testset_dir, not in 2"),
    ],
)
def test_flags_that_do_not_fit_are_refused(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_sets_of_a_paper_are_scored_in_one_run_and_table(tmp_path, run, capsys):
    root = tmp_path / "data"
    pairs(root / "GOPRO_Large" / "test" / "GOPR0881_11_01")
    pairs(root / "HIDE_dataset" / "test", ("input", "target"))
    scenes = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    for scene in ("scene001", "scene002"):
        pairs(root / scenes / scene, ("blur", "gt"))
    for split, scene in (("train", "scene001"), ("test", "scene002")):
        line = f"{scenes}/{scene}/gt/a.png {scenes}/{scene}/blur/a.png\n"
        (root / f"RealBlur_J_{split}_list.txt").write_text(line)
    run("--testset_dir", root, "--sets", "GoPro/", "hide", "RealBlur_J")
    sets = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]
    assert {name: (each["kind"], each["images"]) for name, each in sets.items()} == {
        "GoPro": ("gopro", 1), "hide": ("hide", 1), "RealBlur_J": ("realblur_j", 1)
    }  # fmt: skip
    with pytest.raises(UserError, match="other settings: set_names was"):
        run("--testset_dir", root, "--sets", "GOPRO", "hide", "RealBlur_J", "--resume")
    lines = re.findall(r"^(\S+) +(input|restored) +([\d.]+) ", capsys.readouterr().out, re.MULTILINE)
    titles = ("GoPro", "HIDE", "RealBlur-J")
    assert [[*line[:2]] for line in lines] == [[name, row] for name in titles for row in ("input", "restored")]
    assert [line[2] for line in lines[::2]] == [f"{next(iter(each['input'].values())):.4f}" for each in sets.values()]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "RealBlur",
            r"RealBlur could be any of RealBlur-J/, RealBlur-R/ in .*; give more of the name, such as --sets "
            r"RealBlur_J RealBlur_R$",
        ),
        ("DVD", r"holds no set called 'DVD': expected .*; found GoPro/, RealBlur-J/, RealBlur-R/"),
        ("", "holds no set called ''"),
        ("go/pro", "holds no set called 'go/pro'"),
    ],
)
def test_sets_that_are_not_there_or_could_be_several(tmp_path, name, message):
    save_all(tmp_path, "{GoPro,RealBlur-J,RealBlur-R}/a.png", ".hidden/a.png")
    with pytest.raises(UserError, match=message):
        find_named_sets(tmp_path, [name])


def test_sets_are_found_by_their_lists_in_a_folder_of_both(tmp_path):
    """RealBlur/ as it is unpacked, with the folders' own names and with others."""
    for name, folder in (("J", "RealBlur_J"), ("R", "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref")):
        save_all(tmp_path / "RealBlur" / folder, "{train,test}/{blur,gt}/1.png")
        for split in ("train", "test"):
            pair = f"{folder}/{split}/gt/1.png {folder}/{split}/blur/1.png"
            (tmp_path / "RealBlur" / f"RealBlur_{name}_{split}_list.txt").write_text(pair)
    save_all(tmp_path, "HIDE/a.png")
    paths = [tmp_path / "RealBlur" / f"RealBlur_{name}_test_list.txt" for name in ("J", "R")]
    assert find_named_sets(tmp_path, ["RealBlur_J", "realblur-r"]) == paths
    inputs, _ = find_inputs([str(path) for path in paths], SIDES, tmp_path / "out", None)
    assert [(each.images.kind, each.count) for each in inputs] == [("realblur_j", 1), ("realblur_r", 1)]
    with pytest.raises(UserError, match="holds no set called 'RealBlur_X'.*; found HIDE/, RealBlur/"):
        find_named_sets(tmp_path, ["RealBlur_X"])
    (tmp_path / "RealBlur" / "RealBlur_J_test_of_mine.txt").write_text("")
    with pytest.raises(UserError, match="any of RealBlur/RealBlur_J_test_list.txt, RealBlur/RealBlur_J_test_of_mine"):
        find_named_sets(tmp_path, ["RealBlur_J"])


def test_the_sets_that_a_name_could_be_are_named(tmp_path):
    save_all(tmp_path, "BSD/{BSD_1ms8ms,BSD_2ms16ms,BSD_3ms24ms}/test/{Blur,Sharp}/1.png", "RealBlur/x.png")
    for name in ("J", "R"):
        (tmp_path / "RealBlur" / f"RealBlur_{name}_test_list.txt").write_text("")
    with pytest.raises(UserError, match="such as --sets BSD_1ms8ms BSD_2ms16ms BSD_3ms24ms$"):
        find_named_sets(tmp_path, ["BSD"])
    with pytest.raises(UserError, match="such as --sets RealBlur_J RealBlur_R$"):
        find_named_sets(tmp_path, ["RealBlur"])
    assert find_named_sets(tmp_path, ["BSD_2ms16ms"]) == [tmp_path / "BSD" / "BSD_2ms16ms"]


def test_sets_are_found_in_test(tmp_path):
    save_all(tmp_path, "{train,test}/{GoPro,HIDE,RealBlur_J}/{input,target}/1.png", "mine/1.png")
    names = ["gopro", "HIDE", "RealBlur-J"]
    assert find_named_sets(tmp_path, names) == [tmp_path / "test" / name for name in ("GoPro", "HIDE", "RealBlur_J")]
    save_all(tmp_path, "val/GoPro/1.png", "HIDE/1.png")
    with pytest.raises(UserError, match="gopro could be any of test/GoPro/, val/GoPro/"):
        find_named_sets(tmp_path, ["gopro"])
    assert find_named_sets(tmp_path, ["HIDE"]) == [tmp_path / "HIDE"]


def test_a_set_is_named_once_and_without_a_kind(tmp_path):
    save_all(tmp_path, "{GOPRO,HIDE}/a.png")
    with pytest.raises(UserError, match=r"--sets gopro and GOPRO are one set, .*GOPRO: name it once"):
        find_named_sets(tmp_path, ["gopro", "hide", "GOPRO"])
    with pytest.raises(
        UserError, match=rf"--sets recognises each set by itself; omit gopro=, give the folder {tmp_path}"
    ):
        find_named_sets(Path(f"gopro={tmp_path}"), ["GoPro"])


@pytest.mark.parametrize(
    ("name", "why"), [("nosuch.jpg", ";"), ("*.gif", ", or the shell found no file of that pattern;")]
)
def test_what_does_not_exist_could_have_been_a_picture(tmp_path, name, why):
    with pytest.raises(UserError, match=f"does not exist{why} expected a picture, a video, the folder of .* a list"):
        find_inputs([str(tmp_path / name)], SIDES, tmp_path / "out", None)


def test_sets_lie_in_a_folder():
    with pytest.raises(UserError, match="does not exist; with --sets, expected the folder in which the sets lie"):
        find_named_sets(Path("nowhere"), ["GoPro"])
    with pytest.raises(UserError, match="is a file; with --sets"):
        find_named_sets(SAMPLE, ["GoPro"])


def test_jpegs_of_another_method_can_be_scored(tmp_path, run):
    data = pairs(tmp_path / "pairs")
    run("--testset_dir", data, "--output_format", "jpeg")
    with Image.open(tmp_path / "out" / "pairs" / "a.jpg") as image:
        assert image.format == "JPEG"
    results = str(tmp_path / "out" / "pairs")
    D_testing.main(
        D_testing.parse_args(["--testset_dir", str(data), "--from_results", results, "--save_dir", str(tmp_path / "s")])
    )
    (row,) = read_table(tmp_path / "s" / "results.csv")
    sharp = load(data / "sharp" / "a.png")
    assert row["psnr"] == pytest.approx(psnr(read_image(tmp_path / "out" / "pairs" / "a.jpg"), sharp), abs=1e-9)
