"""Folders that are easily mistaken: one side alone, the other split, files other than the pairs."""

import os
from pathlib import Path

import pytest

import D_testing
import DR_training
from datasets import DatasetError, find_images, find_named_sets, parse_source
from tests.support.layouts import HIDE
from tests.support.samples import save_all
from tools import blur_statistics, check_data
from tools.check_data import check_folder
from utils.common.errors import UserError
from utils.testing.inputs import find_inputs


@pytest.mark.parametrize(
    "names", [("blurry", "ground_truth"), ("train_blur_bicubic", "train_sharp_bicubic"), ("A", "HQ")]
)
def test_sides_under_other_names_are_not_unpaired(tmp_path, names):
    save_all(tmp_path, *(f"{name}/1.png" for name in names))
    with pytest.raises(DatasetError, match=f"{names[1]}/, but these are not both sides of pairs"):
        find_images(tmp_path, "test")


@pytest.mark.parametrize(("side", "partner"), [("blur", "sharp"), ("sharp", "blur"), ("target", "input")])
def test_a_side_given_alone_is_not_unpaired(tmp_path, side, partner):
    save_all(tmp_path, f"{side}/1.png", f"{partner}/1.png")
    with pytest.raises(DatasetError, match=f"one of, .*{side}/.*For images without ground truth write unpaired="):
        find_images(tmp_path / side, "test")
    assert len(find_images(tmp_path / side, "test", "unpaired")) == 1


@pytest.mark.parametrize(
    ("files", "warned"),
    [
        (("{A,B}/{1,2}.png",), True),
        (("S/{x,y}/{1,2}.png", "T/{x,y}/{1,3}.png"), True),
        (("{A,B}/0/{1,2}.png", "{A,B}/1/{1,2}.png"), True),
        (("{A,B,C}/{1,2}.png",), False),
        (("A/{1,2}.png", "B/{1,3}.png"), False),
        (("{A,B}/{1,2}.png", "3.png"), False),
    ],
)
def test_two_folders_with_the_same_names_are_warned_of(tmp_path, files, warned):
    notes = find_images(save_all(tmp_path, *files), "train").notes
    assert any("hold files of the same names, like the two sides of pairs" in note for note in notes) == warned
    assert not find_images(tmp_path, "train", "unpaired").notes


@pytest.mark.parametrize("names", [("0_blur", "0_sharp"), ("a/input-7", "a/gt-7"), ("blurry", "sharp")])
def test_pairs_in_one_folder_are_no_photographs(tmp_path, names):
    save_all(tmp_path, *(f"{name}.png" for name in names))
    with pytest.raises(DatasetError, match=rf"both sides of pairs in one folder \({names[0]}.png, {names[1]}.png\)"):
        find_images(tmp_path, "train")
    save_all(tmp_path / "photos", "sharp turn.jpg", "sharp_turn.jpg", "blur.jpg", "input_1.jpg")
    assert len(find_images(tmp_path / "photos", "train")) == 4


def test_folders_that_may_be_pairs_are_only_when_the_user_says_so(tmp_path):
    save_all(tmp_path, "{trainA,trainB}/{1,2}.png")
    with pytest.raises(DatasetError, match=r"If traina/ is blurry and trainb/ its sharp partner, write paired="):
        find_images(tmp_path, "train")
    images = find_images(tmp_path, "train", "paired")
    assert [path.parent.name for path in (images.blurry[0], images.sharp[0])] == ["trainA", "trainB"]
    save_all(tmp_path, "{testA,testB}/1.png")
    for split in ("train", "test"):
        assert find_images(tmp_path, split, "paired").blurry[0].parent.name == f"{split}A"


def test_a_folder_called_blur_without_neighbours_is_just_a_folder(tmp_path):
    save_all(tmp_path, "blur/1.png")
    assert find_images(tmp_path / "blur", "test").kind == "unpaired"


def test_only_another_variant_names_the_flag(tmp_path):
    save_all(tmp_path, "S/blur_gamma/1.png", "S/sharp/1.png")
    with pytest.raises(DatasetError, match=r"\(or name others with --blur_dir and --sharp_dir\)"):
        find_images(tmp_path, "test")
    assert find_images(tmp_path, "test", sides=("blur_gamma", "sharp")).paired


