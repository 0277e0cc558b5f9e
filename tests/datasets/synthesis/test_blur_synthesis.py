"""Synthesised blur: random numbers by seed, exact averages, and what a camera adds."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import DR_training
from datasets.synthesis.motion import Motion, MotionSettings, apply, draw_motion
from datasets.synthesis.rendering import average
from datasets.synthesis.sensor import Response, SensorSettings, add_noise, gaussian, jpeg
from tests.support.samples import SAMPLES, load
from tools.synthesize_blur import BlurSettings, BlurSynthesis
from utils.common.errors import UserError
from utils.images.codecs import to_tensor
from utils.metrics.numpy_metrics import psnr

SHARP = SAMPLES / "train" / "GOPR0372_07_00" / "sharp" / "000047.png"
MARGIN = 8
QUIET = SensorSettings(share_linear=1.0, share_jpeg=0.0, shot=(1e-12, 1e-12), read=(1e-9, 1e-9))
STILL = MotionSettings(extent=1e-4, region_extent=1e-4, region_turn=0.0, region_growth=0.0, share_with_regions=0.0)


def patches(count=4, height=56, width=72):
    """Return parts of a real picture as (N, 3, H, W) in [-1, 1]."""
    picture = to_tensor(load(SHARP))
    return torch.stack([picture[:, 160 : 160 + height, 60 * i : 60 * i + width] for i in range(count)])


def inside(images):
    return images[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def settings(motion=None, sensor=QUIET):
    return BlurSettings(motion or MotionSettings(extent=8.0, region_extent=4.0), sensor, MARGIN)


def along_x(shifts):
    """Return the motion of one image by shifts in px, the middle one zero."""
    maps = np.tile(np.eye(3), (1, len(shifts), 1, 1))
    maps[0, :, 0, 2] = shifts
    return Motion(np.array([len(shifts)]), maps, ())


def response(gamma, contrast=1.0, brightness=0.0):
    return Response(*(torch.tensor(value).view(1, 1, 1, 1) for value in (gamma, contrast, brightness)))


# Seeds


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
    together = synthesis._synthesise(sharp, seeds.tolist())  # as on a GPU
    assert (together[0] - blurry).abs().max() < 0.02
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


# Motion


def test_sub_frames_are_close_odd_in_number_and_at_rest_in_the_middle():
    motion = MotionSettings(
        extent=20.0, spread=0.8, region_extent=15.0, share_with_regions=0.7, step=1.0, sub_frames=(7, 45)
    )
    found = draw_motion(range(60), 100, 140, 10, motion)
    rows, columns = np.mgrid[10:90:8, 10:130:8]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)
    assert (found.counts % 2 == 1).all()
    assert found.counts.min() >= 7
    assert found.counts.max() == 45 == found.camera.shape[1]
    assert len(set(found.counts)) > 10
    regions = 0
    layers = [(range(60), found.camera, None)] + [(r.images, r.maps, r.outline) for r in found.regions]
    for images, maps, outline in layers:
        for k, image in enumerate(images):
            path = maps[k, : found.counts[image]]
            assert np.abs(path[len(path) // 2] - np.eye(3)).max() < 1e-12
            seen = points
            if outline is not None:
                x, y, radius = outline[k, :3]
                seen = points[np.hypot(*(points - (x, y)).T) < radius]
                regions += 1
            steps = np.linalg.norm(np.diff(apply(path, seen), axis=0), axis=-1)
            assert steps.max(initial=0) <= 1.02
    assert 60 < regions < 130


@pytest.mark.slow
def test_the_extent_is_the_path_s_mean_length():
    motion = replace(MotionSettings(), extent=10.0, spread=0.5, share_with_regions=0.0)
    found = draw_motion(range(400), 300, 400, 20, motion)
    lengths = []
    rows, columns = np.mgrid[20:280:5, 20:380:5]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)
    for count, path in zip(found.counts, found.camera, strict=True):
        lengths.append(np.linalg.norm(np.diff(apply(path[:count], points), axis=0), axis=-1).sum(axis=0).mean())
    logarithms = np.log(lengths)
    assert np.exp(np.median(logarithms)) == pytest.approx(10.0, rel=0.1)
    assert logarithms.std() == pytest.approx(0.5, rel=0.15)


def test_a_camera_that_only_turns_moves_images_by_k_r_k_inverse():
    motion = MotionSettings(translation=0.0, focal_length=(1.5, 1.5), frame=(60, 80), share_with_regions=0.0)
    found = draw_motion([1, 2, 3], 60, 80, 4, motion)
    k = np.array([[120, 0, 39.5], [0, 120, 29.5], [0, 0, 1]])
    for count, path in zip(found.counts, found.camera, strict=True):
        turns = np.linalg.inv(k) @ path[:count] @ k
        assert np.abs(turns @ turns.swapaxes(-1, -2) - np.eye(3)).max() < 1e-10
        assert np.abs(np.linalg.det(turns) - 1).max() < 1e-10
        assert max(np.linalg.norm(cv2.Rodrigues(turn)[0]) for turn in turns) > 0.01


def test_a_share_of_images_hardly_moves():
    motion = MotionSettings(extent=20.0, spread=0.2, share_with_regions=0.0, share_still=0.4, still_extent=3.0)
    still, rest = lengths_of(draw_motion(range(300), 120, 160, 10, motion), 120, 160, 10, limit=5.0)
    assert 0.3 < len(still) / 300 < 0.5
    assert max(still) < 3.4
    assert np.median(still) == pytest.approx(1.5, rel=0.25)
    assert np.exp(np.median(np.log(rest))) == pytest.approx(20.0, rel=0.1)
    others = draw_motion(range(300), 120, 160, 10, replace(motion, share_still=0.0))
    assert sum(lengths_of(others, 120, 160, 10, limit=5.0)[1]) > sum(rest)  # the others are as they were


def lengths_of(found, height, width, margin, limit):
    """Return the paths' mean lengths, those below the limit and the others."""
    rows, columns = np.mgrid[margin : height - margin : 10, margin : width - margin : 10]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)
    paths = [path[:count] for count, path in zip(found.counts, found.camera, strict=True)]
    lengths = [np.linalg.norm(np.diff(apply(path, points), axis=0), axis=-1).sum(axis=0).mean() for path in paths]
    return [each for each in lengths if each < limit], [each for each in lengths if each >= limit]


