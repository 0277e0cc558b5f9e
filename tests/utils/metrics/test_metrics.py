"""The metrics against published values of real pairs and against scikit-image; in PyTorch against those."""

import json

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.support.samples import SAMPLES
from utils.images.codecs import read_image
from utils.metrics import torch_metrics
from utils.metrics.numpy_metrics import (
    METRICS,
    psnr,
    psnr_float,
    psnr_y,
    score,
    ssim,
    ssim_matlab,
    ssim_released,
    ssim_y,
)
from utils.metrics.scorer import KNOWN
from utils.metrics.torch_metrics import score_on, score_tensors

PAIR = ("test", "GOPR0881_11_01", "000203.png")
TOLERANCE = 1e-4
CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


@pytest.fixture(scope="module")
def pair():
    split, sequence, name = PAIR
    return [read_image(SAMPLES / split / sequence / side / name) for side in ("blur", "sharp")]


def as_float(image):
    """Return values between the 8-bit levels, in [0, 1]."""
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, image.shape)
    return np.clip((image + noise) / 255, 0, 1)


def score_on_cpu(image, reference):
    return score_on(CPU, image, reference)


@pytest.mark.slow
@pytest.mark.parametrize(("score", "count"), [(score, None), (score_on_cpu, 1)])
def test_values_of_real_pairs(score, count, shared):
    cases = json.loads((shared / "golden" / "metrics.json").read_text())
    cases.pop("what")
    for name, expected in list(cases.items())[:count]:
        sequence, file = name.split("/")
        folder = shared / "data" / "GOPRO_sample" / "test" / sequence
        values = score(read_image(folder / "blur" / file), read_image(folder / "sharp" / file))
        assert {metric: values[metric] for metric in expected} == pytest.approx(expected, abs=TOLERANCE), name


def test_psnr_is_scikit_images_on_uint8(pair):
    assert psnr(*pair) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255), abs=1e-9)
    image, reference = as_float(pair[0]), pair[1]
    rounded = np.rint(image * 255).astype(np.uint8)
    assert psnr(image, reference) == pytest.approx(
        peak_signal_noise_ratio(reference, rounded, data_range=255), abs=1e-9
    )


def test_psnr_float_does_not_round(pair):
    image, reference = as_float(pair[0]), pair[1]
    expected = peak_signal_noise_ratio(reference / 255, image, data_range=1)
    assert psnr_float(image, reference) == pytest.approx(expected, abs=1e-9)
    assert psnr_float(image, reference) != pytest.approx(psnr(image, reference), abs=1e-6)


def test_ssim_is_scikit_images_gaussian_one_on_the_valid_region(pair):
    _, full = structural_similarity(
        *pair, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim(*pair) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


def test_ssim_released_is_scikit_images_with_a_range_of_2(pair):
    image, reference = as_float(pair[0]), pair[1] / 255
    expected = structural_similarity(image, reference, channel_axis=2, data_range=2)
    assert ssim_released(image, reference) == pytest.approx(expected, abs=1e-9)


def test_ssim_matlab_is_a_volume_filter(pair):
    from scipy.ndimage import gaussian_filter

    a, b = (image[:120, :150].astype(np.float64) for image in pair)

    def smooth(volume):  # 11 taps in each of the three directions, borders replicated
        return gaussian_filter(volume, sigma=1.5, truncate=5 / 1.5, mode="nearest")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    cov = smooth(a * b) - mean_a * mean_b
    expected = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / (mean_a**2 + mean_b**2 + c1) / (var_a + var_b + c2)
    ours = ssim_matlab(pair[0][:120, :150], pair[1][:120, :150])
    assert ours == pytest.approx(expected.mean(), abs=1e-9)


def test_metrics_of_y_are_scikit_images_of_its_bt601_luma(pair):
    image, reference = as_float(pair[0]), pair[1]
    rounded = np.rint(image * 255).astype(np.uint8)
    lumas = [rgb2ycbcr(each)[..., 0] for each in (rounded, reference)]
    expected = peak_signal_noise_ratio(*lumas, data_range=255)
    assert psnr_y(image, reference) == pytest.approx(expected, abs=1e-9)
    _, full = structural_similarity(
        *lumas, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim_y(image, reference) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


def test_y_goes_from_16_to_235():
    black, white, red = (np.full((11, 11, 3), colour, np.uint8) for colour in (0, 255, (255, 0, 0)))
    assert psnr_y(white, black) == pytest.approx(20 * np.log10(255 / 219))
    assert psnr_y(red, black) == pytest.approx(20 * np.log10(255 / 65.481))
    c1 = (0.01 * 255) ** 2
    assert ssim_y(white, black) == pytest.approx((2 * 16 * 235 + c1) / (16**2 + 235**2 + c1))


def test_equal_images(pair):
    values = score(pair[1], pair[1])
    for name, value in values.items():
        assert value == (float("inf") if name.startswith("psnr") else pytest.approx(1)), name


def test_every_metric_says_what_it_is_comparable_with():
    names = ["psnr", "psnr_float", "ssim", "ssim_released", "ssim_matlab", "psnr_y", "ssim_y"]
    assert list(METRICS) == names
    assert METRICS.keys() <= KNOWN.keys()


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_refuses_what_does_not_fit(metric, pair):
    with pytest.raises(ValueError, match=r"two H×W×3 images of one size, got \(384, 640, 3\) and \(383, 640, 3\)"):
        metric(pair[0], pair[1][1:])
    with pytest.raises(ValueError, match="two H×W×3 images"):
        metric(pair[0][..., 0], pair[1][..., 0])
    with pytest.raises(ValueError, match=r"uint8, or float in \[0, 1\], got float64"):
        metric(pair[0].astype(np.float64), pair[1])
    with pytest.raises(ValueError, match=r"uint8, or float in \[0, 1\], got int64"):
        metric(pair[0].astype(np.int64), pair[1])


@pytest.mark.parametrize("metric", [ssim, ssim_released, ssim_y])
def test_windows_need_room(metric):
    with pytest.raises(ValueError, match="SSIM needs at least"):
        metric(np.zeros((6, 20, 3), np.uint8), np.zeros((6, 20, 3), np.uint8))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(211, 320), (67, 101), (12, 11), (11, 11)])
