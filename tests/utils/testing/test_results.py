"""No run destroys the results of another, and a run continues only its own results."""

import csv
import json
import os
import shutil
import subprocess
import time

import pytest
import torch
from PIL import Image

import D_testing
from models import DeblurringNet
from tests.support.processes import Script, finished
from tests.support.samples import SAMPLE, SAMPLES, load, save
from utils.common import files
from utils.common.errors import UserError
from utils.testing import set_images
from utils.training.network_files import save_network

FILES = ("results.csv", "summary.json", "report.html")


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        save_network(folder / f"{name}.pth", DeblurringNet(4), "deblur", 1)
    return folder


def photos(folder, *names):
    for name in names:
        save(folder / name, load(SAMPLE)[:24, :40])
    return folder


def run(source, out, net, *more):
    where = ["--testset_dir", str(source), "--save_dir", str(out), "--weights", str(net), "--device", "cpu"]
    D_testing.main(D_testing.parse_args([*where, *more]))


def run_killed_in(monkeypatch, step, *arguments):
    """Run the script with these arguments of `run`, and end it where it would call a function."""

    def killed(*_):
        raise SystemExit

    with monkeypatch.context() as changed:
        changed.setattr(D_testing, step, killed)
        with pytest.raises(SystemExit):
            run(*arguments)


def score_saved(folder, out, *more):
    save(folder / "000203.png", load(SAMPLE))
    where = ["--testset_dir", str(SAMPLES), "--save_dir", str(out), "--device", "cpu"]
    D_testing.main(D_testing.parse_args([*where, "--from_results", str(folder), *more]))


