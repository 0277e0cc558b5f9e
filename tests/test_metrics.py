"""The five metrics against published values of real pairs and against scikit-image."""

import json

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.helpers import SAMPLES
from utils.images import read_image
from utils.metrics import COMPARABLE_WITH, METRICS, psnr, psnr_float, score, ssim, ssim_matlab, ssim_released

PAIR = ("test", "GOPR0881_11_01", "000203.png")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def pair():
    split, sequence, name = PAIR
    return [read_image(SAMPLES / split / sequence / side / name) for side in ("blur", "sharp")]


def as_float(image):
    """Return values between the 8-bit levels, in [0, 1]."""
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, image.shape)
    return np.clip((image + noise) / 255, 0, 1)


def test_values_of_real_pairs(shared):
    cases = json.loads((shared / "golden" / "metrics.json").read_text())
    cases.pop("what")
    for name, expected in cases.items():
        sequence, file = name.split("/")
        folder = shared / "data" / "GOPRO_sample" / "test" / sequence
        values = score(read_image(folder / "blur" / file), read_image(folder / "sharp" / file))
        assert values == pytest.approx(expected, abs=TOLERANCE), name


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


def test_equal_images(pair):
    values = score(pair[1], pair[1])
    assert values["psnr"] == values["psnr_float"] == float("inf")
    assert all(values[name] == pytest.approx(1) for name in ("ssim", "ssim_released", "ssim_matlab"))


def test_every_metric_says_what_it_is_comparable_with():
    assert list(METRICS) == list(COMPARABLE_WITH) == ["psnr", "psnr_float", "ssim", "ssim_released", "ssim_matlab"]


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


@pytest.mark.parametrize("metric", [ssim, ssim_released])
def test_windows_need_room(metric):
    with pytest.raises(ValueError, match="SSIM needs at least"):
        metric(np.zeros((6, 20, 3), np.uint8), np.zeros((6, 20, 3), np.uint8))
