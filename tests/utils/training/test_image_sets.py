"""What a training run says of its image sets before it starts."""

import pytest

from tests.support.samples import save, save_all
from utils.training.image_sets import find_data, warn_of_small_frames


def lines_of(capsys, *roots: str, patch_size: int = 8, stages: tuple[str, ...] = ("finetune",)) -> list[str]:
    image_sets, _ = find_data(roots, (), ("blur", "sharp"), (), stages)
    warn_of_small_frames(image_sets, patch_size)
    return capsys.readouterr().out.splitlines()


def test_frames_smaller_than_a_patch_are_counted(tmp_path, capsys):
    for name, size in {"a": (64, 63), "b": (64, 64), "c": (30, 100)}.items():
        for side in ("blur", "sharp"):
            save(tmp_path / side / f"{name}.png", size=size)
    (line,) = (line for line in lines_of(capsys, f"3*{tmp_path}", patch_size=64) if "patch" in line)
    assert line.startswith(
        "WARNING: 2 of 3 frames are smaller than a patch of 64×64 px and are continued by their mirror"
    )
    assert f"{tmp_path}/blur/a.png, {tmp_path}/blur/c.png" in line
    assert not [line for line in lines_of(capsys, str(tmp_path), patch_size=30) if "patch" in line]


@pytest.mark.parametrize("with_pairs", [False, True])
def test_photographs_alone_are_warned_of(tmp_path, capsys, with_pairs):
    save_all(tmp_path, "photographs/1.png", "pairs/{blur,sharp}/1.png")
    roots = [f"{tmp_path}/photographs", *([f"{tmp_path}/pairs"] if with_pairs else [])]
    warned = any("leaves its input as it is" in line for line in lines_of(capsys, *roots))
    assert warned != with_pairs


def test_validation_on_what_is_trained_on_is_warned_of(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/blur/1.png", "a/sharp/1.png", "b/blur/2.png", "b/sharp/2.png"):
        save(tmp_path / "data" / name, size=(16, 16))
    (tmp_path / "link").symlink_to(tmp_path / "data" / "a")
    for stage, sets, warned in (
        ("deblur", ["data"], True),
        ("deblur", ["data/b"], False),
        ("deblur", ["data/b", "unpaired=data/a/blur"], False),  # which deblur leaves out
        ("finetune", ["data/b", "unpaired=data/a/blur"], True),
    ):
        find_data(sets, ["link"], ("blur", "sharp"), (), (stage,))
        assert ("WARNING: 1 of 1 images of --valset_dir are trained on, too" in capsys.readouterr().out) == warned


def test_train_blur_and_train_sharp_are_trained_on_as_pairs(tmp_path, capsys):
    save_all(tmp_path, "{train_blur,train_sharp,val_blur,val_sharp}/000/{1,2}.png")
    (first, *_) = lines_of(capsys, str(tmp_path))
    assert first == f"{tmp_path}: paired, 2 pairs ({{train_blur,train_sharp}}/000/*.png)"