def images(out):
    with (out / "results.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        return [row["image"] for row in csv.DictReader(file)]


def summary(out):
    return json.loads((out / "summary.json").read_text())


def lose_row(out, image):
    """Take an image's row out of the table."""
    path = out / "results.csv"
    lines = [line for line in path.read_text().splitlines() if f",{image}," not in line]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("left", FILES)
def test_results_of_another_run_are_not_replaced_unasked(tmp_path, nets, left):
    out = tmp_path / "out"
    run(photos(tmp_path / "photos", "a.png"), out, nets / "a.pth")
    for name in set(FILES) - {left}:
        (out / name).unlink()
    before = (out / left).read_bytes()
    other = photos(tmp_path / "other", "b.png")
    with pytest.raises(UserError, match=rf"{left} exists already; give --resume .* --overwrite .* another --save_dir"):
        run(other, out, nets / "missing.pth")  # refused before a network is loaded
    with pytest.raises(UserError, match=f"{left} exists already"):
        score_saved(tmp_path / "saved", out)
    assert (out / left).read_bytes() == before
    run(other, out, nets / "a.pth", "--overwrite")
    assert images(out) == ["b.png"]


def test_other_settings_are_refused_with_and_without_a_table(tmp_path, nets):
    source, out = photos(tmp_path / "photos", "a.png"), tmp_path / "out"
    run(source, out, nets / "a.pth")
    shutil.copy(nets / "b.pth", tmp_path / "a.pth")  # another network of the same name
    for keep_table in (True, False):
        if not keep_table:
            (out / "results.csv").unlink()
        with pytest.raises(UserError, match="other settings: networks a weights_sha256 was ") as error:
            run(source, out, tmp_path / "a.pth", "--resume")
        assert len(str(error.value)) < 300  # what differs alone
        with pytest.raises(UserError, match=r"other settings: tile was auto, is off; tile_overlap was 320, is 64\. "):
            run(source, out, nets / "a.pth", "--resume", "--tile", "off", "--tile_overlap", "64")
    with pytest.raises(UserError, match=r"from_results was not given, is .*networks was a, is not given"):
        score_saved(tmp_path / "saved", out, "--resume")
    shutil.copy(nets / "a.pth", tmp_path / "a.pth")  # the same one elsewhere
    shutil.rmtree(out / "photos")
    run(source, out, tmp_path / "a.pth", "--resume")
    assert images(out) == ["a.png"]


def test_damaged_results_are_no_traceback(tmp_path, nets):
    source, out = photos(tmp_path / "photos", "a.png"), tmp_path / "out"
    run(source, out, nets / "a.pth")
    for name, content in (("results.csv", "a,b\n1,2\n"), ("summary.json", "[1]"), ("summary.json", "{")):
        before = (out / name).read_bytes()
        (out / name).write_text(content)
        with pytest.raises(UserError, match=rf"{name}, or a list next to it, is damaged .*; give --overwrite"):
            run(source, out, nets / "a.pth", "--resume")
        (out / name).write_bytes(before)


def test_a_picture_that_lost_its_row_is_restored_again_and_one_of_others_is_kept(tmp_path, nets, monkeypatch):
    source, out = photos(tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "out"
    run_killed_in(monkeypatch, "write_page", source, out, nets / "a.pth", "--limit", "2")
    lose_row(out, "b.png")
    ours, foreign = out / "photos" / "b.png", save(out / "photos" / "c.png", size=(9, 9))
    begun, before = ours.stat().st_mtime_ns, foreign.read_bytes()
    with pytest.raises(UserError, match=r"c\.png exists already, and no results in .*out name it; move it away"):
        run(source, out, nets / "a.pth", "--resume")
    assert foreign.read_bytes() == before
    foreign.unlink()
    run(source, out, nets / "a.pth", "--resume")
    assert images(out) == ["a.png", "b.png", "c.png"]
    assert ours.stat().st_mtime_ns > begun
    assert not list(out.glob("unfinished*"))

    lose_row(out, "b.png")  # after a run that ended, someone removed the row
    with pytest.raises(UserError, match=r"b\.png exists already, and no results"):
        run(source, out, nets / "a.pth", "--resume")


def test_pictures_without_any_results_are_those_of_others(tmp_path, nets):
    source, out = photos(tmp_path / "photos", "a.png"), tmp_path / "out"
    foreign = save(out / "photos" / "a.png", size=(9, 9))
    for more in ((), ("--resume",)):
        with pytest.raises(UserError, match=r"a\.png exists already, and no results"):
            run(source, out, nets / "a.pth", *more)
    run(source, out, nets / "a.pth", "--overwrite")
    assert load(foreign).shape == (24, 40, 3)


def test_what_a_stopped_run_was_to_replace_is_replaced_when_it_is_resumed(tmp_path, nets, monkeypatch):
    source, out = photos(tmp_path / "photos", "a.png", "b.png"), tmp_path / "out"
    run(source, out, nets / "a.pth")
    run_killed_in(monkeypatch, "restore_set", source, out, nets / "b.pth", "--overwrite")
    before = (out / "photos" / "a.png").read_bytes()
    run(source, out, nets / "b.pth", "--resume")
    assert images(out) == ["a.png", "b.png"]
    assert (out / "photos" / "a.png").read_bytes() != before


def test_a_picture_whose_line_was_cut_is_restored_when_the_run_is_resumed(tmp_path, nets, monkeypatch):
    source, out = photos(tmp_path / "photos", "a.png", "b.png"), tmp_path / "out"
    run_killed_in(monkeypatch, "write_page", source, out, nets / "a.pth", "--limit", "1")
    (out / "unfinished.jsonl").write_text('"photos/a.png"\n"photos/b.\n')
    kept = (out / "photos" / "a.png").stat().st_mtime_ns
    run(source, out, nets / "a.pth", "--resume")
    assert images(out) == ["a.png", "b.png"]
    assert (out / "photos" / "a.png").stat().st_mtime_ns == kept


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGTERM")
@pytest.mark.parametrize(("number", "status"), [(15, 143), (2, 130), (1, 129)], ids=["TERM", "INT", "HUP"])
def test_a_signal_ends_a_run_with_every_picture_in_the_table(tmp_path, nets, number, status):
    source, out = tmp_path / "photos", tmp_path / "out"
    for i in range(60):
        save(source / f"{i:02}.png", load(SAMPLE)[:300, :400])
    where = ["--testset_dir", str(source), "--save_dir", str(out), "--weights", str(nets / "a.pth"), "--device", "cpu"]
    process = Script("D_testing.py", *where)
    while not (out / "photos" / "02.png").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, number)
    ended, stdout, stderr = finished(process)
    assert ended == status
    assert "Traceback" not in stderr
    assert "stopping after the current image" in stderr
    done = images(out)
    assert f"photos: {len(done)} of 60 images are done; continue with --resume" in stdout
    assert done == sorted(path.name for path in (out / "photos").iterdir())  # no temporary file either
    assert 3 <= len(done) < 60
    assert summary(out)["sets"]["photos"]["complete"] is False


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="processes are asked for by their numbers")
def test_what_killed_processes_left_is_deleted_by_the_next_run(tmp_path, nets):
    source, out = photos(tmp_path / "photos", "a.png"), tmp_path / "out"
    child = subprocess.Popen(["true"])
    child.wait()
    names = [str(files._temporary(out / "photos" / f"{name}.png").name) for name in ("gone", "lives", "away", "old")]
    pids = [child.pid, os.getppid(), child.pid, child.pid]
    names = [name.replace(f".{os.getpid()}-", f".{pid}-") for name, pid in zip(names, pids, strict=True)]
    names[2:] = [name.replace(files._HOST, "0" * 8) for name in names[2:]]  # another machine's
    left = [save(out / "photos" / name) for name in (*names, ".hidden.tmp.png")]
    os.utime(left[3], (0, 0))
    run(source, out, nets / "a.pth")
    assert [path.exists() for path in left] == [False, True, True, False, True]


