"""Synthesised pairs: random numbers by seed, exact averages, and partners that fit."""

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from datasets import BlurSettings, BlurSynthesis
from datasets.synthesis.motion import HARMONICS, Motion, MotionSettings, Regions, draw_motion
from datasets.synthesis.rendering import Exposure, average, exposure_arrays
from datasets.synthesis.sensor import SensorSettings
from tests.support.blur import QUIET, SHARP, STILL, response
from tests.support.samples import load
from utils.images.conversion import to_tensor

MARGIN = 8


def patches(count=4, height=56, width=72):
    """Return parts of a real picture as (N, 3, H, W) in [-1, 1]."""
    picture = to_tensor(load(SHARP))
    return torch.stack([picture[:, 160 : 160 + height, 60 * i : 60 * i + width] for i in range(count)])


def inside(images):
    return images[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def settings(motion=None, sensor=QUIET):
    return BlurSettings(motion or MotionSettings(extent=8.0, region_extent=4.0), sensor, MARGIN)


def average_along_x(light, shifts):
    """Return what `average` does of one image that moves by shifts in px, the middle one zero."""
    maps = np.tile(np.eye(3), (1, len(shifts), 1, 1))
    maps[0, :, 0, 2] = shifts
    none = Regions(np.zeros(0, np.int64), np.zeros(0, bool), maps[:0], np.zeros((0, 6 + 2 * HARMONICS)))
    arrays = exposure_arrays(Motion(np.array([len(shifts)]), maps, none), *light.shape[-2:], MARGIN)
    return average(light, Exposure(*(torch.from_numpy(each.astype(np.float32)) for each in arrays), ()), MARGIN)


def test_an_image_follows_from_its_seed_whatever_the_batch():
    sharp, seeds = patches(5), torch.tensor([3, -7, 2**62, 11, 3])
    synthesis = BlurSynthesis(settings(sensor=SensorSettings(share_jpeg=0.5)))
    blurry, partner = synthesis(sharp, seeds)
    assert blurry.shape == partner.shape == inside(sharp).shape
    assert blurry.dtype == partner.dtype == torch.float32
    assert blurry.abs().max() <= 1
    assert partner.abs().max() <= 1
    order = [4, 2, 0]
    again = BlurSynthesis(synthesis.settings)(sharp[order], seeds[order])
    assert torch.equal(again[0], blurry[order])
    assert torch.equal(again[1], partner[order])
    plan = pickle.loads(pickle.dumps(synthesis.draw(seeds.tolist(), *sharp.shape[-2:])))  # by a data worker
    together = synthesis(sharp, plan)  # as on a GPU
    for one, other in zip(together, (blurry, partner), strict=True):
        assert (one - other).abs().max() < 0.02
        assert one.ne(other).float().mean() < 0.001
    other, _ = synthesis(sharp, seeds + 1)
    assert all((other[i] - blurry[i]).abs().max() > 0.05 for i in range(5))


def test_the_caller_s_images_are_left_alone():
    sharp = patches(2).contiguous(memory_format=torch.channels_last)
    before = sharp.clone()
    plain = BlurSynthesis(settings(MotionSettings(share_with_regions=1.0, share_pasted=1.0)))
    pairs = plain(sharp, torch.arange(2))
    assert torch.equal(sharp, before)
    for one, other in zip(pairs, plain(before.contiguous(), torch.arange(2)), strict=True):
        assert torch.equal(one, other)
    without_margin = BlurSynthesis(replace(plain.settings, margin=0))
    assert without_margin(sharp, torch.arange(2))[1].shape == sharp.shape
    assert torch.equal(sharp, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_pairs_and_is_not_waited_for():
    sharp, seeds = patches(6), torch.arange(6)
    plain = BlurSynthesis(settings(sensor=SensorSettings(share_jpeg=0.0)))
    expected = plain(sharp, seeds)
    there = sharp.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = plain(there, seeds)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, expected, strict=True):
        assert (one.cpu() - other).abs().max() < 0.009  # one grey level
        assert (one.cpu() - other).abs().gt(0.001).float().mean() < 0.001
    one_by_one = torch.cat([plain(there[i : i + 1], seeds[i : i + 1])[0] for i in range(6)])
    assert (one_by_one - found[0]).abs().gt(0.001).float().mean() < 0.001
    with_jpeg = BlurSynthesis(settings(sensor=SensorSettings(share_jpeg=1.0)))
    assert (with_jpeg(there, seeds)[0].cpu() - with_jpeg(sharp, seeds)[0]).abs().mean() < 0.002


@pytest.mark.parametrize(
    ("sharp", "seeds", "message"),
    [
        (torch.zeros(1, 1, 32, 32), torch.zeros(1, dtype=torch.int64), r"\(N, 3, H, W\) float32"),
        (torch.zeros(1, 3, 32, 32).double(), torch.zeros(1, dtype=torch.int64), "float64"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(2, dtype=torch.int64), r"\(1,\) int64 seeds"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1), "float32 on cpu"),
        (torch.zeros(1, 3, 32, 16), torch.zeros(1, dtype=torch.int64), "twice the margin of 8 px"),
    ],
)
def test_other_shapes_and_types_are_refused(sharp, seeds, message):
    with pytest.raises(ValueError, match=message):
        BlurSynthesis(settings())(sharp, seeds)


