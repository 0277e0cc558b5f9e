"""The augmentation against OpenCV's warps of the whole frame, and the distributions it draws from."""

import os
import subprocess
import sys
from collections import Counter

import albumentations as A
import cv2
import numpy as np
import pytest
from scipy import stats

from datasets.augmentation import WARPS, PairAugmentation, WarpedCrop
from tests.support.samples import ROOT, SAMPLE, load
from tests.support.warps import (
    WHOLE_FRAME,
    RecordingRandom,
    control_points,
    coordinate_frame,
    draw_whole_frame_patch,
    pad,
)

BY_NAME = {warp.__name__: warp for warp in WARPS}
EXACT = ("horizontal_flip", "transpose")
# OpenCV rounds source positions to 1/32 px, in warpAffine in another way than in remap: of 255 levels.
MOST_OFF, MEAN_OFF = 12, 0.25
SIGNIFICANCE = 1e-3  # of the tests of distributions; the seeds are fixed, so they do not fail by chance
FLIPPED, TRANSPOSED = [[-1, 0], [0, 1]], [[0, 1], [1, 0]]


def crop_and_draws(name: str, frame: np.ndarray, patch_size: int, seed: int) -> tuple[np.ndarray, RecordingRandom]:
    transform = WarpedCrop(patch_size, warps=(BY_NAME[name],))
    transform.py_random = RecordingRandom(seed)
    return transform(image=frame)["image"], transform.py_random


def whole_frame_crop(name: str, frame: np.ndarray, patch_size: int, draws: RecordingRandom) -> np.ndarray:
    warped = pad(WHOLE_FRAME[name](frame, *draws.uniforms), patch_size)
    top, left = draws.integers
    return warped[top : top + patch_size, left : left + patch_size]


def assert_same_picture(name: str, actual: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert actual.shape == expected.shape
    assert difference.max() <= (0 if name in EXACT else MOST_OFF)
    assert difference.mean() <= (0 if name in EXACT else MEAN_OFF)


def slope(patch: np.ndarray) -> list[list[float]]:
    """Return how x and y of the source (rows) change along x and y of the patch (columns) of a coordinate frame."""
    return [[float(patch[1, 2, c] - patch[1, 1, c]), float(patch[2, 1, c] - patch[1, 1, c])] for c in (0, 1)]


def augmented_slopes(count: int) -> list[list[list[float]]]:
    augment, frame = PairAugmentation(16), coordinate_frame(96, 128)
    return [slope(augment(frame, None, seed)[0]) for seed in range(count)]


def sources(name: str, height: int, width: int, points: np.ndarray, seed: int) -> np.ndarray:
    warp = BY_NAME[name](height, width, RecordingRandom(seed))
    return np.stack(warp.source(points[:, 0], points[:, 1]), axis=-1)


def forward_affine(name: str, height: int, width: int, seed: int) -> np.ndarray:
    """Return the 2×3 matrix, from frame to result, that the warp's sources imply."""
    points = np.float64([[0, 0], [width, 0], [0, height]])
    back = sources(name, height, width, points, seed)
    return np.linalg.solve(np.column_stack([back, np.ones(3)]), points).T


def is_uniform(values: list[float], low: float, high: float) -> bool:
    values = np.array(values)
    near = 0.01 * (high - low)  # of 1500 values, one lies so near to either end but for a chance of 1e-6
    reaches_its_ends = low <= values.min() < low + near and high - near < values.max() <= high
    return reaches_its_ends and stats.kstest(values, "uniform", args=(low, high - low)).pvalue > SIGNIFICANCE


def fits_counts(values: list[int], size: int) -> bool:
    counts = np.bincount(values, minlength=size)
    return len(counts) == size and stats.chisquare(counts).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", BY_NAME)
def test_crop_equals_whole_frame_warp_then_crop(name, seed):
    frame = load(SAMPLE)
    crop, draws = crop_and_draws(name, frame, 256, seed)
    assert_same_picture(name, crop, whole_frame_crop(name, frame, 256, draws))


@pytest.mark.parametrize("name", BY_NAME)
def test_crop_equals_whole_frame_warp_of_odd_upright_frame(name):
    frame = np.ascontiguousarray(load(SAMPLE)[:, 40:301])  # 384 high, 261 wide
    crop, draws = crop_and_draws(name, frame, 192, 5)
    assert_same_picture(name, crop, whole_frame_crop(name, frame, 192, draws))


@pytest.mark.parametrize("shape", [(180, 200), (180, 300), (300, 90)], ids=str)
@pytest.mark.parametrize("name", BY_NAME)
def test_smaller_frame_is_reflect_padded_after_the_warp(name, shape):
    frame = np.ascontiguousarray(load(SAMPLE)[: shape[0], : shape[1]])
    crop, draws = crop_and_draws(name, frame, 256, 3)
    assert_same_picture(name, crop, whole_frame_crop(name, frame, 256, draws))


@pytest.mark.parametrize("shape", [(8, 9), (8, 300), (1, 20)], ids=str)
def test_tiny_frame_is_reflected_as_often_as_needed(shape):
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    crop, draws = crop_and_draws("horizontal_flip", frame, 64, 3)
    np.testing.assert_array_equal(crop, whole_frame_crop("horizontal_flip", frame, 64, draws))


def test_optical_distortion_is_albumentations_own_camera_model():
    height, width = 384, 640
    rng = RecordingRandom(4)
    warp = BY_NAME["optical_distortion"](height, width, rng)
    x, y = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    geometry = A.augmentations.geometric.functional
    expected = geometry.get_camera_matrix_distortion_maps((height, width), rng.uniforms[0])
    np.testing.assert_allclose(warp.source(x, y), expected, atol=1e-3)  # px; theirs is float32


def test_five_warps_are_equally_likely():
    drawn = Counter()

    def counted(warp):
        def draw(*arguments):
            drawn[warp.__name__] += 1
            return warp(*arguments)

        return draw

    crop = WarpedCrop(8)
    crop.warps = tuple(counted(warp) for warp in crop.warps)
    for seed in range(2000):
        crop.set_random_seed(seed)
        crop.get_params_dependent_on_data({"shape": (16, 16, 3)}, {})
    assert set(drawn) == set(WHOLE_FRAME)
    assert stats.chisquare(list(drawn.values())).pvalue > SIGNIFICANCE


def test_a_fifth_of_the_patches_is_flipped_and_a_fifth_transposed():
    slopes = augmented_slopes(1500)
    for expected in (FLIPPED, TRANSPOSED):
        count = sum(np.allclose(found, expected, atol=1e-6) for found in slopes)
        assert stats.binomtest(count, len(slopes), 0.2).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("name", "rows", "columns"), [("horizontal_flip", 24, 40), ("transpose", 40, 24)])