def test_nothing_need_move(recwarn):
    for motion in (replace(STILL, extent=0.0, region_extent=0.0), replace(STILL, share_still=1.0, still_extent=0.0)):
        found = draw_motion(range(3), 60, 80, 4, motion)
        assert np.abs(found.camera - np.eye(3)).max() < 1e-9
        assert set(found.counts) == {motion.sub_frames[0]}
    assert not recwarn.list


def test_a_share_of_images_is_the_mean_of_a_few_frames():
    motion = MotionSettings(extent=40.0, spread=0.1, share_with_regions=0.0, frames=(7, 11))
    smooth = draw_motion(range(200), 120, 160, 10, motion)
    found = draw_motion(range(200), 120, 160, 10, replace(motion, share_frames=0.5))
    changed = found.counts != smooth.counts
    assert 0.4 < changed.mean() < 0.6
    assert set(found.counts[changed]) == {7, 9, 11}
    assert smooth.counts.min() > 13
    for image in np.flatnonzero(changed)[:5]:  # the same path, seen at fewer moments, and at rest in the middle
        count, whole = found.counts[image], smooth.camera[image, : smooth.counts[image]]
        few = found.camera[image, :count]
        assert np.abs(few[[0, -1]] - whole[[0, -1]]).max() < 1e-9
        assert np.abs(few[count // 2] - np.eye(3)).max() < 1e-12


# Averages


@pytest.mark.parametrize("length", [1, 7, 9])
def test_a_steady_motion_is_a_box_filter(length):
    light = (patches(1) + 1) / 2
    blurred, middle = average(light, along_x(np.arange(length) - length // 2), MARGIN)
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
    blurred, _ = average(curve.light(bar), along_x(np.arange(9) - 4), MARGIN)
    row = np.convolve(bar[0, 0, 20].numpy(), np.full(9, 1 / 9), "same")[MARGIN:-MARGIN] ** (1 / gamma)
    assert np.abs(curve.values(blurred)[0].numpy() - row).max() < 1e-4


def test_response_curves_are_inverted_exactly_and_rise():
    values = torch.linspace(0, 1, 256).view(1, 1, 1, -1)
    for curve in (response(1.0), response(2.2), response(1.8, 0.8, 0.4), response(2.6, 1.25, -0.4)):
        light = curve.light(values)
        assert (light.diff() > 0).all()
        assert light[..., 0] == 0
        assert light[..., -1] == 1
        assert (curve.values(light) - values).abs().max() < 1e-5
    assert torch.equal(response(1.0).light(values), values)


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
    for region in found.regions:
        for image, (x, y, radius, edge, axes, _, *waves) in zip(region.images, region.outline, strict=True):
            distance = np.hypot(columns - x, rows - y)
            inner[image] |= distance < 0.4 * radius / np.sqrt(max(axes, 1 / axes))
            outer[image] &= distance > radius * (1 + np.abs(waves[:4]).sum()) * np.sqrt(max(axes, 1 / axes)) + edge + 6
    change = (blurry - partner).abs().amax(dim=1).numpy()
    assert outer.any()
    assert change[outer].max() < 0.01  # one grey level
    assert np.median(change[inner]) > 0.02


# The camera


def test_settings_are_changed_by_name():
    changed = BlurSettings().changed(["share_still=0.25", "frames=7,9", "shot=1e-7,2e-5", "extent=12"])
    assert changed.motion == replace(MotionSettings(), share_still=0.25, frames=(7, 9), extent=12.0)
    assert changed.sensor == replace(SensorSettings(), shot=(1e-7, 2e-5))
    assert BlurSettings().changed([]) == BlurSettings()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("wobble=1", "wobble=1: no setting of the synthesised blur; expected one of exposure, "),
        ("share_still=1.5", "share_still=1.5: expected a number from 0 to 1"),
        ("extent=1,2", "extent=1,2: expected a number"),
        ("extent=", "extent=: expected a number"),
        ("frames=8,12", "frames=8,12: frames should be two odd numbers from 3 up"),
        ("exposure=0,1", "exposure=0,1: exposure should be above 0"),
        ("extent=-1", "extent=-1: extent should be at least 0"),
        ("frame=0,0", "frame=0,0: frame should be above 0"),
        ("spread=-1", "spread=-1: spread should be at least 0"),
        ("region_edge=-3,-1", "region_edge should be at least 0"),
        ("shot=0,1e-4", "shot=0,1e-4: shot should be above 0"),
        ("frames=7", "frames=7: expected LOW,HIGH"),
        ("frames=13,7", "frames=13,7: expected LOW,HIGH"),
        ("frames=7.5,9", "expected LOW,HIGH, such as 7,13"),
        ("shot=1e-6,nan", "shot=1e-6,nan: expected LOW,HIGH"),
    ],
)
def test_a_setting_that_is_none_is_refused(change, message, capsys):
    with pytest.raises(UserError, match=message):
        BlurSettings().changed([change])
    with pytest.raises(SystemExit):
        DR_training.parse_args(["--blur", change])
    assert "--blur" in capsys.readouterr().err


def test_noise_has_the_documented_variance_and_follows_from_its_key():
    light = torch.tensor([0.05, 0.2, 0.7]).view(3, 1, 1, 1)
    values = (1.055 * light ** (1 / 2.4) - 0.055).expand(3, 3, 128, 128)
    shot, read = torch.full((3, 1, 1, 1), 1e-4), torch.full((3, 1, 1, 1), 1e-3)
    keys = torch.tensor([[1, 2], [3, 4], [5, 6]])
    noisy = add_noise(values, shot, read, keys)
    recorded = ((noisy + 0.055) / 1.055) ** 2.4
    for i in range(3):
        x = light[i].item()
        assert recorded[i].mean().item() == pytest.approx(x, abs=5e-4)
        assert recorded[i].var().item() == pytest.approx(1e-4 * x + 1e-6, rel=0.03)
    assert torch.equal(add_noise(values[:1], shot[:1], read[:1], keys[:1]), noisy[:1])


def test_random_numbers_are_normal_and_independent():
    numbers = gaussian(torch.tensor([[0, 1], [2, 0], [123456789, 4000000000]]), torch.Size([3, 200, 200])).double()
    assert numbers.mean().abs() < 0.01
    assert numbers.var().item() == pytest.approx(1, abs=0.01)
    assert (numbers**4).mean().item() == pytest.approx(3, abs=0.06)
    for shift in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert (numbers * numbers.roll(shift, (1, 2, 3))).mean().abs() < 0.01
    assert (torch.corrcoef(numbers.flatten(1)) - torch.eye(3)).abs().max() < 0.01


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_jpeg_is_pillow_s(quality):
    picture = load(SHARP)[100:281, 200:405]  # no multiple of 16
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.array(Image.open(stream))
    values = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    ours = jpeg(values, torch.full((1, 1, 1, 1), float(quality)))[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    assert psnr(ours, expected) > 45 > psnr(ours, picture)
    assert np.abs(ours.astype(int) - expected).mean() < 0.7
