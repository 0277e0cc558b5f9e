"""Lists of pairs: two paths a line, in the order of the columns that their folders tell."""

from pathlib import Path

import pytest

from datasets import SIDES, DatasetError, find_images
from tests.support.layouts import relative
from tests.support.samples import save_all
from utils.common.errors import UserError
from utils.testing.inputs import find_inputs

REALBLUR = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def test_realblurs_list(tmp_path):
    """Sharp first, a space at the end of lines, no line break at the end; train and test lie in the same folders."""
    save_all(tmp_path, *(f"{REALBLUR}/scene{i}/{{blur/blur_7,gt/gt_7}}.png" for i in (230, 231)))
    lines = [f"{REALBLUR}/scene{i}/gt/gt_7.png {REALBLUR}/scene{i}/blur/blur_7.png " for i in (230, 231)]
    images = find_images(write(tmp_path / "RealBlur_J_test_list.txt", lines[0]), "test")
    assert images.kind == "realblur_j"
    assert [path.name for path in (images.blurry[0], images.sharp[0])] == ["blur_7.png", "gt_7.png"]
    assert images.names == (f"{REALBLUR}/scene230/blur/blur_7.png",)
    assert "a part of the realblur_j test set: 1 of 980 images" in images.notes
    (below,) = find_images(write(tmp_path / "lists" / "all.txt", lines[1]), "train").blurry
    assert below == tmp_path / REALBLUR / "scene231/blur/blur_7.png"


@pytest.mark.parametrize(
    "line", ["a/1.png b/1.png", "a/1.png\tb/1.png", "b/1.png a/1.png", "RSBlur/gt/gt_sharp.png RSBlur/real_blur/1.png"]
)
def test_columns(tmp_path, line):
    """The second is sharp, unless the first one's folder says that it is."""
    first, second = line.split()
    save_all(tmp_path, first, second)
    _, pairs = found_in(write(tmp_path / "list.txt", "", line, ""), tmp_path)
    assert pairs == [(second, first) if "gt" in first else (first, second)]


def found_in(path: Path, root: Path):
    images = find_images(path, "test")
    return images, [tuple(relative(pair, root)) for pair in zip(images.blurry, images.sharp, strict=True)]


def test_paths_with_spaces_have_a_tab_between_them(tmp_path):
    save_all(tmp_path, "my photos/a b.png", "sharp ones/a b.png")
    images, _ = found_in(write(tmp_path / "list.txt", "my photos/a b.png\tsharp ones/a b.png"), tmp_path)
    assert images.names == ("my photos/a b.png",)
    with pytest.raises(DatasetError, match=r"list.txt, line 2: expected two paths .*, found 6 parts"):
        find_images(write(tmp_path / "list.txt", "", "my photos/a b.png sharp ones/a b.png"), "test")


def test_missing_files_repeated_and_empty_lists(tmp_path):
    save_all(tmp_path, "a/{1,2}.png", "b/1.png")
    with pytest.raises(
        DatasetError,
        match=r"names 1 file that is missing: .*b/2.png; put the list beside a/, which its paths begin with",
    ):
        find_images(write(tmp_path / "list.txt", "a/1.png b/1.png", "a/2.png b/2.png"), "test")
    with pytest.raises(DatasetError, match="names a/1.png more than once"):
        find_images(write(tmp_path / "list.txt", "a/1.png b/1.png", "a/1.png b/1.png"), "test")
    with pytest.raises(DatasetError, match="has no lines; expected two paths a line"):
        find_images(write(tmp_path / "list.txt", "", " "), "test")
    with pytest.raises(DatasetError, match="unpaired=.*list.txt: a list of pairs is of kind paired"):
        find_images(write(tmp_path / "list.txt", "a/1.png b/1.png"), "test", "unpaired")


def test_a_list_is_tested_like_a_folder(tmp_path):
    save_all(tmp_path, "a/{1,2}.png", "b/{1,2}.png")
    path = write(tmp_path / "pairs.txt", "a/1.png b/1.png", "a/2.png b/2.png")
    (inputs,), videos = find_inputs([f"paired={path}"], ("blur", "sharp"), tmp_path / "out", None)
    assert (inputs.name, inputs.count, videos) == ("pairs", 2, {})
    assert inputs.outputs == [Path("pairs/a/1.png"), Path("pairs/a/2.png")]


