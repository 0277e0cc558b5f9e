"""Runs over photographs: single files, broken ones among many, nothing overwritten, a killed run that is resumed."""

import csv
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time

import imagecodecs
import numpy as np
import pytest
import tifffile

import D_testing
from tests.support.networks import identity_file
from tests.support.pictures import VALUES
from tests.support.processes import Script, run_script
from tests.support.samples import ROOT
from utils.common.errors import UserError
from utils.common.files import LOCK, lock_output_dir
from utils.images.codecs import read_image


def command(folder, *sources, more=()):
    weights = str(folder / "nets" / "DeblurringNet_FT.pth")
    named = ["--testset_dir", *map(str, sources), "--weights", weights]
    return [*named, "--save_dir", str(folder / "out"), "--device", "cpu", *more]


def run(folder, *sources, more=()):
    D_testing.main(D_testing.parse_args(command(folder, *sources, more=more)))


def rows(folder):
    with (folder / "out" / "results.csv").open() as file:
        return [row["image"] for row in csv.DictReader(file)]


def test_single_files(tmp_path, small_networks, photo):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        photo.save(tmp_path / folder / "shaky.jpg")
    run(tmp_path, tmp_path / "x" / "shaky.jpg")
    assert read_image(tmp_path / "out" / "shaky.png").shape == (48, 72, 3)
    run(tmp_path, tmp_path / "x" / "shaky.jpg", tmp_path / "y" / "shaky.jpg", more=("--overwrite",))
    assert len(rows(tmp_path)) == 2
    assert len(list((tmp_path / "out").rglob("shaky.png"))) == 3


def test_what_a_picture_loses_is_a_line(tmp_path, small_networks, photo, capsys):
    photo.save(tmp_path / "a.jpg", icc_profile=b"no profile at all")
    run(tmp_path, tmp_path / "a.jpg")
    assert f"{tmp_path / 'a.jpg'}: its colour profile is damaged and was dropped" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_network_that_returns_its_input_leaves_every_pixel(tmp_path, suffix, dtype):
    """Grey, grey with alpha, RGB, RGBA: what is in the file is what tifffile and libpng find in the result."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for channels in range(1, 5):
        stored = VALUES[..., :channels].astype(dtype)
        if suffix == "png":
            (folder / f"{channels}.png").write_bytes(imagecodecs.png_encode(stored))
        else:
            kind = {"photometric": "rgb" if channels > 2 else "minisblack", "compression": "lzw"}
            kind |= {} if channels % 2 else {"extrasamples": ["unassalpha"]}
            tifffile.imwrite(folder / f"{channels}.tif", stored.squeeze(), **kind)
    arguments = ["--testset_dir", str(folder), "--weights", str(identity_file(tmp_path / "identity.pth"))]
    D_testing.main(D_testing.parse_args([*arguments, "--save_dir", str(tmp_path / "out"), "--device", "cpu"]))
    for channels in range(1, 5):
        result = imagecodecs.png_decode((tmp_path / "out" / "photos" / f"{channels}.png").read_bytes())
        np.testing.assert_array_equal(np.atleast_3d(result), VALUES[..., :channels].astype(dtype))


def test_one_broken_file_among_many_is_listed_at_the_end(tmp_path, small_networks, photo, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a", "b", "c", "d"):
        photo.save(photos / f"{name}.png")
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:300])
    (photos / "c.png").write_bytes(b"no image")
    photo.crop((0, 0, 7, 40)).save(photos / "e.png")
    skipped = r"3 of the files were skipped:\n .*b\.png .*\n .*c\.png cannot be read.*\n .*e\.png is 7×40 px; .* 8×8"
    with pytest.raises(UserError, match=skipped):
        run(tmp_path, photos)
    assert rows(tmp_path) == ["a.png", "d.png"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["sets"]["photos"]
    assert (summary["complete"], len(summary["problems"])) == (False, 3)
    photo.save(photos / "b.png")
    (photos / "c.png").unlink()
    (photos / "e.png").unlink()
    kept = (tmp_path / "out" / "photos" / "a.png").stat().st_mtime_ns
    run(tmp_path, photos, more=("--resume",))
    assert sorted(rows(tmp_path)) == ["a.png", "b.png", "d.png"]
    assert (tmp_path / "out" / "photos" / "a.png").stat().st_mtime_ns == kept


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="folders are closed otherwise there")
def test_what_cannot_be_opened_is_listed(tmp_path, small_networks, photo):
    as_user = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if as_user and not shutil.which("setpriv"):
        pytest.skip("root can open everything, and there is no setpriv")
    locked, pairs = tmp_path / "photos" / "lost+found", tmp_path / "pairs"
    for folder in (locked, locked.parent, pairs / "blur", pairs / "sharp", pairs / "locked"):
        folder.mkdir(parents=True, exist_ok=True)
        photo.save(folder / "a.png")
    script = f"""