def test_windows_are_uniform_and_independent(name, rows, columns):
    """Of a frame of 24×40: after the transpose it is 40 high and 24 wide."""
    crop, frame = WarpedCrop(16, warps=(BY_NAME[name],)), coordinate_frame(24, 40)
    tops, lefts = [], []
    for seed in range(4000):
        crop.set_random_seed(seed)
        patch = crop(image=frame)["image"]
        x, y = patch[0, 0, :2].astype(int)
        top, left = (y, 39 - x) if name == "horizontal_flip" else (x, y)
        tops.append(top)
        lefts.append(left)
    assert fits_counts(tops, rows - 16 + 1)
    assert fits_counts(lefts, columns - 16 + 1)
    together = np.array(tops) // 5 * 100 + np.array(lefts) // 5  # in blocks of 5, whole ones only
    whole = (np.array(tops) < (rows - 15) // 5 * 5) & (np.array(lefts) < (columns - 15) // 5 * 5)
    assert stats.chisquare(np.unique(together[whole], return_counts=True)[1]).pvalue > SIGNIFICANCE


def test_shift_scale_and_rotation_are_uniform_in_their_ranges():
    height, width = 90, 160
    centre = np.array([width / 2, height / 2])
    matrices = [forward_affine("shift_scale_rotate", height, width, seed) for seed in range(1500)]
    shifts = [(m @ [*centre, 1] - centre) / (width, height) for m in matrices]
    for m in matrices[:20]:  # a similarity: no shear, no mirroring
        np.testing.assert_allclose([m[0, 0], m[0, 1]], [m[1, 1], -m[1, 0]], atol=1e-9)
    assert is_uniform([np.degrees(np.arctan2(m[0, 1], m[0, 0])) for m in matrices], -45, 45)
    assert is_uniform([np.hypot(m[0, 0], m[0, 1]) for m in matrices], 0.9, 1.1)
    assert is_uniform([s[0] for s in shifts], -0.0625, 0.0625)
    assert is_uniform([s[1] for s in shifts], -0.0625, 0.0625)
    assert abs(stats.spearmanr(*zip(*shifts, strict=True)).statistic) < 0.1


def test_distortion_is_uniform_in_its_range():
    height, width = 91, 161
    corner = np.float64([[0, 0]])  # u = (0 - 80) / 161, v = (0 - 45) / 91
    r2 = (80 / 161) ** 2 + (45 / 91) ** 2
    x = [sources("optical_distortion", height, width, corner, seed)[0, 0] for seed in range(1500)]
    k = [((161 / 2 - value) / 80 - 1) / (r2 + r2 * r2) for value in x]
    assert is_uniform(k, -0.05, 0.05)


def test_each_control_point_moves_uniformly_by_up_to_50_px():
    height, width = 384, 640
    points = control_points(height, width).astype(float)
    homogeneous = np.column_stack([points, np.ones(3)])
    moves = np.array(
        [homogeneous @ forward_affine("control_point_affine", height, width, seed).T - points for seed in range(1500)]
    ).reshape(-1, 6)
    for column in moves.T:
        assert is_uniform(column.clip(-50 - 1e-3, 50 + 1e-3), -50 - 1e-3, 50 + 1e-3)  # float32 inside OpenCV
    correlation = np.corrcoef(moves.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.1


def test_enlarged_crops_sample_the_frame_between_its_pixels():
    frame, factors = coordinate_frame(30, 20), []
    transform = WarpedCrop(8, enlargement=1.5, warps=(BY_NAME["transpose"],))
    for seed in range(100):
        transform.py_random = RecordingRandom(seed)
        patch = transform(image=frame)["image"]
        (factor,), (top, left) = transform.py_random.uniforms, transform.py_random.integers
        inside = np.s_[1:-1]  # the border is reflected
        rows, columns = ((np.arange(start, start + 8) + 0.5) / factor - 0.5 for start in (top, left))
        np.testing.assert_allclose(patch[inside, 4, 0], rows[inside], atol=1 / 32)
        np.testing.assert_allclose(patch[4, inside, 1], columns[inside], atol=1 / 32)
        factors.append(factor)
    assert 1.0 <= min(factors) < 1.05
    assert 1.45 < max(factors) <= 1.5


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(160, 240), (60, 130)], ids=["crop", "pad"])
def test_same_distribution_as_warping_the_whole_frame(shape):
    """Two-sample tests of what 1500 patches show: where corner and centre come from, and both slopes."""
    frame, augment, rng = coordinate_frame(*shape), PairAugmentation(64), np.random.default_rng(1)
    ours = [augment(frame, None, seed)[0] for seed in range(1500)]
    theirs = [draw_whole_frame_patch(frame, 64, rng) for _ in range(1500)]

    def features(patches):
        return np.array([[*p[0, 0, :2], *p[32, 32, :2], *p[63, 63, :2], *np.ravel(slope(p[30:]))] for p in patches]).T

    pvalues = [stats.ks_2samp(a, b).pvalue for a, b in zip(features(ours), features(theirs), strict=True)]
    assert min(pvalues) > SIGNIFICANCE


