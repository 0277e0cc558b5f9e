"""The choice of metrics, and LPIPS and NIQE against pyiqa's own reading of the saved pictures.

No published weights are to be had in a test: random ones serve, since what is tested is what pyiqa is given.
"""

import argparse
import importlib.util
import sys
import urllib.request

import numpy as np
import pytest
import torch

from tests.support.samples import SAMPLE, load, save
from utils.common.errors import UserError
from utils.metrics.numpy_metrics import METRICS, score
from utils.metrics.perceptual import MIN_SIDES, Perceptual
from utils.metrics.scorer import DEFAULT, KNOWN, Scorer, metrics_of, parse_metrics
from utils.metrics.torch_metrics import score_on

CPU = torch.device("cpu")
needs_pyiqa = pytest.mark.skipif(importlib.util.find_spec("pyiqa") is None, reason="pyiqa is not installed")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def pair():
    return [load(path)[:200, :300] for path in (SAMPLE, SAMPLE.parents[1] / "sharp" / SAMPLE.name)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty folder that pyiqa and torchvision take for their cache, without the internet."""
    from pyiqa.utils import download_util

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path / "hub" / "pyiqa"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: refused
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of before
    return tmp_path / "hub"


@pytest.fixture
def weights(cache):
    """Return the cache with files of random weights."""
    from scipy.io import savemat
    from torchvision.models import alexnet

    torch.manual_seed(0)
    for folder in ("checkpoints", "pyiqa"):
        (cache / folder).mkdir(parents=True)
    state = alexnet().state_dict()
    state = {name: value if "features" in name else torch.zeros(1).expand(value.shape) for name, value in state.items()}
    torch.save(state, cache / "checkpoints" / "alexnet-owt-7be5be79.pth")
    channels = (64, 192, 384, 256, 256)
    linear = {f"lin{i}.model.1.weight": torch.rand(1, count, 1, 1) for i, count in enumerate(channels)}
    torch.save(linear, cache / "pyiqa" / "LPIPS_v0.1_alex-df73285e.pth")
    model = {"mu_prisparam": torch.rand(1, 36).numpy(), "cov_prisparam": np.eye(36)}
    savemat(cache / "pyiqa" / "niqe_modelparameters.mat", model)
    return cache


def test_metrics_are_parsed():
    assert metrics_of(parse_metrics("default")) == DEFAULT == tuple(METRICS)[:5]
    assert parse_metrics("niqe, psnr,niqe") == ("niqe", "psnr")
    assert metrics_of(parse_metrics("ssim,default,lpips")) == (
        "ssim",
        "psnr",
        "psnr_float",
        "ssim_released",
        "ssim_matlab",
        "lpips",
    )


@pytest.mark.parametrize("text", ["psnr,mse", "PSNR", ",", ""])
def test_other_names_are_an_error_that_lists_the_choices(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics", type=parse_metrics)
    with pytest.raises(SystemExit):
        parser.parse_args(["--metrics", text])
    ours = "psnr, psnr_float, ssim, ssim_released, ssim_matlab, psnr_y, ssim_y, psnr_aligned, ssim_aligned, aligned"
    assert f"choose from default, {ours}, lpips, niqe" in capsys.readouterr().err


def test_every_metric_has_a_direction():
    assert [name for name, metric in KNOWN.items() if metric.lower_is_better] == ["lpips", "niqe"]
    assert [name for name, metric in KNOWN.items() if not metric.needs_reference] == ["niqe"]
    assert all(metric.comparable_with for metric in KNOWN.values())


def test_scores_on_the_cpu_are_opencvs(pair):
    scorer = Scorer(("ssim", "psnr"), CPU)
    assert list(scorer(*pair).items()) == list(score(*pair, ("ssim", "psnr")).items())
    assert scorer(pair[0]) == {}
    with pytest.raises(ValueError, match="one size"):
        scorer(pair[0], pair[1][1:])


def test_without_pyiqa_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match=r"--metrics niqe needs pyiqa \(.*\); install it with: make perceptual"):
        Scorer(("psnr", "niqe"), CPU)


@needs_pyiqa
def test_weights_that_cannot_be_had_are_named(cache):
    with pytest.raises(UserError) as error:
        Perceptual("lpips", CPU)
    for part in (
        "--metrics lpips: its weights could not be downloaded",
        f"/alexnet-owt-7be5be79.pth as {cache}/checkpoints/alexnet-owt-7be5be79.pth and https://",
        f"/LPIPS_v0.1_alex-df73285e.pth as {cache}/pyiqa/LPIPS_v0.1_alex-df73285e.pth",
        "refused",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match=rf"/niqe_modelparameters\.mat as {cache}/pyiqa/niqe_modelparameters\.mat"):
        Perceptual("niqe", CPU)


@needs_pyiqa
def test_damaged_weights_are_named(weights):
    path = weights / "pyiqa" / "niqe_modelparameters.mat"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"--metrics niqe: its weights cannot be read; remove {path} to"):
        Perceptual("niqe", CPU)


@needs_pyiqa
def test_values_are_pyiqas_of_the_saved_pictures(weights, pair, tmp_path):
    import pyiqa

    blurry, sharp = pair
    restored = np.clip(blurry / 255 + np.random.default_rng(0).uniform(-0.1, 0.1, blurry.shape), 0, 1)
    rounded = np.rint(restored * 255).astype(np.uint8)
    files = [str(save(tmp_path / f"{i}.png", image)) for i, image in enumerate((rounded, sharp))]
    niqe = pyiqa.create_metric("niqe", device=CPU)
    expected = {
        "niqe": niqe(files[0]).item(),
        "psnr": score(restored, sharp)["psnr"],
        "lpips": pyiqa.create_metric("lpips", device=CPU)(*files).item(),
    }
    scorer = Scorer(tuple(expected), CPU)
    scores = scorer(restored.astype(np.float32), sharp)
    assert list(scores) == list(expected)
    assert scores == pytest.approx(expected, rel=1e-6)
    assert scorer(sharp) == pytest.approx({"niqe": niqe(files[1]).item()}, rel=1e-6)
    assert scorer(sharp, sharp)["lpips"] == 0.0


@needs_pyiqa
@pytest.mark.parametrize("name", ["lpips", "niqe"])
def test_small_and_wrong_images_are_refused(name, weights, pair):
    metric, least = Perceptual(name, CPU), MIN_SIDES[name]
    blurry, sharp = (image[:least, :least] for image in pair)
    assert metric(blurry, sharp) > 0
    with pytest.raises(ValueError, match=f"{name.upper()} needs at least {least}×{least} px, got {least - 1}×{least}"):
        metric(blurry[1:], sharp[1:])
    with pytest.raises(ValueError, match="one size"):
        metric(*pair[0][None], sharp)
    with pytest.raises(ValueError, match=r"float in \[0, 1\], got float64"):
        metric(blurry.astype(float), sharp)
    network = metric._network
    with pytest.raises(RuntimeError):  # pyiqa's limit is not lower
        network(*(torch.rand(1, 3, least - 1, least) for _ in range(1 + (name == "lpips"))))


@needs_pyiqa
@pytest.mark.filterwarnings("ignore:cov")  # no block is left
def test_niqe_of_an_image_without_texture_is_refused(weights):
    with pytest.raises(ValueError, match="not defined for an image without any texture"):
        Perceptual("niqe", CPU)(np.full((200, 200, 3), 90, np.uint8))


@pytest.mark.gpu
@on_a_gpu
def test_scores_on_cuda_are_those_of_pytorch(pair):
    device = torch.device("cuda")
    assert Scorer(DEFAULT, device)(*pair) == score_on(device, *pair, DEFAULT)
    assert Scorer(DEFAULT, device)(pair[0]) == {}


@pytest.mark.gpu
@on_a_gpu
@needs_pyiqa
def test_perceptual_metrics_on_cuda_are_those_of_the_cpu_in_tf32_too(weights, pair):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    names = ("lpips", "niqe")
    ours, theirs = (Scorer(names, torch.device(device))(*pair) for device in ("cuda", "cpu"))
    assert ours == pytest.approx(theirs, abs=1e-4)
