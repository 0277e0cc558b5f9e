"""The table of layouts: pairs where the folders' names say so, and which data set they are."""

import unicodedata
from pathlib import Path

import pytest

from datasets import DatasetError, find_images
from datasets.discovery.benchmarks import BENCHMARKS
from datasets.discovery.header_checks import compare_with_published_count
from datasets.discovery.kinds import recognise
from datasets.discovery.layout_table import LAYOUTS
from datasets.discovery.pairing import Match
from tests.support.layouts import HIDE, found
from tests.support.samples import ROOT, save_all


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if each.sure], ids=lambda row: f"{row.blurry}-{row.sharp}")
@pytest.mark.parametrize("case", [str.lower, str.capitalize, str.upper])
def test_every_row(tmp_path, layout, case):
    blurry, sharp = case(layout.blurry), case(layout.sharp)
    save_all(tmp_path, f"S/{{{blurry},{sharp}}}/1.png", f"T/{{{blurry},{sharp}}}/a/1.png")
    images, pairs = found(tmp_path)
    assert pairs == [
        (f"S/{blurry}/1.png", f"S/{sharp}/1.png", "S/1.png"),
        (f"T/{blurry}/a/1.png", f"T/{sharp}/a/1.png", "T/a/1.png"),
    ]
    if layout.blurry == "blur_300":
        assert images.kind == "reds_jpeg"
    else:
        assert (images.kind, images.notes) == ("paired", ())


def test_images_of_no_name_are_of_no_known_set():
    assert recognise(Path("/data/mine"), Match("any", (), (), (), ("blur", "sharp"))) == "paired"


def test_reds(tmp_path):
    """Its archives unpacked into one folder, and each split by itself."""
    save_all(tmp_path, *(f"{split}_{{blur,sharp}}/00{i}/0.png" for i, split in enumerate(("train", "val"))))
    for split, name, i in (("train", "train", 0), ("test", "val", 1)):
        images, pairs = found(tmp_path, split)
        assert pairs == [(f"{name}_blur/00{i}/0.png", f"{name}_sharp/00{i}/0.png", f"00{i}/0.png")]
        assert images.kind == "reds"  # by the name of this test's folder
        assert images.notes[0].startswith("not used: 2 images in other folders (")
    save_all(tmp_path / "apart", "train/train_{blur,sharp}/0/0.png", "val/val_{blur,sharp}/0/1.png")
    assert found(tmp_path / "apart", "test")[1] == [("val/val_blur/0/1.png", "val/val_sharp/0/1.png", "0/1.png")]


@pytest.mark.parametrize("kind", [None, "reds", "reds_jpeg"])
@pytest.mark.parametrize(
    ("root", "folder", "pair"),
    [
        ("REDS", "val", "{val_blur_jpeg,val_sharp}/000"),
        ("REDS/val", "", "{val_blur_jpeg,val_sharp}/000"),
        ("mine/val", "", "{blur_300,sharp_300}"),
        ("REDS", "val", "{blur_300,sharp_300}"),
    ],
)
def test_reds_as_published_results_take_it(tmp_path, root, folder, pair, kind):
    place = tmp_path / root / folder
    save_all(place, f"{pair}/{{1,2}}.png")
    images, pairs = found(tmp_path / root, kind=kind)
    assert (images.kind, len(pairs)) == ("reds_jpeg", 2)
    assert "a part of the reds_jpeg test set: 2 of 300 images" in images.notes
    save_all(place, "{val_blur,val_sharp}/000/{1,2}.png")
    images = find_images(tmp_path / root, "test", kind)
    assert (images.kind == "reds_jpeg") == (kind == "reds_jpeg")
    assert ("val_blur/" in str(images.blurry[0])) == (kind != "reds_jpeg")


def test_300_images_are_all_of_reds_jpeg_and_a_part_of_reds():
    assert compare_with_published_count("reds_jpeg", "test", 300) == []
    assert "a part of the reds test set: 300 of 3,000" in compare_with_published_count("reds", "test", 300)[0]
    assert "2,700 too many" in compare_with_published_count("reds_jpeg", "test", 3000)[0]