@pytest.mark.slow
def test_names_that_become_too_long_are_skipped_and_listed(tmp_path, nets):
    longest = "x" * 250
    source, out = photos(tmp_path / "photos", "a.png", f"{longest}.png"), tmp_path / "out"
    run(source, out, nets / "a.pth")
    assert images(out) == ["a.png", f"{longest}.png"]
    photos(source, f"{longest}.bmp")  # x.bmp.png and x.png.png are longer than a name may be
    with pytest.raises(UserError, match=r"2 of the files .*:\n.*x\.bmp has to be shorter\n.*x\.png has to be"):
        run(source, tmp_path / "other", nets / "a.pth", "--figures", "2")
    assert images(tmp_path / "other") == ["a.png"]


def test_pages_after_the_first_are_noted(tmp_path, nets, capsys):
    source, out = photos(tmp_path / "photos", "a.png"), tmp_path / "out"
    with Image.open(source / "a.png") as page:
        page.save(source / "b.tif", save_all=True, append_images=[page, page])
    run(source, out, nets / "a.pth")
    note = f"{source / 'b.tif'} holds 3 pages or frames: the first one was restored"
    assert note in capsys.readouterr().out
    assert summary(out)["sets"]["photos"]["notes"] == [note]
    run(source, out, nets / "a.pth", "--resume")
    assert summary(out)["sets"]["photos"]["notes"] == [note]


@pytest.mark.parametrize("where", ["decode", "score_both", "write_picture"])
def test_too_little_memory_for_one_picture_skips_it(tmp_path, nets, monkeypatch, where):
    source, out = photos(tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "out"
    whole, calls = getattr(set_images, where), []

    def short(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError
        return whole(*arguments)

    monkeypatch.setattr(set_images, where, short)
    with pytest.raises(UserError, match=r"1 of the files .*:\n.*not enough memory to decode, .*photos/.\.png"):
        run(source, out, nets / "a.pth", "--num_workers", "1")
    assert len(images(out)) == 2


def test_the_summary_is_complete_when_all_that_was_asked_for_is_there(tmp_path, nets):
    source, out = photos(tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "out"
    counts = []
    for more in (("--limit", "2"), ("--resume",), ("--resume", "--limit", "1")):
        run(source, out, nets / "a.pth", *more)
        counts.append([summary(out)["sets"]["photos"][name] for name in ("images", "complete")])
    assert counts == [[2, True], [3, True], [3, True]]


def test_a_set_is_complete_only_once_all_of_it_is_there_that_this_run_asks_for(tmp_path, nets, monkeypatch):
    source, out = photos(tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "out"
    run(source, out, nets / "a.pth", "--limit", "2")
    assert summary(out)["sets"]["photos"]["complete"] is True
    run_killed_in(monkeypatch, "restore_set", source, out, nets / "a.pth", "--resume")
    assert summary(out)["sets"]["photos"]["complete"] is False
    run(source, out, nets / "a.pth", "--resume")
    assert summary(out)["sets"]["photos"]["complete"] is True


def test_results_that_are_not_whole_are_made_again(tmp_path, nets):
    source, out = photos(tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "out"
    run(source, out, nets / "a.pth")
    made = {path.name: path.read_bytes() for path in (out / "photos").iterdir()}
    (out / "photos" / "a.png").write_bytes(b"")
    (out / "photos" / "b.png").write_bytes(made["b.png"][:-20])
    before = (out / "photos" / "c.png").stat().st_mtime_ns
    run(source, out, nets / "a.pth", "--resume")
    assert {path.name: path.read_bytes() for path in (out / "photos").iterdir()} == made
    assert (out / "photos" / "c.png").stat().st_mtime_ns == before
