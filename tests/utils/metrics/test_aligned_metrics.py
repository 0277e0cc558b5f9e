"""RealBlur's protocol against OpenCV and scikit-image as its authors' script calls them, and which sets it scores."""

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from tests.support.samples import SAMPLE, load
from utils.metrics import score_aligned
from utils.metrics.aligned_metrics import ALIGNED
from utils.metrics.numpy_metrics import psnr, score
from utils.metrics.scorer import DEFAULT, Scorer, metrics_of, protocol

CPU = torch.device("cpu")
ALL = tuple(ALIGNED)


@pytest.fixture(scope="module")
def pair():
    """Return a blurry image and its sharp one, 200×240 px."""
    return [load(path)[100:300, 200:440] for path in (SAMPLE, SAMPLE.parents[1] / "sharp" / SAMPLE.name)]


def by_its_authors(image: np.ndarray, sharp: np.ndarray) -> tuple[float, float]:
    """Return PSNR and SSIM as github.com/rimchang/RealBlur computes them, from the 8-bit values of the files."""
    z, x = (each.astype(np.float32) / 255 for each in (image, sharp))
    z = z * (np.sum(x * z) / np.sum(z * z))
    greys = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (x, z)]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0)
    identity = np.eye(3, dtype=np.float32)
    _, warp = cv2.findTransformECC(*greys, identity, cv2.MOTION_HOMOGRAPHY, criteria, inputMask=None, gaussFiltSize=5)
    cubic, nearest = (each + cv2.WARP_INVERSE_MAP for each in (cv2.INTER_CUBIC, cv2.INTER_NEAREST))
    size = x.shape[1::-1]
    mask = cv2.warpPerspective(
        np.ones_like(z), warp, size, flags=nearest, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    z = cv2.warpPerspective(z, warp, size, flags=cubic, borderMode=cv2.BORDER_REFLECT) * mask
    x = x * mask
    error = np.sum((x - z) ** 2, dtype=np.float64) / np.sum(mask)
    _, full = structural_similarity(
        x.astype(np.float64), z.astype(np.float64), channel_axis=2, gaussian_weights=True, use_sample_covariance=False,
        data_range=1.0, full=True,
    )  # fmt: skip
    full, inside = (full * mask)[5:-5, 5:-5], mask[5:-5, 5:-5]
    return 10 * np.log10(1 / error), np.mean(full.sum(axis=(0, 1)) / inside.sum(axis=(0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("shift", [(0, 0), (4, 2)])
def test_values_are_those_of_the_authors_script(shift, pair):
    down, right = shift
    image, sharp = pair[0][down:, right:], pair[1][: 200 - down, : 240 - right]
    expected = by_its_authors(image, sharp)
    assert abs(expected[0] - psnr(image, sharp)) > 0.1
    ours = score_aligned(image, sharp)
    assert list(ours) == list(ALIGNED)
    assert (ours["psnr_aligned"], ours["ssim_aligned"]) == (
        pytest.approx(expected[0], abs=1e-3), pytest.approx(expected[1], abs=1e-4),
    )  # fmt: skip
    assert ours["aligned"] == 1.0
    floats = score_aligned(image.astype(np.float32) / np.float32(255) + np.float32(0.4 / 255) * (image < 255), sharp)
    assert floats == ours  # what the PNG holds


@pytest.mark.slow
@pytest.mark.parametrize("shift", [(3, 0), (0, 3), (3, 3), (3, -3)])
def test_a_shift_of_3_px_costs_nothing(shift, pair):
    """Of a blurry image: sharper ones lose by the brightness, which is fitted before they are aligned."""
    cut = (slice(3, -3), slice(3, -3))
    blurry, sharp, shifted = pair[0][cut], pair[1][cut], np.roll(pair[0], shift, axis=(0, 1))[cut]
    before, after = score_aligned(blurry, sharp), score_aligned(shifted, sharp)
    assert psnr(shifted, sharp) < psnr(blurry, sharp) - 0.6
    assert after["psnr_aligned"] == pytest.approx(before["psnr_aligned"], abs=0.05)
    assert after["ssim_aligned"] == pytest.approx(before["ssim_aligned"], abs=0.005)


def of_one_colour(image):
    return np.full_like(image, 90)


def of_another_picture(image):
    return np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)


def unaligned(image, sharp):
    """Return the PSNR of an image where it lies, with its brightness fitted."""
    z, x = (each.astype(np.float64) / 255 for each in (image, sharp))
    z *= (x * z).sum() / max((z * z).sum(), 1)
    return -10 * np.log10(((x - z) ** 2).mean())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [np.zeros_like, of_one_colour, of_another_picture])
def test_what_cannot_be_aligned_is_scored_where_it_is(make, pair):
    sharp = pair[1][:80, :90]
    scores = score_aligned(make(sharp), sharp)
    assert scores["psnr_aligned"] == pytest.approx(unaligned(make(sharp), sharp), abs=1e-4)
    assert scores["aligned"] == 0.0
    assert np.isfinite(scores["ssim_aligned"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [np.zeros_like, of_one_colour, of_another_picture])
def test_against_black_the_brightness_counts(make):
    """Fitted by the factor 0, the worst image would be perfect."""
    sharp = np.zeros((40, 50, 3), np.uint8)
    image = make(sharp)
    scores = score_aligned(image, sharp)
    assert scores["psnr_aligned"] == pytest.approx(psnr(image, sharp), abs=1e-4)  # of black and black infinite, too
    assert np.isfinite(scores["psnr_aligned"]) == image.any()
    assert (scores["ssim_aligned"] > 0.999, scores["aligned"]) == (not image.any(), 0.0)


def test_a_homography_that_loses_the_picture_is_not_used(pair):
    blurry, sharp = (image[:40, :40] for image in pair)
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (sharp, blurry)]
    _, found = cv2.findTransformECC(*greys, np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY)
    assert np.abs(found[:2, 2]).max() > 40  # ECC says that it has converged
    scores = score_aligned(blurry, sharp)
    assert (scores["psnr_aligned"], scores["aligned"]) == (pytest.approx(unaligned(blurry, sharp), abs=1e-4), 0.0)


def test_equal_images(pair):
    sharp = pair[1][:60, :60]
    scores = score_aligned(sharp, sharp)
    assert scores["psnr_aligned"] > 80
    assert (scores["ssim_aligned"], scores["aligned"]) == (pytest.approx(1), 1.0)


def test_refuses_what_does_not_fit(pair):
    with pytest.raises(ValueError, match=r"two H×W×3 images of one size"):
        score_aligned(pair[0], pair[1][1:])
    with pytest.raises(ValueError, match=r"float in \[0, 1\], got float64"):
        score_aligned(pair[0].astype(np.float64), pair[1])
    with pytest.raises(ValueError, match="SSIM needs at least 11×11 px, got 10×20"):
        score_aligned(pair[0][:10, :20], pair[1][:10, :20])


def test_realblur_is_scored_as_its_authors_do(pair):
    assert metrics_of(["default"], "realblur_j") == metrics_of(["default"], "realblur_r") == ALL
    for kind in ("gopro", "hide", "reds", "rsblur", "paired", "unpaired"):
        assert metrics_of(["default"], kind) == DEFAULT
    assert metrics_of(["psnr", "default"], "realblur_j") == ("psnr", *ALL)
    assert metrics_of(["psnr"], "realblur_j") == ("psnr",)
    assert metrics_of(["ssim_aligned"], "gopro") == ("ssim_aligned", "aligned")
    scorer, small = Scorer(["default"], CPU), [image[:60, :60] for image in pair]
    assert scorer.of("realblur_r")(*small) == score_aligned(*small)
    assert tuple(scorer.of("gopro")(*small)) == tuple(scorer(*small)) == DEFAULT


def test_the_protocol_is_named():
    assert protocol(DEFAULT, 0) == "whole images, not aligned"
    assert protocol(ALL, 0) == "whole images, aligned to the sharp ones as by RealBlur's authors"
    both = protocol(("psnr", *ALL), 0)
    assert both == "whole images; psnr_aligned, ssim_aligned: aligned to the sharp ones as by RealBlur's authors"
    assert protocol(DEFAULT, 4).startswith("images without 4 px at each border (published numbers are of whole ones)")


def test_borders_are_cropped_before_anything_else(pair):
    blurry, sharp = (image[:50, :60] for image in pair)
    names = ("psnr", "ssim_y", "psnr_aligned")
    cropped, whole = Scorer(names, CPU, crop_border=5), Scorer(names, CPU)
    floats = blurry.astype(np.float32) / np.float32(255)
    assert cropped(floats, sharp) == cropped(blurry, sharp) == whole(blurry[5:-5, 5:-5], sharp[5:-5, 5:-5])
    assert cropped(blurry, sharp)["psnr"] == score(blurry[5:-5, 5:-5], sharp[5:-5, 5:-5])["psnr"]
    with pytest.raises(ValueError, match="without 25 px at each border nothing is left of 50×60 px"):
        Scorer(names, CPU, crop_border=25)(blurry, sharp)
    assert set(Scorer(names, CPU, crop_border=19)(blurry, sharp)) == {*names, "aligned"}