def test_other_split_in_the_sides_names_is_noted(tmp_path):
    save_all(tmp_path, "train_{blur,sharp}/0.png")
    assert find_images(tmp_path, "test").notes == (
        "WARNING: these are the images of train_blur/, used where those of test are expected",
    )
    assert not find_images(tmp_path, "train").notes


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (HIDE, "hide"),
        (("test/a/12fromGOPR1096.MP4.png", "GT/12fromGOPR1096.MP4.png"), "hide"),
        (("test/LR/3.png", "GT/3.png"), "paired"),
        (("HQ-ish/3.png", "GT/3.png"), "paired"),
        (("LQ/3.png", "GT/3.png"), "paired"),
        (("hide_and_seek/pictures/3.png", "hide_and_seek/GT/3.png"), "paired"),
        (("LQ/GOPR0384_11_00-000001.png", "GT/GOPR0384_11_00-000001.png"), "gopro"),
        (("SEQ_1/{input,GT}/00001.jpg", "SEQ_2/{input,GT}/00001.jpg"), "paired"),
    ],
)
def test_gt_beside_another_folder_is_hide_by_hides_own_names_alone(tmp_path, files, kind):
    save_all(tmp_path, *files)
    images = find_images(tmp_path / "hide_and_seek" if "hide_and" in files[0] else tmp_path, "test")
    assert (images.kind, images.paired) == (kind, True)
    assert not [note for note in images.notes if "hide" in note and kind != "hide"]


def test_masks_of_hide_are_no_images(tmp_path):
    save_all(tmp_path, *HIDE, "test/masks/{3,4}.png", "test/Mask/5.png")
    images = find_images(tmp_path, "test")
    assert (images.kind, len(images)) == ("hide", 2)
    assert "not used: 3 images in other folders (Mask/5.png, masks/3.png and 1 more)" in str(images.notes)


@pytest.mark.parametrize(
    ("blurry", "sharp"),
    [
        ("blur/1.jpg", "sharp/1.png"),
        ("blur/1.PNG", "sharp/1.png"),
        *((f"S/{a}/é.png", f"S/{b}/é.png") for a, b in (("blur", "sharp"), ("input", "target"))),
        ("train/1.jpg", "GT/1.png"),
    ],
)
def test_partners_by_stem_where_that_is_unique(tmp_path, blurry, sharp):
    blurry, sharp = unicodedata.normalize("NFC", blurry), unicodedata.normalize("NFD", sharp)
    save_all(tmp_path, blurry, sharp)
    images, pairs = found(tmp_path, "train")
    assert [pair[:2] for pair in pairs] == [(blurry, sharp)]
    (note,) = images.notes
    assert note.startswith("partners with other file names, matched by their stems: ")


def test_partners_by_stem_are_refused_where_two_fit(tmp_path):
    save_all(tmp_path, "blur/{1.jpg,1.webp,2.jpg,3.png}", "sharp/{1.png,2.png,2.bmp,3.png,3.jpg}")
    with pytest.raises(DatasetError, match=r"3 in blur/ without .*2\.jpg\); 4 in sharp/ without .* \(sharp/1\.png"):
        find_images(tmp_path, "test")


def test_docs_name_every_row():
    text = (ROOT / "docs" / "data.md").read_text().lower()
    for layout in LAYOUTS:
        assert f"`{layout.blurry}/` + `{layout.sharp}/`" in text


