"""Many images: several networks in parallel, several processes."""

import csv
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

import D_testing
from models import DeblurringNet
from tests.support.processes import run_ranks, torchrun
from tests.support.samples import SAMPLE, SAMPLES, load, save
from utils.training.network_files import save_network

pytestmark = pytest.mark.slow


def command(folder, *more, weights=("a.pth",)):
    files = [str(folder / name) for name in weights]
    paths = ["--testset_dir", str(folder / "photos"), "--save_dir", str(folder / "out")]
    return [*paths, "--weights", *files, "--device", "cpu", *more]


@pytest.fixture
def photos(tmp_path):
    """Ten photographs of two sizes, one of them broken, and two networks."""
    picture = load(SAMPLE)
    for i in range(10):
        save(tmp_path / "photos" / f"{i}.png", picture[20 * i : 20 * i + (40 if i < 6 else 48), 60 : 60 + 56])
    (tmp_path / "photos" / "3.png").write_bytes((tmp_path / "photos" / "3.png").read_bytes()[:900])
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        save_network(tmp_path / f"{name}.pth", DeblurringNet(4), "deblur", 1)
    return tmp_path


def rows(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def start(*arguments):
    return torchrun("D_testing.py", *arguments)


def test_two_processes_give_what_one_gives(photos, run_here):
    alone = run_here("D_testing.py", *command(photos))
    assert alone.returncode == 2
    (photos / "out").rename(photos / "alone")
    statuses, out, err = run_ranks("D_testing.py", *command(photos))
    assert statuses == [2, 0]
    for text in (alone.stderr, err):
        assert "1 of the files were skipped" in text
        assert "3.png" in text
    kept = [f"{i}.png" for i in range(10) if i != 3]
    for folder in ("alone", "out"):
        assert [row["image"] for row in rows(photos / folder)] == kept
        summary = json.loads((photos / folder / "summary.json").read_text())["sets"]["photos"]
        assert (summary["images"], summary["complete"], len(summary["problems"])) == (9, False, 1)
        assert not list((photos / folder).glob("results-rank*"))
    for name in kept:
        one, two = (load(photos / folder / "photos" / name).astype(int) for folder in ("alone", "out"))
        assert np.abs(one - two).max() <= 1
    assert out.count("10 images without ground truth") == 1  # one process speaks


def test_what_killed_processes_had_done_is_not_done_again(photos, run_here):
    for i in range(40):
        save(photos / "photos" / f"more{i:02}.png", load(SAMPLE)[:200, :300])
    process = start(*command(photos, "--num_workers", "1"))
    table = photos / "out" / "results-rank1.csv"
    while not table.exists() and process.poll() is None:
        time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    for each in (*children, process.pid):
        os.kill(int(each), signal.SIGKILL)
    process.communicate()
    with table.open() as file:
        done = [row["saved_as"] for row in csv.DictReader(file)]
    assert 0 < len(done) < 25
    before = {name: (photos / "out" / name).stat().st_mtime_ns for name in done}
    assert run_here("D_testing.py", *command(photos, "--resume")).returncode == 2  # the broken one
    assert len(rows(photos / "out")) == 49
    assert not table.exists()
    assert {name: (photos / "out" / name).stat().st_mtime_ns for name in done} == before


def test_sigterm_to_all_processes_loses_no_row(photos):
    for i in range(60):
        save(photos / "photos" / f"more{i:02}.png", load(SAMPLE)[:300, :400])
    process = start(*command(photos))
    while not (photos / "out" / "photos" / "more01.png").exists() and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate()
    done = [row["image"] for row in rows(photos / "out")]
    assert f"photos: {len(done)} of 70 images are done; continue with --resume" in out
    assert err.count("stopping after the current image") == 1
    assert sorted(done) == sorted(path.name for path in (photos / "out" / "photos").iterdir())
    assert 2 < len(done) < 69


def test_several_networks_are_compared(photos, capsys):
    sources = ["--testset_dir", str(SAMPLES)]
    D_testing.main(D_testing.parse_args([*command(photos, weights=("a.pth", "b.pth"))[2:], *sources]))
    out = capsys.readouterr().out
    table = rows(photos / "out")
    assert [(row["set"], row["weights"]) for row in table] == [("a/GOPRO", "a"), ("b/GOPRO", "b")]
    summary = json.loads((photos / "out" / "summary.json").read_text())
    assert summary["networks"]["a"]["weights_sha256"] != summary["networks"]["b"]["weights_sha256"]
    lines = [line.split() for line in out.splitlines() if line.startswith("GoPro ")]
    assert [line[:2] for line in lines] == [["GoPro", row] for row in ("input", "a", "b")]
    for row, line in zip(table, lines[1:], strict=True):
        assert (photos / "out" / row["saved_as"]).exists()
        assert float(line[2]) == pytest.approx(float(row["psnr"]), abs=1e-4)
    pictures = [load(photos / "out" / row["saved_as"]) for row in table]
    assert (pictures[0] != pictures[1]).any()


def test_networks_of_one_name_are_distinguished_by_their_folders(photos, run_here):
    for name in ("x", "y"):
        (photos / name).mkdir()
        (photos / f"{'a' if name == 'x' else 'b'}.pth").rename(photos / name / "net.pth")
    (photos / "photos" / "3.png").unlink()
    assert run_here("D_testing.py", *command(photos, weights=("x/net.pth", "y/net.pth"))).returncode == 0
    assert {row["weights"] for row in rows(photos / "out")} == {"x_net", "y_net"}
    again = run_here("D_testing.py", *command(photos, "--overwrite", weights=("x/net.pth", "x/net.pth")))
    assert again.returncode == 2
    assert "two of the files have the same name" in again.stderr