def test_each_line_is_turned_by_the_folders_that_its_paths_do_not_share(tmp_path):
    save_all(tmp_path, "GT/{blur,sharp}/{a1,a2,a3}.png")
    lines = ["GT/blur/a1.png GT/sharp/a1.png", "GT/sharp/a2.png GT/blur/a2.png", "GT/blur/a3.png GT/sharp/a3.png"]
    _, pairs = found_in(write(tmp_path / "list.txt", *lines), tmp_path)
    assert pairs == [(f"GT/blur/a{i}.png", f"GT/sharp/a{i}.png") for i in (1, 2, 3)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_lists_from_windows(tmp_path, encoding):
    save_all(tmp_path, "é/{gt,blur}/1.png")
    text = "é\\gt\\1.png é\\blur\\1.png\r\n"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "my_test_list.txt").write_bytes((mark + text).encode(encoding))
    for path in (tmp_path / "my_test_list.txt", tmp_path):  # by itself, and found in its folder
        assert found_in(path, tmp_path)[1] == [("é/blur/1.png", "é/gt/1.png")]


def test_a_line_without_two_paths_is_shown(tmp_path):
    save_all(tmp_path, "a/1.png")
    with pytest.raises(DatasetError, match=r"list.txt, line 1: .*found 3 parts: a/1.png b 1.png$"):
        find_images(write(tmp_path / "list.txt", "a/1.png b 1.png "), "test")


def test_problems_of_a_list_have_no_way_out_that_is_refused(tmp_path):
    save_all(tmp_path, "{blur,sharp}/1.png")
    path = write(tmp_path / "list.txt", "blur/1.png sharp/1.png", "blur/1.png sharp/1.png")
    with pytest.raises(UserError, match="more than once") as refused:
        find_inputs([str(path)], SIDES, tmp_path / "out", None)
    assert "unpaired=" not in str(refused.value)


def realblur(folder):
    """Both of RealBlur's sets and their lists in one folder, a pair for each split."""
    for name in ("J", "R"):
        for split in ("train", "test"):
            save_all(folder, f"RealBlur-{name}_ref/{split}/{{gt/gt_1,blur/blur_1}}.png")
            sharp, blurry = (f"RealBlur-{name}_ref/{split}/{each}_1.png" for each in ("gt/gt", "blur/blur"))
            write(folder / f"RealBlur_{name}_{split}_list.txt", f"{sharp} {blurry}")
    write(folder / "test_notes.txt", "two words")
    write(folder / "latest_pairs.txt", f"{sharp} {blurry}")
    return folder


def test_a_folder_is_taken_by_its_list(tmp_path):
    root = realblur(tmp_path)
    for kind, name in (("realblur_j", "J"), ("realblur_r", "R")):
        for split in ("train", "test"):
            images = find_images(root, split, kind)
            assert images.blurry == (root / f"RealBlur-{name}_ref" / split / "blur" / "blur_1.png",)
    with pytest.raises(DatasetError, match=r"holds 2 lists of test pairs, RealBlur_J_test_list.txt, RealBlur_R_test_"):
        find_images(root, "test")
    for split in ("train", "test"):
        (root / f"RealBlur_R_{split}_list.txt").unlink()
    images = find_images(root, "test")
    assert (images.kind, len(images)) == ("realblur_j", 1)
    with pytest.raises(DatasetError, match=r"holds RealBlur_J_test_list.txt, .*no list of realblur_r's test pairs"):
        find_images(root, "test", "realblur_r")
    (root / "RealBlur_J_train_list.txt").unlink()
    with pytest.raises(DatasetError, match=r"holds RealBlur_J_test_list.txt, but no list of train pairs"):
        find_images(root, "train")  # not all that there is, with the test pairs