@pytest.mark.parametrize(
    ("root", "files", "pair", "kind"),
    [
        (
            "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/test",
            ("scene001/{blur/blur_7,gt/gt_7}.png", "scene002/{blur/blur_7,gt/gt_7}.png"),
            ("scene001/blur/blur_7.png", "scene001/gt/gt_7.png", "scene001/blur_7.png"),
            "realblur_j",
        ),
        (
            "BSD_3ms24ms",
            ("test/022/{Blur,Sharp}/RGB/00000000.png", "train/000/{Blur,Sharp}/RGB/00000000.png"),
            ("test/022/Blur/RGB/00000000.png", "test/022/Sharp/RGB/00000000.png", "022/RGB/00000000.png"),
            "bsd",
        ),
        (
            "DeepVideoDeblurring_Dataset/quantitative_datasets",
            ("IMG_0030/{input,GT}/00000.jpg",),
            ("IMG_0030/input/00000.jpg", "IMG_0030/GT/00000.jpg", "IMG_0030/00000.jpg"),
            "dvd",
        ),
        (
            "videos/test",
            ("720p_240fps_2/{input,GT}/00000.jpg", "IMG_0030/{input,GT}/00000.jpg"),
            ("720p_240fps_2/input/00000.jpg", "720p_240fps_2/GT/00000.jpg", "720p_240fps_2/00000.jpg"),
            "dvd",
        ),
        ("IMG_0030", ("{input,GT}/00000.jpg",), ("input/00000.jpg", "GT/00000.jpg", "00000.jpg"), "dvd"),
        (
            "REDS/val",
            ("val_{blur,sharp}/000/0.png",),
            ("val_blur/000/0.png", "val_sharp/000/0.png", "000/0.png"),
            "reds",
        ),
    ],
)
def test_benchmarks_as_they_are_unpacked(tmp_path, root, files, pair, kind):
    images, pairs = found(save_all(tmp_path / root, *files))
    assert (images.kind, pairs[0]) == (kind, pair)
    assert any(note.startswith(f"a part of the {kind} test set") for note in images.notes)


@pytest.mark.parametrize(
    "files",
    [
        ("IMG_0030/{input,target}/00000.jpg",),
        ("IMG_0030/{input,GT}/00000.jpg", "dogs/{input,GT}/00000.jpg"),
        ("IMG_0030/{input,GT}/1.jpg",),
        ("IMG_2030/{input,GT}/00000.jpg",),
    ],
)
def test_dvd_is_recognised_by_all_of_its_names_alone(tmp_path, files):
    assert find_images(save_all(tmp_path, *files), "test").kind == "paired"


def test_the_count_of_dvd_is_checked(tmp_path):
    save_all(tmp_path, "a/{input,GT}/00000.jpg")
    for split, count in (("train", "5,708"), ("test", "1,000")):
        assert f"a part of the dvd {split} set: 1 of {count} images" in find_images(tmp_path, split, "dvd").notes
    assert "5,708 too many; results are not comparable" in compare_with_published_count("dvd", "test", 6708)[0]


def test_every_benchmark_is_among_the_layouts_that_were_looked_for(tmp_path):
    save_all(tmp_path, "1.txt.png")
    with pytest.raises(DatasetError, match="Looked for") as refused:
        find_images(tmp_path, "test", "dvd")
    lines, docs = str(refused.value).splitlines(), (ROOT / "docs" / "data.md").read_text()
    for kind, row in BENCHMARKS.items():
        assert row.layouts
        for layout in row.layouts:
            assert any(line.startswith(f"  {layout} ") and row.title in line for line in lines)
        assert (kind in docs, row.title.split("-")[0] in docs) == (True, True)


def test_other_names_on_both_sides(tmp_path):
    save_all(tmp_path, "S/{lowq,highq,blur,sharp}/1.png")
    images, pairs = found(tmp_path, sides=("lowq", "highq"))
    assert pairs == [("S/lowq/1.png", "S/highq/1.png", "S/1.png")]
    assert "not used: 2 images in other folders" in images.notes[0]
    for sides, flag in ((("sharp", "x"), "--blur_dir"), (("x", ""), "--sharp_dir"), (("a/b", "x"), "--blur_dir")):
        with pytest.raises(DatasetError, match=flag):
            find_images(tmp_path, "test", sides=sides)
