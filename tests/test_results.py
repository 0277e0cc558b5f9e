"""What a run leaves is lost to no other run, and a run goes on with its own results alone."""

import csv
import json
import shutil

import pytest
import torch

import D_testing
from models import DeblurringNet
from tests.helpers import SAMPLE, SAMPLES, load, save
from utils.checkpoint import save_network
from utils.errors import UserError
from utils.result_files import find_earlier

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
        run(other, out, nets / "missing.pth")  # told before a network is looked for
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
        with pytest.raises(UserError, match="other settings: networks a weights_sha256 was ") as told:
            run(source, out, tmp_path / "a.pth", "--resume")
        assert len(str(told.value)) < 300  # what differs alone
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
        with pytest.raises(UserError, match="holds damaged results .*; give --overwrite"):
            run(source, out, nets / "a.pth", "--resume")
        (out / name).write_bytes(before)


def test_a_picture_that_lost_its_row_is_restored_again_and_one_of_others_is_kept(tmp_path, nets, monkeypatch):
    source, out = photos(tmp_path / "photos", "a.png", "b.png", "c.png"), tmp_path / "out"

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr(D_testing, "write_page", killed)
    with pytest.raises(SystemExit):
        run(source, out, nets / "a.pth", "--limit", "2")
    monkeypatch.undo()
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

    lose_row(out, "b.png")  # after a run that ended, whoever took the row out
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


def test_what_a_stopped_run_was_to_replace_is_replaced_when_it_goes_on(tmp_path, nets, monkeypatch):
    source, out = photos(tmp_path / "photos", "a.png", "b.png"), tmp_path / "out"
    run(source, out, nets / "a.pth")

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr(D_testing, "run_set", killed)
    with pytest.raises(SystemExit):
        run(source, out, nets / "b.pth", "--overwrite")
    monkeypatch.undo()
    before = (out / "photos" / "a.png").read_bytes()
    run(source, out, nets / "b.pth", "--resume")
    assert images(out) == ["a.png", "b.png"]
    assert (out / "photos" / "a.png").read_bytes() != before


def test_a_list_cut_in_its_last_line_is_read_up_to_there(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "unfinished-rank1.jsonl").write_text('"photos/a.png"\n"photos/b')
    earlier = find_earlier(tmp_path, resume=True, overwrite=False)
    assert earlier.made(tmp_path / "photos" / "a.png")
    assert not earlier.made(tmp_path / "photos" / "b.png")