@pytest.mark.parametrize("kind", [None, "realblur_j"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_is_taken_by_the_list_beside_it(tmp_path, split, kind):
    """Training and test scenes lie in one folder: the folder alone would give both."""
    save_all(tmp_path, *(f"{REALBLUR}/scene{i}/{{blur/blur_7,gt/gt_7}}.png" for i in (1, 2)))
    for i, each in enumerate(("train", "test"), 1):
        line = f"{REALBLUR}/scene{i}/gt/gt_7.png {REALBLUR}/scene{i}/blur/blur_7.png"
        write(tmp_path / f"RealBlur_J_{each}_list.txt", line)
        write(tmp_path / f"RealBlur_R_{each}_list.txt", line.replace("-J_", "-R_"))  # of another folder
    images = find_images(tmp_path / REALBLUR, split, kind)
    assert (images.kind, relative(images.blurry, tmp_path)) == (
        "realblur_j", [f"{REALBLUR}/scene{1 if split == 'train' else 2}/blur/blur_7.png"],
    )  # fmt: skip
    assert f"RealBlur_J_{split}_list.txt" in images.describe().splitlines()[0]
    assert len(find_images(tmp_path / REALBLUR, split, "paired")) == 2
    (tmp_path / f"RealBlur_J_{split}_list.txt").unlink()
    with pytest.raises(DatasetError, match=rf"_list.txt, but no list of .*{split} pairs, which is needed here"):
        find_images(tmp_path / REALBLUR, split, kind)


def test_lists_beside_a_folder_with_splits_or_of_other_folders_do_not_count(tmp_path):
    save_all(tmp_path, "a/{train,test}/{blur,sharp}/1.png", "b/{blur,sharp}/1.png")
    write(tmp_path / "train.txt", "a/train/blur/1.png a/train/sharp/1.png")
    assert find_images(tmp_path / "a", "test").names == find_images(tmp_path / "b", "test").names == ("1.png",)
    assert find_images(tmp_path / "a/test", "test").names == ("1.png",)


@pytest.mark.parametrize(
    ("folder", "kind", "sides", "name"),
    [
        (REALBLUR, None, SIDES, "RealBlur_J_train_list"),
        (REALBLUR.replace("-J", "-R"), None, SIDES, "RealBlur_R_train_list"),
        (REALBLUR, None, ("blur", "gt"), "RealBlur_J_train_list"),
        ("mine", None, SIDES, "RealBlur_J_train_list"),
        ("mine", "realblur_r", SIDES, "RealBlur_R_train_list"),
    ],
)
def test_scenes_that_only_lists_split_are_refused_without_one(tmp_path, folder, kind, sides, name):
    root = save_all(tmp_path / folder, *(f"scene{i}/{{blur/blur_7,gt/gt_7}}.png" for i in (1, 2)))
    with pytest.raises(DatasetError, match=rf"no list of train pairs in it .*put {name}.txt.*give paired={root}"):
        find_images(root, "train", kind, sides)
    with pytest.raises(DatasetError, match="no list of test pairs in it"):
        find_images(root / "scene1", "test", kind, sides)
    assert len(find_images(root, "train", "paired")) == 2
    for i in (1, 2):
        (root / "train").mkdir(exist_ok=True)
        (root / f"scene{i}").rename(root / "train" / f"scene{i}")
    assert len(find_images(root, "train", kind, sides)) == 2


@pytest.mark.parametrize("kind", [None, "rsblur"])
def test_rsblur_by_the_list_beside_it_alone(tmp_path, kind):
    root = tmp_path / "RSBlur"
    save_all(root, *(f"0001/00000{i}/{{real_blur/real_blur,gt/gt_sharp}}.png" for i in (1, 2)))
    with pytest.raises(DatasetError, match=r"no list of test pairs in it .*: put RSBlur_real_test.txt beside"):
        find_images(root, "test", kind)
    folder = "RSBlur/0001/000002"
    write(tmp_path / "RSBlur_real_test.txt", f"{folder}/gt/gt_sharp.png {folder}/real_blur/real_blur.png")
    images = find_images(root, "test", kind)
    assert (images.kind, relative(images.blurry, tmp_path)) == ("rsblur", [f"{folder}/real_blur/real_blur.png"])
    save_all(tmp_path / "photos" / "RSBlur", "1.png")
    assert find_images(tmp_path / "photos" / "RSBlur", "test").kind == "unpaired"


def test_folders_of_splits_come_before_lists(tmp_path):
    save_all(tmp_path, "{train,test}/{blur,sharp}/{1,2}.png")
    write(tmp_path / "test_pairs.txt", "test/blur/1.png test/sharp/1.png")
    assert len(find_images(tmp_path, "test")) == len(find_images(tmp_path, "train")) == 2


def test_a_list_is_not_of_another_set_or_split(tmp_path):
    root = realblur(tmp_path)
    with pytest.raises(DatasetError, match=r"by its name this is a list of realblur_r; give realblur_r="):
        find_images(root / "RealBlur_R_test_list.txt", "test", "realblur_j")
    warning = "WARNING: by its name this list is not of test pairs, which are expected here"
    assert warning in find_images(root / "RealBlur_J_train_list.txt", "test").notes
    assert warning not in find_images(root / "RealBlur_J_test_list.txt", "test").notes