@pytest.mark.parametrize("kind", [None, "paired"])
@pytest.mark.parametrize("sides", [("foo", "bar"), ("lq", "bar"), ("blur_gamma", "sharp"), ("blur", "gt")])
@pytest.mark.parametrize("files", [("{lq,hq}/1.png",), HIDE, ("test/{input,target}/1.png",), ("photos/1.png",)])
def test_sides_that_are_not_there_are_refused_in_every_layout(tmp_path, files, sides, kind):
    save_all(tmp_path, *files)
    with pytest.raises(
        DatasetError, match=rf"holds no pairs in {sides[0]}/ and {sides[1]}/.* found \w.*or omit the two flags"
    ) as refused:
        find_images(tmp_path, "test", kind, sides)
    assert "found lq/, hq/" in str(refused.value) or "found hq/, lq/" in str(refused.value) or "lq" not in files[0]
    (line,) = check_folder(tmp_path, "test", kind, sides).problems
    assert "omit the two flags" in line
    assert find_images(tmp_path, "test", "unpaired", sides)  # in one run with a set that has them


@pytest.mark.parametrize("kind", [None, "gopro"])
@pytest.mark.parametrize(
    ("folder", "names", "inside"),
    [
        ("test", ("GoPro", "HIDE", "RealBlur_J", "RealBlur_R"), "{input,target}"),
        ("", ("GOPRO_Large", "HIDE_dataset"), "{train,test}/{blur,sharp}"),
        ("data", ("GoPro", "RealBlur_J"), "test/{input,target}"),
        ("", ("BSD_1ms8ms", "BSD_2ms16ms", "BSD_3ms24ms"), "{train,test}/000/{Blur,Sharp}/RGB"),
    ],
)
def test_several_benchmarks_are_not_one_set(tmp_path, folder, names, inside, kind):
    for i, name in enumerate(names):
        save_all(tmp_path / folder / name, f"{inside}/{i}.png")
    where = tmp_path / folder if folder else tmp_path
    with pytest.raises(DatasetError, match=rf"holds {len(names)} data sets, ") as refused:
        find_images(tmp_path, "test", kind)
    assert f"--testset_dir {where} --sets {' '.join(names)}." in str(refused.value)
    assert len(find_named_sets(where, names)) == len(names)
    if "train" not in inside:
        assert len(find_images(tmp_path, "test", "paired")) == len(names)


def test_benchmarks_in_different_folders_are_named_with_their_paths(tmp_path):
    save_all(tmp_path, "a/GoPro/{input,target}/1.png", "b/HIDE/{input,target}/2.png")
    with pytest.raises(DatasetError, match=f"--testset_dir {tmp_path}/a/GoPro {tmp_path}/b/HIDE. All"):
        find_images(tmp_path, "test")


@pytest.mark.parametrize(
    "files",
    [
        ("GOPRO_1/{input,target}/1.png", "GOPRO_2/{input,target}/2.png"),
        ("{blur,sharp}/GoPro/1.png", "{blur,sharp}/HIDE/2.png"),
        ("GoPro/{blur,sharp}/1.png", "mine/{blur,sharp}/1.png"),
    ],
)
def test_parts_of_one_set_are_one_set(tmp_path, files):
    assert len(find_images(save_all(tmp_path, *files), "test")) == 2


def test_sides_are_not_named_for_a_list(tmp_path):
    save_all(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "pairs.txt").write_text("a/1.png b/1.png")
    with pytest.raises(DatasetError, match=r"pairs.txt is a list, .*: omit --blur_dir and --sharp_dir"):
        find_images(tmp_path / "pairs.txt", "test", sides=("foo", "bar"))


@pytest.mark.parametrize(
    "parse",
    [
        lambda *flags: D_testing.parse_args(["--testset_dir", "a", *flags]),
        lambda *flags: DR_training.parse_args(["--stage", "all", "--trainset_dir", "a", *flags]),
        lambda *flags: check_data.parse_args(["a", *flags]),
        lambda *flags: blur_statistics.parse_args(["A=a", "--output", "b.png", *flags]),
    ],
)
def test_the_shells_slash_is_no_part_of_a_sides_name(parse):
    args = parse("--blur_dir", "Blurry Images/", "--sharp_dir", "Sharp/")
    assert (args.blur_dir, args.sharp_dir) == ("Blurry Images", "Sharp")


