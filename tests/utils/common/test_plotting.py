"""Figures without a backend: whatever MPLBACKEND says, every command starts, and both scripts draw theirs."""

import os
import subprocess
import sys

import pytest

from tests.support.samples import ROOT, SAMPLE, load, save
from tests.support.training import STAGE, arguments

COMMANDS = """
import importlib, sys
from pathlib import Path
import D_testing, DR_training
for path in Path("tools").glob("*.py"):
    importlib.import_module(f"tools.{path.stem}")
"""


def run(code: str, backend: str, *arguments: str) -> str:
    command, variables = [sys.executable, "-c", code, *arguments], {**os.environ, "MPLBACKEND": backend}
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_in_programs_that_jupyter_starts_all_figures_are_drawn(tmp_path, small_networks):
    code = f"""{COMMANDS}
split = sys.argv.index("--testset_dir")
DR_training.main(DR_training.parse_args(sys.argv[1:split]))
D_testing.main(D_testing.parse_args(sys.argv[split:]))
"""
    for side in ("blur", "sharp"):
        save(tmp_path / "pairs" / side / "a.png", load(SAMPLE)[:64, :64])
    trained = arguments(tmp_path / "trained", *STAGE, "--max_steps", "1")
    tested = ["--testset_dir", str(tmp_path / "pairs"), "--weights", str(small_networks / "DeblurringNet_NF.pth"),
              "--save_dir", str(tmp_path / "out"), "--device", "cpu", "--figures"]  # fmt: skip
    run(code, "module://matplotlib_inline.backend_inline", *trained, *tested)
    assert list((tmp_path / "trained" / "log").glob("*/curves.png"))
    assert list((tmp_path / "out" / "figures").rglob("*.pdf"))
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "kept"), [("nonsense", False), ("svg", True)])
def test_a_backend_is_kept_for_others_if_it_exists(tmp_path, backend, kept):
    code = """
import os, sys
import utils.common.plotting, matplotlib
utils.common.plotting.Figure().savefig(sys.argv[1])
print(matplotlib.rcParams["backend"], os.environ["MPLBACKEND"])
"""
    shown = run(code, backend, str(tmp_path / "figure.png")).split()
    assert shown[1] == backend
    assert (shown[0] == backend) == kept
