"""The data check: every kind of problem, all of a folder's at once, and the quick look before training."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from datasets import DatasetError, ImageSet, find_images, quick_check
from datasets.discovery.pixel_checks import PairContent, content_problems
from tests.support.processes import Script
from tests.support.samples import SAMPLES, save, save_all
from tests.support.wrong_sets import FIRST, OTHER_SHARP, SECOND, damage, everything_wrong, moved_camera, put
from tools.check_data import check_folder


@pytest.mark.slow
def test_every_problem_of_a_folder_is_listed_at_once(tmp_path):
    expected = everything_wrong(tmp_path / "GOPRO")
    report = check_folder(tmp_path / "GOPRO", "train")
    for what, line in expected.items():
        assert [bool(re.search(line, problem)) for problem in report.problems].count(True) == 1, what
    assert len(report.problems) == len(expected)
    assert all(str(tmp_path) in problem and "\n" not in problem for problem in report.problems)


@pytest.mark.slow
def test_training_ends_with_all_problems_of_the_headers(tmp_path):
    everything_wrong(tmp_path / "GOPRO")
    with pytest.raises(DatasetError) as error:
        find_images(tmp_path / "GOPRO", "train")
    first, *problems = str(error.value).splitlines()
    assert first == "6 problems:"
    for text in ("1 in blur/ without a partner in sharp/ ", "600×384", "20×7", "16 bits", "blur/11.png cannot be read"):
        assert any(text in problem for problem in problems)


@pytest.mark.slow
def test_command_line(tmp_path, run_here):
    expected = everything_wrong(tmp_path / "GOPRO")
    folders = [tmp_path / "nowhere", tmp_path / "GOPRO", SAMPLES]
    ran = run_here("tools/check_data.py", *folders)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert "Warning" not in ran.stderr
    assert ran.stdout.count("  error: ") == len(expected) + 1
    missing = f"{tmp_path}/nowhere does not exist; expected the folder of a data set, or a list of pairs"
    assert f"  error: {missing} (.txt, .lst, .list, .tsv)\n  1 problem\n" in ran.stdout
    assert f"  {len(expected)} problems\ntrain, {SAMPLES}: gopro, 2 pairs" in ran.stdout
    assert "input PSNR 22.37 dB (mean of 2 pairs; 22.24 to 22.50)\n  no problems\n" in ran.stdout
    assert ran.stdout.endswith(f"  no problems\n{len(expected) + 1} problems in all\n")


def test_status_of_the_command_line(run_here):
    ran = run_here("tools/check_data.py", "--split", "test", SAMPLES)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "  no problems")
    ran = run_here("tools/check_data.py", "gopr=x")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: gopr=x: unknown kind 'gopr'")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_with_130(tmp_path):
    for i in range(400):
        put(tmp_path, f"{i}", *FIRST)
    script = Script("-m", "tools.check_data", str(tmp_path))
    assert script.stderr.read(20)  # the bar stands
    os.kill(script.pid, signal.SIGINT)
    out, err = script.communicate(timeout=60)
    assert script.returncode == 130
    assert out == ""
    assert err.endswith("interrupted\n")


@pytest.mark.slow
def test_real_pairs_have_no_problems(shared):
    for split, psnr in (("train", "23.42"), ("test", "24.62")):
        report = check_folder(shared / "data" / "GOPRO_sample", split)
        assert report.problems == ()
        assert f"input PSNR {psnr} dB" in report.description
        assert quick_check(find_images(shared / "data" / "GOPRO_sample", split)) == []
    assert check_folder(shared / "data" / "unpaired", "test").problems == ()


def test_real_blur_gamma_under_another_name_and_under_its_own(tmp_path, shared):
    sequence = shared / "data" / "GOPRO_sample" / "test" / "GOPR0396_11_00"
    files = sequence / "blur_gamma" / "000001.png", sequence / "sharp" / "000001.png"
    put(tmp_path / "GOPR0396_11_00", "000001", *files)
    (problem,) = check_folder(tmp_path, "test").problems
    assert "GOPR0396_11_00/blur: expected GoPro's blur and found" in problem
    (warning,) = quick_check(find_images(tmp_path, "test"))
    assert warning.startswith(f"WARNING: {tmp_path}: expected GoPro's blur and found")
    (tmp_path / "GOPR0396_11_00" / "blur").rename(tmp_path / "GOPR0396_11_00" / "blur_gamma")
    report = check_folder(tmp_path, "test", sides=("blur_gamma", "sharp"))
    assert report.problems == ()
    assert "note: the blurry images are those of blur_gamma/; the published numbers are for blur/" in report.description
    shutil.copy(sequence / "blur" / "000001.png", tmp_path / "GOPR0396_11_00" / "blur_gamma" / "000001.png")
    (problem,) = check_folder(tmp_path, "test", sides=("blur_gamma", "sharp")).problems
    assert "expected GoPro's blur_gamma and found" in problem


@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "kind", "count"), [(1.0, "gopro", 0), (2.2, "gopro", 1), (2.2, "paired", 0)])
def test_variant_is_detected_by_the_light_that_was_averaged(tmp_path, gamma, kind, count):
    """Other sets may be averages in linear light by right."""
    for i, pair in enumerate((FIRST, SECOND)):
        put(tmp_path, f"{i}", None, pair[1])
        save(tmp_path / "blur" / f"{i}.png", moved_camera(pair[1], gamma))
    problems = check_folder(tmp_path, "test", kind).problems
    assert len(problems) == count
    assert all("its blur_gamma" in problem for problem in problems)


def test_partners_shifted_by_a_frame(tmp_path, shared):
    """Each pair alone might pass; their mean PSNR cannot."""
    sides = shared / "data" / "GOPRO_sample" / "train" / "GOPR0372_07_00"
    for number in range(47, 58):
        blurry, sharp = sides / "blur" / f"{number:06}.png", sides / "sharp" / f"{number + 1:06}.png"
        put(tmp_path / "GOPR0372_07_00", f"{number}", blurry, sharp)
    (problem,) = (text for text in check_folder(tmp_path, "test").problems if "the input PSNR" in text)
    assert re.search(r"the input PSNR is 1[567]\.\d\d dB \(mean of 11 pairs\), expected 18\.0 to 35\.0", problem)


def of_psnr(psnr: float) -> PairContent:
    return PairContent(Path("set/blur/1.png"), Path("set/sharp/1.png"), psnr, 0.99, 0.3, 0.0)


@pytest.mark.parametrize(
    ("kind", "count", "psnr", "expected"),
    [
        ("gopro", 1111, 25.64, None),
        ("gopro", 1111, 24.9, "expected 25.3 to 26.0 for a full GoPro test set"),
        ("gopro", 1111, 27.3, "the input PSNR is 27.30 dB (mean of 1,111 pairs)"),
        ("gopro", 1110, 27.3, None),
        ("gopro", 1110, 16.1, "expected 18.0 to 35.0 for a part of GoPro"),
        ("hide", 1111, 16.1, None),
        ("paired", 3, 46.0, "expected 15.0 to 45.0 for a set of pairs"),
        ("paired", 3, 14.0, "expected 15.0 to 45.0"),
    ],
)
def test_plausible_input_psnr(kind, count, psnr, expected):
    pairs = [of_psnr(psnr)] * count
    files = [tuple(getattr(pair, side) for pair in pairs) for side in ("blurry", "sharp")]
    image_set = ImageSet(kind, Path("set"), "{blur,sharp}", *files, names=("1.png",) * count)
    problems = content_problems(pairs, image_set, by_folder=True)
    assert len(problems) == (expected is not None)
    assert all(expected in problem.summary for problem in problems)


def test_equal_and_unrelated_pairs_do_not_outvote_swapped_ones(tmp_path):
    for i, pair in enumerate((FIRST[::-1], (FIRST[1], FIRST[1]), SECOND[1:] * 2, (FIRST[0], OTHER_SHARP))):
        put(tmp_path, f"{i}", *pair)
    problems = check_folder(tmp_path, "test").problems
    assert any("the blurry side is sharper" in problem and "median of 1 pairs" in problem for problem in problems)


@pytest.mark.slow
def test_count_that_differs_from_the_published_one_is_a_problem(tmp_path):
    content = save(tmp_path / "one.png").read_bytes()
    for side in ("blur", "sharp"):
        (tmp_path / "GOPRO" / "test" / side).mkdir(parents=True)
        for i in range(1079):
            (tmp_path / "GOPRO" / "test" / side / f"{i:06}.png").write_bytes(content)
    problems = check_folder(tmp_path / "GOPRO", "test").problems
    assert len(problems) == 1080  # and black pictures on both sides
    assert problems[-1].startswith(f"{tmp_path}/GOPRO: 1,079 images, the published gopro test set has 1,111: 32 are")


def test_hide_keeps_the_images_that_have_partners(tmp_path):
    save_all(tmp_path, "test/test-close-ups/{1,2}.png", "GT/1.png")
    shutil.copy(FIRST[0], tmp_path / "test" / "test-close-ups" / "1.png")
    shutil.copy(FIRST[1], tmp_path / "GT" / "1.png")
    report = check_folder(tmp_path, "test")
    (problem,) = report.problems
    assert problem.startswith(f"{tmp_path}/test/test-close-ups/2.png has no partner in {tmp_path}/GT;")
    assert "hide, 1 pair " in report.description
    assert "input PSNR 22.50 dB" in report.description
    (tmp_path / "GT" / "1.png").rename(tmp_path / "GT" / "3.png")
    assert len(check_folder(tmp_path, "test").problems) == 2


def test_damaged_image_without_ground_truth(tmp_path):
    for name in ("1", "2"):
        shutil.copy(FIRST[0], tmp_path / f"{name}.png")
    damage(tmp_path / "2.png")
    (problem,) = check_folder(tmp_path, "test").problems
    assert problem.startswith(f"{tmp_path}/2.png is damaged or incomplete")
    assert quick_check(find_images(tmp_path, "test")) == []


@pytest.mark.parametrize(
    ("blurry", "sharp", "expected"),
    [
        (FIRST[0], FIRST[1], None),
        (FIRST[1], FIRST[0], "the blurry side is sharper than the sharp one"),
        (FIRST[1], FIRST[1], "3 of 3 pairs are the same picture"),
        (FIRST[0], OTHER_SHARP, "3 of 3 pairs do not show the same scene"),
    ],
    ids=["right", "swapped", "equal", "other scene"],
)
def test_quick_check(tmp_path, blurry, sharp, expected):
    for i in range(3):
        put(tmp_path / "GOPR0372_07_00", f"{i}", blurry, sharp)
    warnings = quick_check(find_images(tmp_path, "test"))
    assert bool(warnings) == bool(expected)
    assert all(warning.startswith("WARNING: ") for warning in warnings)
    assert expected is None or expected in warnings[0]


def test_quick_check_passes_over_broken_files(tmp_path):
    for i in range(3):
        put(tmp_path, f"{i}", FIRST[1], FIRST[0])
    image_set = find_images(tmp_path, "test")
    damage(tmp_path / "blur" / "0.png")
    (tmp_path / "sharp" / "1.png").unlink()
    (warning,) = quick_check(image_set)
    assert "median of 1 pairs" in warning
    damage(tmp_path / "sharp" / "2.png")
    assert quick_check(image_set) == []


def test_quick_check_looks_at_16_pairs_from_the_first_to_the_last(tmp_path):
    for i in range(31):
        put(tmp_path, f"{i:02}", FIRST[1] if i % 2 or i == 30 else FIRST[0], FIRST[1])
    (warning,) = quick_check(find_images(tmp_path, "test"))
    assert warning == (
        "WARNING: 1 of 16 pairs are the same picture; expected a blurry and a sharp one: "
        f"{tmp_path / 'blur' / '30.png'}"
    )
