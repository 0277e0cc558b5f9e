"""Every layout on disk, what is refused and with which message, names and kinds."""

from pathlib import Path

import pytest

from datasets import DatasetError, find_images, parse_source
from datasets.discovery import header_checks, listing
from tests.support.layouts import HIDE, found
from tests.support.samples import SAMPLES, save, save_all

LAYOUTS = {  # below a split's folder: the blurry file, its partner, its name in the set, and the layout's text
    "GOPRO_Large": ("GOPR01_00/blur/0001.png", "GOPR01_00/sharp/0001.png", "GOPR01_00/0001.png", "{blur,sharp}"),
    "sides above": ("blur/GOPR01_00/0001.png", "sharp/GOPR01_00/0001.png", "GOPR01_00/0001.png", "{blur,sharp}"),
    "flat": ("blur/GOPR01_00_0001.png", "sharp/GOPR01_00_0001.png", "GOPR01_00_0001.png", "{blur,sharp}/*.png"),
    "input": ("input/GOPR01_00-0001.png", "target/GOPR01_00-0001.png", "GOPR01_00-0001.png", "{input,target}/*.png"),
}


@pytest.mark.parametrize("kind", [None, "gopro"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gopro_layout_at_root_and_at_split(tmp_path, layout, kind):
    blurry, sharp, name, text = LAYOUTS[layout]
    for split, number in (("train", "0001"), ("test", "0002")):
        for file in (blurry, sharp):
            save_all(tmp_path / split, file.replace("0001", number))
    at_root, pairs = found(tmp_path, "test", kind=kind)
    assert pairs == [tuple(s.replace("0001", "0002") for s in (f"test/{blurry}", f"test/{sharp}", name))]
    assert at_root.kind == "gopro"
    assert text in at_root.layout
    _, pairs = found(tmp_path / "train", "train", kind=kind)
    assert pairs == [(blurry, sharp, name)]


@pytest.mark.parametrize("layout", ["GOPRO_Large", "input", "flat"])
def test_folder_that_holds_both_sides(tmp_path, layout):
    """At the level of the sequence, or of any plain pair of folders."""
    blur, sharp = {"input": ("input", "target")}.get(layout, ("blur", "sharp"))
    save_all(tmp_path, f"{blur}/{{b,a}}.png", f"{sharp}/{{a,b}}.png")
    images, pairs = found(tmp_path)
    assert pairs == [(f"{blur}/{n}.png", f"{sharp}/{n}.png", f"{n}.png") for n in "ab"]
    assert images.kind == "paired"


@pytest.mark.parametrize("split", ["train", "test"])
def test_bundled_pictures(split):
    images, pairs = found(SAMPLES, split)
    assert images.kind == "gopro"
    assert [pair[2] for pair in pairs] == {
        "train": ["GOPR0372_07_00/000047.png", "GOPR0372_07_00/000099.png"],
        "test": ["GOPR0881_11_01/000203.png"],
    }[split]
    assert all(sharp == blurry.replace("/blur/", "/sharp/") for blurry, sharp, _ in pairs)
    assert "a part of the gopro" in images.describe()
    sequence, pairs = found(next((SAMPLES / split).iterdir()), split)
    assert len(sequence) == len(images)
    assert pairs[0][0].startswith("blur/")


def test_blur_gamma_only_when_asked_for(tmp_path):
    save_all(tmp_path, "train/S1/{blur,blur_gamma,sharp}/1.png", "train/S2/{blur,blur_gamma,sharp}/1.png")
    _, pairs = found(tmp_path, "train")
    assert [pair[0] for pair in pairs] == ["train/S1/blur/1.png", "train/S2/blur/1.png"]
    _, pairs = found(tmp_path, "train", sides=("blur_gamma", "sharp"))
    assert pairs[1] == ("train/S2/blur_gamma/1.png", "train/S2/sharp/1.png", "S2/1.png")


def test_blur_does_not_take_the_place_of_what_was_asked_for(tmp_path):
    save_all(tmp_path, "train/S1/{blur,sharp}/1.png")
    with pytest.raises(DatasetError, match="blur_gamma"):
        find_images(tmp_path, "train", sides=("blur_gamma", "sharp"))


def test_partners_by_path_and_not_by_order(tmp_path):
    """`m` sorts between the sides, so that sorted sharp files are in another order than sorted blurry ones."""
    save_all(tmp_path, "{blur,sharp}/{1,2}.png", "m/{blur,sharp}/{1,3}.png", "m/z/{blur,sharp}/1.png")
    _, pairs = found(tmp_path)
    assert sorted(pairs) == sorted(
        (f"{folder}blur/{name}", f"{folder}sharp/{name}", f"{folder}{name}")
        for folder, name in (("", "1.png"), ("", "2.png"), ("m/", "1.png"), ("m/", "3.png"), ("m/z/", "1.png"))
    )


@pytest.mark.parametrize("above", ["blur", "sharp", "test", "train", "input/target", "GT", "a b=c/ü"])
def test_folders_above_the_given_one_do_not_count(tmp_path, above):
    root = save_all(tmp_path / above / "set", "{blur,sharp}/1.png")
    for split in ("train", "test"):
        assert found(root, split)[1] == [("blur/1.png", "sharp/1.png", "1.png")]


def test_names_of_files_that_contain_a_sides_name(tmp_path):
    save_all(tmp_path, "S_blur/{blur,sharp}/{blur,sharp_blur,input}.png", "S_blur/{blur,sharp}/blur.png.png")
    _, pairs = found(tmp_path)
    assert [pair[1] for pair in pairs] == [
        f"S_blur/sharp/{name}.png" for name in ("blur", "blur.png", "input", "sharp_blur")
    ]


def test_case_hidden_files_and_linked_folders(tmp_path):
    save_all(tmp_path / "disk", "{blur,sharp}/{a,._a,.b}.PNG", "{blur,sharp}/.cache/c.png", "{blur,sharp}/d.JPeG")
    (tmp_path / "set" / "test").mkdir(parents=True)
    (tmp_path / "set" / "test" / "S").symlink_to(tmp_path / "disk")
    images, pairs = found(tmp_path / "set")
    assert [pair[2] for pair in pairs] == ["S/a.PNG", "S/d.JPeG"]
    assert images.notes == ()


def test_loop_of_links_does_not_repeat_images(tmp_path):
    save_all(tmp_path, "a.png")
    (tmp_path / "again").symlink_to(tmp_path)
    assert found(tmp_path, kind="unpaired")[1] == [("a.png", None, "a.png")]


def test_links_to_nothing_are_no_images(tmp_path):
    save_all(tmp_path, "a.png")
    for name, target in (("notes", tmp_path / "gone"), ("notes.txt", tmp_path / "gone"), ("loop", tmp_path / "loop")):
        (tmp_path / name).symlink_to(target)
    assert found(tmp_path, kind="unpaired")[1] == [("a.png", None, "a.png")]


def test_names_are_unique(tmp_path):
    save_all(tmp_path, "{blur,sharp}/S/1.png", "S/{blur,sharp}/1.png")
    try:
        names = find_images(tmp_path, "test").names
    except DatasetError:
        return  # refusing the mixture of two layouts is as good
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", [None, "hide"])
def test_hide(tmp_path, kind):
    save_all(tmp_path, *HIDE)
    images, pairs = found(tmp_path, "test", kind=kind)
    assert images.kind == "hide"
    assert pairs == [
        ("test/test-close-ups/3.png", "GT/3.png", "test-close-ups/3.png"),
        ("test/test-long-shot/4.png", "GT/4.png", "test-long-shot/4.png"),
    ]
    assert [pair[1] for pair in found(tmp_path, "train", kind=kind)[1]] == ["GT/1.png", "GT/2.png"]
    for below, expected in (("test", 2), ("test/test-close-ups", 1), ("test/test-long-shot", 1)):
        images = find_images(tmp_path / below, "test", kind)
        assert (len(images), images.kind, images.sharp[-1].parent) == (expected, "hide", tmp_path / "GT")


@pytest.mark.parametrize("way", [".", "link"])
def test_hide_from_inside_its_test_folder(tmp_path, monkeypatch, way):
    """Never without the ground truth, in silence, because of how the folder is written."""
    save_all(tmp_path / "HIDE", *HIDE)
    (tmp_path / "link").symlink_to(tmp_path / "HIDE" / "test")
    monkeypatch.chdir(tmp_path / "HIDE" / "test" if way == "." else tmp_path)
    images = find_images(Path(way), "test")
    assert (len(images), images.paired) == (2, True)


@pytest.mark.parametrize("kind", [None, "hide"])
def test_hide_as_input_and_target(tmp_path, kind):
    save_all(tmp_path / "HIDE", "train/{input,target}/1.png", "test/{input,target}/2.png")
    images, pairs = found(tmp_path / "HIDE", "test", kind=kind)
    assert images.kind == "hide"
    assert pairs == [("test/input/2.png", "test/target/2.png", "2.png")]


def test_input_and_target_next_to_gt(tmp_path):
    """Sharp images are no input, whichever of the two ground truths is used."""
    save_all(tmp_path, "test/{input,target}/1.png", "GT/1.png")
    assert [pair[0] for pair in found(tmp_path)[1]] == ["test/input/1.png"]


def test_hide_with_missing_ground_truth(tmp_path):
    save_all(tmp_path, *HIDE)
    (tmp_path / "GT" / "4.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 images without a partner.*GT \(test-long-shot/4\.png\).*download"):
        find_images(tmp_path, "test")


@pytest.mark.parametrize("kind", [None, "rwbi", "unpaired"])
def test_unpaired_images_of_any_depth_type_and_size(tmp_path, kind):
    root = save_all(tmp_path / "RWBI", "1.png", "a/2.jpg", "a/b c/d/3.JPG", "test/4.bmp", "e/5.webp", "e/6.tif")
    if kind is None:
        (root / "test" / "4.bmp").rename(root / "4.bmp")
        (root / "test").rmdir()
    save(root / "e" / "5.webp", size=(30, 9))
    images, pairs = found(root, "train", kind=kind)
    assert images.kind == (kind or "rwbi")
    assert images.sharp is None
    assert {pair[0] for pair in pairs} == {pair[2] for pair in pairs}
    assert len(pairs) == 6
    assert "6 images without ground truth" in images.describe()
    assert find_images(root / "a", "train", kind).kind == images.kind


def test_sides_may_be_used_as_unpaired_when_asked_for(tmp_path):
    save_all(tmp_path, "blur/1.png", "sharp/1.png")
    images = find_images(tmp_path / "blur", "test", "unpaired")
    assert (len(images), images.paired, images.names) == (1, False, ("1.png",))


@pytest.mark.parametrize("kind", [None, "gopro", "paired"])
def test_files_without_partner(tmp_path, kind):
    save_all(tmp_path, "S/blur/{1,2}.png", "S/sharp/{1,3}.png", "T/blur/1.png", "T/sharp/2.jpg")
    expected = (
        r"2 in blur/ without a partner in sharp/ \(S/blur/2\.png, T/blur/1\.png\); "
        r"2 in sharp/ without a partner in blur/ \(S/sharp/3\.png, T/sharp/2\.jpg\)"
    )
    with pytest.raises(DatasetError, match=expected):
        find_images(tmp_path, "test", kind)


def test_many_files_without_partner_are_counted(tmp_path):
    save_all(tmp_path, "blur/{1,2,3,4,5,6,7}.png", "sharp/{1}.png")
    with pytest.raises(DatasetError, match=r"6 in blur/ .* \(blur/2\.png, .*blur/6\.png and 1 more\)"):
        find_images(tmp_path, "test")


@pytest.mark.parametrize("side", ["blur", "sharp", "input", "target", "blur_gamma", "GT"])
def test_one_sided_folder_is_not_unpaired(tmp_path, side):
    save_all(tmp_path, f"S/{side}/1.png")
    with pytest.raises(
        DatasetError, match=rf"{side}/, but these are not both sides of pairs here: expected a folder with blur/ and"
    ):
        find_images(tmp_path, "test")
    if side != "GT":
        with pytest.raises(DatasetError, match="holds no paired images in a layout"):
            find_images(tmp_path, "test", "paired")


def test_train_and_test_in_one_folder_are_refused(tmp_path):
    save_all(tmp_path, "GOPRO/{train,test}/{blur,sharp}/1.png")
    with pytest.raises(DatasetError, match=r"has test/ further down: give the folder that directly holds train/"):
        find_images(tmp_path, "train")


@pytest.mark.parametrize(("there", "wanted"), [("train", "test"), ("test", "train")])
def test_missing_split(tmp_path, there, wanted):
    save_all(tmp_path, f"{there}/{{blur,sharp}}/1.png")
    with pytest.raises(DatasetError, match=f"holds {there}/ but no {wanted}/"):
        find_images(tmp_path, wanted)


@pytest.mark.parametrize("kind", [None, "gopro", "hide", "rwbi", "paired", "unpaired"])
def test_empty_folder_says_what_was_looked_for_and_found(tmp_path, kind):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "sub").mkdir()
    with pytest.raises(DatasetError) as error:
        find_images(tmp_path, "test", kind)
    for text in (
        str(tmp_path),
        "Found: notes.txt, sub/",
        "no images",
        "SEQUENCE/{blur,sharp}",
        "{input,target}",
        "HIDE",
    ):
        assert text in str(error.value)


def test_empty_and_unknown_folder(tmp_path):
    with pytest.raises(DatasetError, match=r"Found: nothing; no images \(\.png, \.jpg"):
        find_images(tmp_path, "test")
    save_all(tmp_path, "left/1.png", "right/{1,2}.png")
    with pytest.raises(DatasetError, match=r"no gopro images.*3 images \(left/1\.png, right/1\.png and 1 more\)"):
        find_images(tmp_path, "test", "gopro")


def test_file_or_nothing_instead_of_a_folder(tmp_path):
    file = save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is a file; expected the folder"):
        find_images(file, "test")
    with pytest.raises(DatasetError, match="nowhere does not exist; expected the folder"):
        find_images(tmp_path / "nowhere", "test")


def test_parse_source():
    assert parse_source("data/GOPRO") == (None, Path("data/GOPRO"))
    assert parse_source("gopro=data/x=y z") == ("gopro", Path("data/x=y z"))
    assert parse_source("./a=b") == (None, Path("a=b"))
    with pytest.raises(DatasetError, match=r"unknown kind 'gopr', expected one of gopro, hide, rwbi, realblur_j, "):
        parse_source("gopr=data")


def test_pictures_that_cannot_be_read_here_are_counted(tmp_path, monkeypatch):
    save_all(tmp_path, "a.png")
    for name in ("b.HEIC", "x/c.heic", "d.nef", "e.gif", ".f.gif", "g.txt", "h.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for module in (header_checks, listing):
        monkeypatch.setattr(module, "SUFFIXES", (".png",))  # as without pillow-heif
    images = find_images(tmp_path, "test")
    skipped = "WARNING: skipped, as they cannot be read here: 2 .heic, 1 .nef, 1 .gif; "
    remedy = "for HEIC run `pip install pillow-heif==1.8.1`, convert the others to PNG, TIFF or JPEG"
    assert images.notes == (skipped + remedy,)
    assert remedy in images.describe()
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"holds no images .*skipped, .*2 \.heic.*pip install pillow-heif"):
        find_images(tmp_path, "test")
    save_all(tmp_path / "other", "a.png")
    (tmp_path / "other" / "g.txt").write_bytes(b"")
    assert find_images(tmp_path / "other", "test").notes == ()