@pytest.mark.parametrize("side", ["sharp", "target"])
def test_the_sharp_side_is_no_blur_dir(tmp_path, side):
    save_all(tmp_path, "blur/1.png", "sharp/1.png")
    with pytest.raises(DatasetError, match=f"--blur_dir {side} names the sharp side"):
        find_images(tmp_path, "test", sides=(side, "sharp"))


def test_the_other_split_given_by_name_is_noted(tmp_path):
    save_all(tmp_path, "train/blur/1.png", "train/sharp/1.png")
    notes = find_images(tmp_path / "train", "test").notes
    assert "WARNING: this is train/, used where test/ is expected" in notes
    assert not find_images(tmp_path / "train", "train").notes


def test_images_other_than_the_pairs_are_noted(tmp_path):
    save_all(tmp_path, "S/blur/1.png", "S/sharp/1.png", "S/blur_gamma/1.png", "stray.png")
    (note,) = find_images(tmp_path, "test").notes
    assert note == "not used: 2 images in other folders (S/blur_gamma/1.png, stray.png)"


def test_images_deeper_in_gt_are_no_partners(tmp_path):
    save_all(tmp_path, "test/test-close-ups/1.png", "GT/more/1.png")
    with pytest.raises(DatasetError, match=r"1 of 1 images without a partner of the same name in .*GT"):
        find_images(tmp_path, "test", "hide")


def test_gopro_is_recognised_from_one_sequence(tmp_path):
    save_all(tmp_path, "GOPR0384_11_00/blur/1.png", "GOPR0384_11_00/sharp/1.png")
    assert find_images(tmp_path / "GOPR0384_11_00", "test").kind == "gopro"


def test_names_are_recognised_as_words(tmp_path):
    for name, kind in (("HIDE_dataset", "hide"), ("hideaki", "paired")):
        save_all(tmp_path / name, "test/input/1.png", "test/target/1.png")
        assert find_images(tmp_path / name, "test").kind == kind


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that this user cannot open")
def test_a_folder_that_cannot_be_opened(tmp_path):
    save_all(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b").chmod(0)
    with pytest.raises(DatasetError, match="b cannot be opened"):
        find_images(tmp_path, "test")


def test_sources():
    assert parse_source("gopro=~/x") == ("gopro", Path.home() / "x")
    with pytest.raises(DatasetError, match="gopro= names no folder; expected gopro=PATH"):
        parse_source("gopro=")
    with pytest.raises(DatasetError, match=r"for a path with an equals sign write \./data=v2"):
        parse_source("data=v2")


def test_photographs_outside_a_split_are_counted_with_advice(tmp_path):
    save_all(tmp_path / "home", "test/2.jpg", "train/1.jpg", "2022/3.jpg", "4.jpg")
    image_set = find_images(tmp_path / "home", "test")
    assert len(image_set) == 1
    (note,) = (note for note in image_set.notes if "outside" in note)
    assert note.startswith("not used: 2 images outside test/ (2022/3.jpg, 4.jpg); to use all, give unpaired=")
    assert len(find_images(tmp_path / "home", "test", "unpaired")) == 4


def test_photographs_in_val_are_not_outside_of_it(tmp_path):
    save_all(tmp_path / "home", "val/2.jpg", "train/1.jpg", "3.jpg")
    image_set = find_images(tmp_path / "home", "test")
    assert image_set.names == ("2.jpg",)
    (note,) = (note for note in image_set.notes if "outside" in note)
    assert note.startswith("not used: 1 image outside val/ (3.jpg); ")


def test_somebody_s_folders_of_our_names_are_restored_as_unpaired(tmp_path):
    save_all(tmp_path / "home", "blur/b.jpg", "sharp/s.jpg", "2023/1.jpg")
    with pytest.raises(UserError, match=rf"whatever the folders are called: unpaired={tmp_path}/home$"):
        find_inputs([str(tmp_path / "home")], ("blur", "sharp"), tmp_path, None)
    (found,), _ = find_inputs([f"unpaired={tmp_path / 'home'}"], ("blur", "sharp"), tmp_path, None)
    assert len(found.images) == 3
