"""The networks of final_model/: those that its README lists, and as good as documented in docs/results.md."""

import re

import numpy as np
import pytest
import torch

import D_testing
from models.checkpoint import BUNDLED, load_deblurring_net, load_file, load_reblurring_net
from tests.support.samples import ROOT, SAMPLES, load
from utils.common.files import file_digest
from utils.images.conversion import to_tensor
from utils.metrics.numpy_metrics import psnr

FOLDER = ROOT / "final_model"
PAIR = [SAMPLES / "test" / "GOPR0881_11_01" / side / "000203.png" for side in ("blur", "sharp")]
LISTED = re.findall(r"^\| `(\w+\.pth)` \|.*\| ([\d,]+) \| `(\w{64})` \|$", (FOLDER / "README.md").read_text(), re.M)


def picture(network: torch.nn.Module, *inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        output = network(*(to_tensor(image)[None] for image in inputs))[0]
    return ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def test_the_files_are_those_of_the_readme_in_fp16():
    files = sorted(FOLDER.glob("*.pth"))
    assert [path.name for path in files] == sorted(name for name, _, _ in LISTED)
    assert BUNDLED in files
    assert sum(path.stat().st_size for path in files) <= 62 * 2**20
    for name, size, digest in LISTED:
        path = FOLDER / name
        assert (f"{path.stat().st_size:,}", file_digest(path)) == (size, digest)
        (state,) = (value for key, value in load_file(path).items() if key.endswith("state_dict"))
        assert {tensor.dtype for tensor in state.values()} == {torch.float16}


@pytest.mark.slow
def test_a_blurry_picture_becomes_sharper():
    blurry, sharp = map(load, PAIR)
    restored = picture(load_deblurring_net(BUNDLED), blurry)
    assert psnr(restored, sharp) - psnr(blurry, sharp) > 8.4
    before, after = (f"{psnr(image, sharp):.2f}" for image in (blurry, restored))
    assert f"{before} -> {after} dB" in (ROOT / "README.md").read_text()
    assert f"{before} dB for the input and {after} dB for" in (ROOT / "docs" / "testing.md").read_text()
    assert psnr(restored, load(ROOT / "samples" / "restored" / "GOPR0881_11_01_000203.png")) > 60


def test_a_sharp_picture_stays():
    sharp = load(PAIR[1])
    assert psnr(picture(load_deblurring_net(BUNDLED), sharp), sharp) > 45


@pytest.mark.parametrize(("name", "least"), [("000047", 50.4), ("000099", 44.8)])
def test_sharp_pictures_change_no_more_than_documented(name, least):
    sharp = load(SAMPLES / "train" / "GOPR0372_07_00" / "sharp" / f"{name}.png")
    assert psnr(picture(load_deblurring_net(BUNDLED), sharp), sharp) > least


def test_the_reblurring_network_finds_the_blur_again():
    blurry, sharp = map(load, PAIR)
    reblurred = picture(load_reblurring_net(FOLDER / "ReBlurringNet.pth"), blurry, sharp)
    assert psnr(reblurred, blurry) > 49


def test_the_test_script_takes_the_bundled_network_wherever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert D_testing.parse_args(["--testset_dir", "photos"]).weights == [BUNDLED]