def test_pytorch_gives_opencvs_values(device, size, pair):
    blurry, sharp = (image[: size[0], -size[1] :] for image in pair)
    between = as_float(blurry)
    for image in (blurry, between, between.astype(np.float32)):
        ours = score_on(torch.device(device), image, sharp)
        assert list(ours) == list(METRICS)
        assert ours == pytest.approx(score(image, sharp), abs=1e-9)


def test_levels_are_rounded_as_on_the_cpu():
    halves = (np.arange(255, dtype=np.float32) + np.float32(0.5)) / np.float32(255)  # ties, up to fp32's last digit
    image = np.resize(halves, (20, 51, 3))
    reference = np.zeros_like(image)
    assert score_on(CPU, image, reference) == pytest.approx(score(image, reference), abs=1e-12)


def test_an_image_in_strips_is_the_same(pair, monkeypatch):
    blurry, sharp = (image[:101, :67] for image in pair)
    expected = score(blurry, sharp)
    for strip in (1, 67 * 20, 77 * 20, 67 * 90):
        monkeypatch.setattr(torch_metrics, "_STRIP", strip)
        assert score_on(CPU, blurry, sharp) == pytest.approx(expected, abs=1e-9)


def test_a_batch_has_a_value_an_image(pair):
    blurry, sharp = (torch.from_numpy(image[:60, :80]).permute(2, 0, 1) for image in pair)
    scores = score_tensors(torch.stack([blurry, sharp]), torch.stack([sharp, sharp]))
    for name, expected in score(pair[0][:60, :80], pair[1][:60, :80]).items():
        assert scores[name][0].item() == pytest.approx(expected, abs=1e-9)
        assert scores[name][1].item() == pytest.approx(float("inf") if "psnr" in name else 1.0)


@pytest.mark.parametrize("device", DEVICES)
def test_pytorch_refuses_what_does_not_fit(device, pair):
    device = torch.device(device)
    with pytest.raises(ValueError, match=r"two H×W×3 images of one size, got \(384, 640, 3\) and \(383, 640, 3\)"):
        score_on(device, pair[0], pair[1][1:])
    for wrong, dtype in ((pair[0].astype(np.float32), "float32"), (pair[0].astype(np.int64), "int64")):
        with pytest.raises(ValueError, match=rf"uint8, or float in \[0, 1\], got {dtype} 7"):
            score_on(device, wrong, pair[1])
    with pytest.raises(ValueError, match="got float32 nan"):
        score_on(device, np.full_like(pair[0], np.nan, dtype=np.float32), pair[1])
    with pytest.raises(ValueError, match="SSIM needs at least 11×11 px, got 10×20"):
        score_on(device, np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(ValueError, match=r"two tensors of 3×H×W images of one size, got \(384, 640, 3\)"):
        score_tensors(*map(torch.from_numpy, pair))