@pytest.mark.parametrize("length", [1, 7, 9])
def test_a_steady_motion_is_a_box_filter(length):
    light = (patches(1) + 1) / 2
    blurred, middle = average_along_x(light, np.arange(length) - length // 2)
    expected = cv2.filter2D(light[0].permute(1, 2, 0).numpy(), -1, np.full((1, length), 1 / length, np.float32))
    assert (
        np.abs(
            blurred[0].permute(1, 2, 0).numpy()
            - inside(torch.from_numpy(expected).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        ).max()
        < 1e-4
    )
    assert torch.equal(middle, inside(light))


@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_a_white_bar_gives_the_analytic_profile(gamma):
    bar = torch.zeros(1, 3, 40, 64)
    bar[..., 30:33] = 1.0
    curve = response(gamma)
    blurred, _ = average_along_x(curve.light(bar), np.arange(9) - 4)
    row = np.convolve(bar[0, 0, 20].numpy(), np.full(9, 1 / 9), "same")[MARGIN:-MARGIN] ** (1 / gamma)
    assert np.abs(curve.values(blurred)[0].numpy() - row).max() < 1e-4


def test_both_variants_hold_the_same_light():
    """Of a black and white picture `blur` is the share of time in white, and so is `blur_gamma` to the power 2.2."""
    sharp = torch.where(patches(1) > 0, 1.0, -1.0)
    motion = replace(settings().motion, share_with_regions=0.0)
    sensors = [
        replace(QUIET, share_linear=linear, share_gamma=1 - linear, share_highlights=0.0) for linear in (1.0, 0.0)
    ]
    linear, gamma = (BlurSynthesis(settings(motion, s))(sharp, torch.tensor([5]))[0] / 2 + 0.5 for s in sensors)
    assert ((linear > 0.1) & (linear < 0.9)).float().mean() > 0.1
    assert (gamma**2.2 - linear).abs().max() < 0.008


def test_the_partner_is_the_photograph_unless_something_was_pasted():
    sharp, seeds = patches(6), torch.arange(6)
    motion = MotionSettings(extent=8.0, share_with_regions=1.0, share_pasted=0.0)
    blurry, partner = BlurSynthesis(settings(motion, SensorSettings(share_highlights=0.0)))(sharp, seeds)
    assert torch.equal(partner, inside(sharp))
    assert all((blurry[i] - partner[i]).abs().max() > 0.1 for i in range(6))
    pasted = BlurSynthesis(settings(replace(motion, share_pasted=1.0)))(sharp, seeds)[1]
    assert all((pasted[i] - partner[i]).abs().max() > 0.1 for i in range(6))


@pytest.mark.parametrize("sensor", [QUIET, replace(QUIET, share_linear=0.0, share_gamma=0.0, share_highlights=1.0)])
def test_without_motion_the_blurry_image_is_its_partner(sensor):
    """Whatever is pasted in and however bright the highlights: both sides have seen the same camera."""
    motion = replace(STILL, share_with_regions=1.0, share_pasted=1.0)
    blurry, partner = BlurSynthesis(settings(motion, sensor))(patches(3), torch.arange(3))
    assert (blurry - partner).abs().max() < 0.02
    if sensor.share_highlights == 1.0:
        assert not torch.equal(partner, inside(patches(3)))


def test_regions_move_by_themselves():
    motion = replace(STILL, share_with_regions=1.0, share_pasted=0.0, region_extent=6.0, spread=0.1)
    sharp, seeds = patches(8), torch.arange(8)
    blurry, partner = BlurSynthesis(settings(motion))(sharp, seeds)
    found = draw_motion(seeds.tolist(), *sharp.shape[-2:], MARGIN, motion)
    rows, columns = np.mgrid[MARGIN : sharp.shape[-2] - MARGIN, MARGIN : sharp.shape[-1] - MARGIN]
    inner, outer = np.zeros((8, *rows.shape), bool), np.ones((8, *rows.shape), bool)
    outlines = found.regions.outlines
    for image, (x, y, radius, edge, axes, _, *waves) in zip(found.regions.images, outlines, strict=True):
        distance = np.hypot(columns - x, rows - y)
        inner[image] |= distance < 0.4 * radius / np.sqrt(max(axes, 1 / axes))
        outer[image] &= distance > radius * (1 + np.abs(waves[:4]).sum()) * np.sqrt(max(axes, 1 / axes)) + edge + 6
    change = (blurry - partner).abs().amax(dim=1).numpy()
    assert outer.any()
    assert change[outer].max() < 0.01  # one grey level
    assert np.median(change[inner]) > 0.02