import pathlib, sys, D_testing
from utils.runtime.program_end import user_errors_end_the_program
from utils.testing.inputs import find_inputs
pairs = pathlib.Path({str(pairs)!r})
for closed in (pairs / "locked", pairs / "sharp"):
    closed.chmod(0)
    try:
        find_inputs([str(pairs)], ("blur", "sharp"), pathlib.Path("out"), None)
    except Exception as error:
        print(type(error).__name__, error)
    closed.chmod(0o700)
link = pairs / "blur" / "link.2"
link.symlink_to({str(locked)!r} + "/folder")
try:
    find_inputs([str(pairs)], ("blur", "sharp"), pathlib.Path("out"), None)
except Exception as error:
    print(type(error).__name__, error)
with user_errors_end_the_program():
    try:
        find_inputs([{str(locked / "a.png")!r}], ("blur", "sharp"), pathlib.Path("out"), None)
    except PermissionError as error:
        print("PermissionError", error.filename)
    D_testing.main(D_testing.parse_args())
"""
    try:
        locked.chmod(0)
        program = [*as_user, sys.executable, "-c", script, *command(tmp_path, locked.parent)]
        result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    finally:
        locked.chmod(0o700)
    denied = "cannot be opened: Permission denied"
    assert result.stdout.splitlines()[:4] == [
        f"DatasetError {pairs / 'locked'} {denied}",
        f"DatasetError {pairs / 'sharp'} {denied}",
        f"DatasetError {pairs / 'blur' / 'link.2'} {denied}",
        f"PermissionError {locked / 'a.png'}",
    ]
    skipped = f"error: 1 of the files were skipped:\n  {locked} {denied}"
    assert (result.returncode, result.stderr.strip().endswith(skipped)) == (2, True), result.stderr
    assert rows(tmp_path) == ["a.png"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    of_set = summary["sets"]["photos"]
    assert summary["problems"] == of_set["problems"] == [f"{locked} {denied}"]
    assert of_set["complete"] is False


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="closes it with a shell")
def test_a_closed_stderr(tmp_path, small_networks, photo):
    photo.save(tmp_path / "a.png")
    program = [sys.executable, "D_testing.py", *command(tmp_path, tmp_path / "a.png")]
    assert subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *program], cwd=ROOT).returncode == 0
    assert rows(tmp_path) == ["a.png"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no such locks")
def test_two_runs_at_once_do_not_share_a_folder(tmp_path, small_networks, photo):
    photo.save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    message = f"error: another run (process {os.getpid()} on {platform.node()}) is writing into --save_dir"
    with lock_output_dir(tmp_path / "out", "--save_dir"):
        for more in ((), ("--resume",), ("--overwrite",)):
            result = run_script("D_testing.py", *command(tmp_path, tmp_path / "a.png", more=more))
            assert result.returncode == 2
            assert message in result.stderr
            assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
    run(tmp_path, tmp_path / "a.png")
    assert rows(tmp_path) == ["a.png"]


def test_a_run_that_is_refused_leaves_no_folder(tmp_path, small_networks):
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path, tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path, tmp_path / "nowhere")
    assert (tmp_path / "out").exists()


def test_nothing_is_written_over_unless_asked_to(tmp_path, small_networks, photo):
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "a.png")
    run(tmp_path, tmp_path / "photos")
    with pytest.raises(UserError, match=r"out/results\.csv exists already; give --resume .* --overwrite"):
        run(tmp_path, tmp_path / "photos")
    run(tmp_path, tmp_path / "photos", more=("--overwrite",))
    with pytest.raises(UserError, match=r"other settings: self_ensemble was False, is True"):
        run(tmp_path, tmp_path / "photos", more=("--resume", "--self_ensemble"))
    (tmp_path / "other" / "photos").mkdir(parents=True)
    photo.save(tmp_path / "other" / "photos" / "a.png")
    with pytest.raises(UserError, match=r"other settings: testset_dir was .*photos'\], is .*other/photos'\]"):
        run(tmp_path, tmp_path / "other" / "photos", more=("--resume",))
    before = (tmp_path / "photos" / "a.png").read_bytes()
    with pytest.raises(UserError, match="is one of the files to restore"):
        D_testing.main(
            D_testing.parse_args(
                ["--testset_dir", str(tmp_path / "photos" / "a.png"), "--save_dir", str(tmp_path / "photos"),
                 "--weights", str(small_networks / "DeblurringNet_FT.pth"), "--device", "cpu", "--overwrite"]
            )
        )  # fmt: skip
    assert (tmp_path / "photos" / "a.png").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_killed_run_is_resumed_to_the_same_results(tmp_path, small_networks, photo):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(12):
        photo.resize((400, 300)).save(photos / f"{i:02}.png")
    process = Script("D_testing.py", *command(tmp_path, photos))
    while not (tmp_path / "out" / "photos" / "02.png").exists() and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    left = set((tmp_path / "out" / "photos").glob("*.png"))
    assert len(left) < 12
    run(tmp_path, photos, more=("--resume",))
    assert sorted(rows(tmp_path)) == [f"{i:02}.png" for i in range(12)]
    for path in (tmp_path / "out" / "photos").glob("*.png"):
        assert read_image(path).shape == (300, 400, 3)
