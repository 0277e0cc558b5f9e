"""Fixtures: the shared reference material (skipped where it is absent), back ends, small networks."""

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# Threads that wait should not spin: that costs half of a busy machine. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # two test processes, each with two threads, take twice as long on two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# What hypothesis keeps of its own, such as tables of letters: not in the tree.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "hypothesis"))
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # without a GPU its kernels run in Python; read when Triton is first imported

import numpy as np
import pytest
import torch
from PIL import Image

from models import DeblurringNet, ReblurringNet
from models.ops.back_ends import mmcv_problem
from tests.support.networks import SMALL_WIDTH
from tests.support.samples import ROOT, SAMPLE
from utils.runtime.precision import set_precision
from utils.training.network_files import save_network

SHARED = ROOT.parent / "shared"
GOLDEN_CASES = (("seed0_1x64x96", 0), ("seed1_2x48x32", 1))


def pytest_report_header() -> str:
    return f"shared reference material: {'found' if SHARED.is_dir() else 'absent, its tests are skipped'}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make large tests slow, too: `-m "not slow"` takes the place of pyproject.toml's `-m "not large"`."""
    for item in items:
        if item.get_closest_marker("large"):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def fp32_products():
    """Start every test in fp32: whether PyTorch takes TF32 is a setting of the process, which others change."""
    set_precision("fp32", torch.device("cpu"))


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared reference material is not next to the repository")
    return SHARED


@pytest.fixture(scope="session")
def released_weights(shared):
    """Return a function (network, seed) -> state dict under the released names."""
    sys.path.insert(0, str(shared / "golden"))
    from reference_weights import reference_state_dict

    shapes = json.loads((shared / "golden" / "released_state_dict.json").read_text())
    return lambda network, seed: reference_state_dict(shapes[network], seed)


@pytest.fixture(scope="session", params=GOLDEN_CASES, ids=[name for name, _ in GOLDEN_CASES])
def golden(request, shared):
    """Return (arrays by name, seed) of one case."""
    name, seed = request.param
    with np.load(shared / "golden" / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}, seed


@pytest.fixture(params=["torchvision", "mmcv"])
def deform_op(request) -> str:
    if request.param == "mmcv" and (problem := mmcv_problem("cpu")):
        pytest.skip(problem)
    return request.param


@pytest.fixture(params=["torchvision", "mmcv", "fused"])
def aspdc_op(request) -> str:
    if request.param == "mmcv" and (problem := mmcv_problem("cpu")):
        pytest.skip(problem)
    return request.param


@pytest.fixture
def run_here(capfd, monkeypatch) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs a script of the repository as Python does, but in this process."""

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
        command, status = [script, *map(str, arguments)], 0
        capfd.readouterr()
        with monkeypatch.context() as changed:
            changed.chdir(ROOT)
            changed.setattr(sys, "argv", command)
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as ended:
                status = ended.code or 0
        return subprocess.CompletedProcess(command, status, *capfd.readouterr())

    return run


@pytest.fixture
def small_networks(tmp_path) -> Path:
    """Return a folder with the three stages' files, holding small networks."""
    torch.manual_seed(0)
    save_network(tmp_path / "nets" / "ReBlurringNet.pth", ReblurringNet(SMALL_WIDTH // 2), "reblur", 1)
    deblurring = DeblurringNet(SMALL_WIDTH)
    save_network(tmp_path / "nets" / "DeblurringNet_NF.pth", deblurring, "deblur", 1)
    save_network(tmp_path / "nets" / "DeblurringNet_FT.pth", deblurring, "finetune", 1)
    return tmp_path / "nets"


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A part of a real picture, 72×48 px."""
    with Image.open(SAMPLE) as image:
        return image.convert("RGB").crop((0, 0, 72, 48))
