"""tools.compare: a commit is equal to itself, and any change of an output is reported, with its size."""

import csv
import io
import json
import re
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch

import tools.compare
from tests.support.samples import ROOT
from tools.compare import compare, differences

EXPECTED = {"reblur": 0, "tiled": 0, "refused": 2}
WEIGHTS, STATE = "nets/ReBlurringNet.pth", "nets/states/reblur/step-000000002.pth"
PICTURE, TABLE, SUMMARY = "tiled/GOPRO/GOPR0881_11_01/000203.png", "tiled/results.csv", "tiled/summary.json"


def run_compare(tree: Path, *arguments: str) -> tuple[int, str]:
    """Compare a tree with a commit of its own; return the status, and what is printed."""
    printed = io.StringIO()
    with patch.object(tools.compare, "ROOT", tree), redirect_stdout(printed):
        return tools.compare.main(tools.compare.parse_args(arguments)), printed.getvalue()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A clone of this repository: whatever was changed here, its tree is its commit."""
    tree = tmp_path_factory.mktemp("clone") / "tree"
    if subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, tree], capture_output=True).returncode:
        pytest.skip("this is no git repository")
    return tree


@pytest.fixture(scope="module")
def compared(tree) -> tuple[int, str, Path]:
    """A commit compared with itself: the status, what is printed, and the folder of both outputs."""
    kept = tree.parent / "kept"
    return *run_compare(tree, "HEAD", "--steps", "2", "--only", *EXPECTED, "--keep", str(kept)), kept


@pytest.fixture
def altered(compared, tmp_path) -> Path:
    """A copy of what this tree left, in which a test alters something."""
    return shutil.copytree(compared[-1] / "new", tmp_path / "new")


@pytest.mark.slow
def test_a_commit_is_equal_to_itself(compared):
    status, printed, _ = compared
    assert status == 0, printed
    *lines, last = printed.splitlines()
    assert last == f"all {len(lines)} are equal"
    states, names = zip(*(line.split(maxsplit=1) for line in lines), strict=True)
    assert set(states) == {"equal"}
    assert {f"status of {name}" for name in EXPECTED} < set(names)
    assert {WEIGHTS, STATE, PICTURE, TABLE, SUMMARY, "log/reblur/log.csv", "log/reblur/events"} < set(names)


@pytest.mark.slow
def test_an_uncommitted_change_is_reported_with_status_1(tree):
    script = tree / "D_testing.py"
    text = script.read_text()
    script.write_text(f"raise SystemExit(3)\n{text}")
    status, printed = run_compare(tree, "HEAD", "--only", "refused")
    script.write_text(text)
    assert status == 1
    assert re.search(r"^DIFFERS status of refused\n    2 -> 3, not 2: ", printed)
    assert printed.endswith("2 of 2 differ\n")  # the message differs, too


def test_what_a_command_needs_is_run_before_it():
    available = tools.compare.commands(1, "cpu", Path())
    names = [command.name for command in tools.compare.with_needed(["restored", "tiled"], available)]
    assert names == ["reblur", "deblur", "finetune", "restored", "tiled"]


def test_a_commit_that_is_not_there_is_one_line_and_status_2(run_here):
    result = run_here("tools/compare.py", "nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: nowhere cannot be taken from {ROOT}: fatal: ")
    assert len(result.stderr.splitlines()) == 1


def change_tensor(file: str, *keys: object, by: float):
    def alter(folder: Path) -> None:
        content = torch.load(folder / file, weights_only=True)
        part = content
        for key in keys:
            part = part[key]
        part[(0,) * part.dim()] += by
        torch.save(content, folder / file)

    return alter


def change_pixel(folder: Path) -> None:
    image = cv2.imread(str(folder / PICTURE))
    image[3, 4, 1] ^= 1
    cv2.imwrite(str(folder / PICTURE), image)


def change_cell(file: str, column: str, value: str):
    def alter(folder: Path) -> None:
        (path,) = folder.glob(file)
        with path.open(newline="") as table:
            rows = list(csv.DictReader(table))
        with path.open("w", newline="") as table:
            writer = csv.DictWriter(table, rows[0])
            writer.writeheader()
            writer.writerows([rows[0] | {column: value}, *rows[1:]])

    return alter


def change_json(file: str, **values: object):
    def alter(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return alter


FIRST = "blurring_state_dict"
ALTERATIONS = {
    "a weight": (
        WEIGHTS,
        lambda folder: change_tensor(WEIGHTS, FIRST, first_weight(folder), by=0.5)(folder),
        rf"{FIRST} \S+: 1 of [\d,]+ values by up to 0\.5",
    ),
    "a moment": (
        STATE,
        change_tensor(STATE, "optimizer", 0, "exp_avg", by=1.0),
        r"optimizer 0 exp_avg: 1 of [\d,]+ values by up to 1",
    ),
    "a pixel": (PICTURE, change_pixel, r"values: 1 of [\d,]+ values by up to 1\b"),
    "a score": (TABLE, change_cell(TABLE, "psnr", "1.5"), r"1 psnr: '[\d.]+' -> '1\.5'"),
    "a loss": ("log/reblur/log.csv", change_cell("log/*/log.csv", "loss", "2"), r"1 loss: '[\d.]+' -> '2'"),
    "a setting": (SUMMARY, change_json(SUMMARY, tile=256), r"tile: 128 -> 256 \(\+128\)"),
    "a new setting": (SUMMARY, change_json(SUMMARY, more=1), "more: only in the new one"),
    "a status": ("status of refused", change_json("statuses.json", refused=1), "2 -> 1, not 2: error"),
    "a lost picture": (PICTURE, lambda folder: (folder / PICTURE).unlink(), "only in the old one"),
    "a new file": ("nets/more.pth", lambda folder: (folder / "nets/more.pth").touch(), "only in the new one"),
    "a damaged file": (STATE, lambda folder: (folder / STATE).write_bytes(b"no"), "cannot be read: "),
}


def first_weight(folder: Path) -> str:
    return next(iter(torch.load(folder / WEIGHTS, weights_only=True)[FIRST]))


@pytest.mark.slow
@pytest.mark.parametrize("what", ALTERATIONS)
def test_only_what_was_altered_is_reported(compared, altered, capsys, what):
    name, alter, expected = ALTERATIONS[what]
    alter(altered)
    assert compare(compared[-1] / "old", altered, EXPECTED) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    (i,) = (i for i, line in enumerate(lines) if line.startswith("DIFFERS"))
    assert lines[i] == f"DIFFERS {name}"
    assert re.search(rf"^    {expected}", "\n".join(lines[i + 1 :]), re.MULTILINE)
    assert last.startswith("1 of ")


@pytest.mark.slow
def test_times_versions_and_digests_are_not_compared(compared, altered):
    change_cell(TABLE, "seconds", "99")(altered)
    change_cell("log/*/log.csv", "seconds", "99")(altered)
    change_json(SUMMARY, version="9.9")(altered)
    (log,) = (altered / "log").iterdir()
    log.rename(log.with_name("reblur_20300101-000000"))
    (altered / f"{STATE}.sha256").write_text("0")
    (altered / "tiled" / "report.html").write_text("")
    assert compare(compared[-1] / "old", altered, EXPECTED) == 0


@pytest.mark.slow
def test_a_command_that_failed_in_both_trees_is_no_equality(compared, capsys):
    new = compared[-1] / "new"
    assert compare(new, new, EXPECTED | {"tiled": 3}) == 1
    assert "DIFFERS status of tiled\n    0 -> 0, not 3: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]), ["x: 1 of 2 values by up to 0"]),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), []),
        (torch.zeros(2, dtype=torch.bfloat16), torch.full((2,), 2.0, dtype=torch.bfloat16), ["x: 2 of 2 .* to 2"]),
        (torch.zeros(2), torch.zeros(2).double(), [r"x: torch.float32 \(2,\) -> torch.float64 \(2,\)"]),
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), [r"x: torch.uint8 \(2, 3\) -> torch.uint8 \(3, 2\)"]),
        (torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2).to(memory_format=torch.channels_last), []),
        (torch.tensor(1), torch.tensor(3), ["x: 1 of 1 values by up to 2"]),
        (torch.zeros(0), torch.zeros(0), []),
        ([1, 2], [1], ["x: 2 entries -> 1"]),
        ([1.0], [1], [r"x 1: 1.0 -> 1"]),
        ({"a": None}, {"b": None}, ["x a: only in the old one", "x b: only in the new one"]),
        (float("nan"), float("nan"), []),
        (-float("inf"), 2.5, [r"x: -inf -> 2.5 \(\+inf\)"]),
    ],
)
def test_differences_are_of_bits(old, new, expected):
    found = list(differences(old, new, "x"))
    assert len(found) == len(expected)
    assert all(re.match(pattern, line) for pattern, line in zip(expected, found, strict=True))