def test_blurry_and_sharp_get_the_same_map():
    frame, augment = load(SAMPLE), PairAugmentation(96)
    for seed in range(25):  # all five warps among them
        blurry, sharp = augment(frame, frame.copy(), seed)
        np.testing.assert_array_equal(blurry, sharp)


def test_map_does_not_depend_on_the_pictures_or_on_a_partner():
    """Two pictures that code their pixels' coordinates, one the negative of the other, stay each other's negative."""
    frame, augment = coordinate_frame(96, 128), PairAugmentation(48)
    for seed in range(25):
        blurry, sharp = augment(frame, 200 - frame, seed)
        np.testing.assert_allclose(sharp, 200 - blurry, atol=1e-3)
        alone, none = augment(frame, None, seed)
        assert none is None
        np.testing.assert_array_equal(alone, blurry)


def test_same_seed_same_bits_and_other_seed_another_patch():
    frame, first, second = load(SAMPLE), PairAugmentation(64), PairAugmentation(64)
    patches = [first(frame, None, seed)[0] for seed in range(20)]
    cv2.setRNGSeed(1)
    np.random.seed(1)  # the global states must not matter
    again = [second(frame, None, seed)[0] for seed in reversed(range(20))][::-1]
    np.testing.assert_array_equal(patches, again)
    assert len({patch.tobytes() for patch in patches}) == 20


def test_frames_are_left_as_they_were_and_patches_are_uint8():
    frame = load(SAMPLE)
    before, (patch, _) = frame.copy(), PairAugmentation(32)(frame, frame, 0)
    np.testing.assert_array_equal(frame, before)
    assert patch.dtype == np.uint8
    assert patch.shape == (32, 32, 3)


GUARD = """
import os, socket, urllib.request
def loud(*_, **__):
    os.write(2, b"NETWORK"), os._exit(7)
socket.socket.connect = socket.create_connection = socket.getaddrinfo = urllib.request.OpenerDirector.open = loud
"""


@pytest.mark.slow
@pytest.mark.parametrize(("module", "status"), [("datasets", 0), ("albumentations", 7)])
def test_importing_does_not_look_for_updates(module, status):
    """albumentations alone does look, which shows that the guard would notice."""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    result = subprocess.run([sys.executable, "-c", f"{GUARD}import {module}"], cwd=ROOT, env=environment, timeout=120)
    assert result.returncode == status
