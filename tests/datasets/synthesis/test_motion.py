"""Random motion: close sub-frames, the length asked for, a camera that turns."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from datasets.synthesis.motion import MotionSettings, apply, draw_motion
from tests.support.blur import STILL


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
    moving = found.regions
    for images, maps, outlines in ((range(60), found.camera, None), (moving.images, moving.maps, moving.outlines)):
        for k, image in enumerate(images):
            path = maps[k, : found.counts[image]]
            assert np.abs(path[len(path) // 2] - np.eye(3)).max() < 1e-12
            seen = points
            if outlines is not None:
                x, y, radius = outlines[k, :3]
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
