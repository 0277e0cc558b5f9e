"""The cache of decoded frames: the same patches as without it, resumed, rebuilt, refused."""

import errno
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets import FrameCache, find_images
from datasets.patches import TrainingPatches
from tests.support.samples import SAMPLES
from utils.common.errors import UserError
from utils.images.codecs import inspect_image, read_image


@pytest.fixture
def sources(tmp_path):
    shutil.copytree(SAMPLES / "train", tmp_path / "data")
    return sorted((tmp_path / "data").rglob("*.png"))


@pytest.fixture
def cache(tmp_path):
    return FrameCache(tmp_path / "cache")


def test_patches_are_the_same_to_the_bit(tmp_path, sources, cache):
    cache.build(sources, threads=2)
    image_sets = [find_images(tmp_path / "data", "train")]
    plain, cached = TrainingPatches(image_sets, 64), TrainingPatches(image_sets, 64, cache)
    for draw in ((0, 1), (1, 2), (0, 3)):
        for name in ("blurry", "sharp"):
            assert torch.equal(plain[draw][name], cached[draw][name])


def test_frames_are_mapped_and_never_copied_whole(sources, cache, monkeypatch, tmp_path):
    cache.build(sources, threads=1)
    assert isinstance(cache.read(sources[0]), np.memmap)
    mapped = []
    remap = cv2.remap
    monkeypatch.setattr(
        cv2, "remap", lambda image, *rest, **more: (mapped.append(image), remap(image, *rest, **more))[1]
    )
    TrainingPatches([find_images(tmp_path / "data", "train")], 32, cache)[0, 0]
    assert len(mapped) == 2
    for frame in mapped:
        while frame.base is not None and not isinstance(frame, np.memmap):
            frame = frame.base
        assert isinstance(frame, np.memmap)


def test_an_interrupted_build_continues(sources, cache, monkeypatch):
    decoded = []

    def read_until_interrupted(source):
        if len(decoded) == 2:
            raise KeyboardInterrupt
        decoded.append(source)
        return read_image(source)

    monkeypatch.setattr("datasets.frame_cache.read_image", read_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.build(sources, threads=1)
    monkeypatch.setattr(
        "datasets.frame_cache.read_image", lambda source: (decoded.append(source), read_image(source))[1]
    )
    cache.build(sources, threads=1)
    assert sorted(decoded) == sources  # each once
    cache.build(sources, threads=1)
    assert sorted(decoded) == sources
    assert not list(cache.folder.glob(".*"))  # nothing half-written stays


def test_a_changed_source_is_decoded_again_and_the_old_frame_goes(sources, cache):
    cache.build(sources, threads=1)
    shutil.copy(sources[1], sources[0])
    os.utime(sources[0], ns=(1, 1))
    with pytest.raises(UserError, match=r"000047.png changed after it was decoded into .*; start again"):
        cache.read(sources[0])
    cache.build(sources, threads=1)
    assert (cache.read(sources[0]) == read_image(sources[1])).all()
    assert len(list(cache.folder.iterdir())) == len(sources)


def test_a_frame_that_another_run_wrote_meanwhile_stays(sources, cache, monkeypatch):
    def inspect_while_another_run_builds(source):
        monkeypatch.undo()
        FrameCache(cache.folder).build(sources, threads=1)
        return inspect_image(source)

    monkeypatch.setattr("datasets.frame_cache.inspect_image", inspect_while_another_run_builds)
    cache.build(sources, threads=1)
    for source in sources:
        assert (cache.read(source) == read_image(source)).all()


def test_the_same_source_by_two_paths_is_decoded_once(sources, cache, monkeypatch):
    monkeypatch.chdir(sources[0].parent)
    cache.build([sources[0], Path(sources[0].name)], threads=2)
    assert len(list(cache.folder.iterdir())) == 1


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(sources, cache, monkeypatch):
    usage = shutil.disk_usage(cache.folder.parent)
    needed = len(sources) * 384 * 640 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"4 frames need 2.8 MiB, 2.8 MiB are free; make room"):
        cache.build(sources, threads=1)
    assert not list(cache.folder.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    cache.build(sources, threads=1)


def test_a_damaged_frame_is_named(sources, cache):
    cache.build(sources, threads=1)
    for path in cache.folder.iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"\.npy, decoded from .*000047.png, is damaged .*; delete it and start again"):
        cache.read(sources[0])


def test_a_source_that_cannot_be_decoded_is_named(sources, cache):
    sources[2].write_bytes(sources[2].read_bytes()[:-100_000])
    with pytest.raises(UserError, match="000047.png is damaged or incomplete"):
        cache.build(sources, threads=2)
    cache.build(sources, threads=2, skip_broken=True)
    with pytest.raises(UserError, match="000047.png is damaged or incomplete .*; replace or remove it"):
        cache.read(sources[2])  # the reason again


def test_a_file_in_place_of_the_folder(tmp_path, sources):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache_dir .*file cannot be written in: File exists"):
        FrameCache(tmp_path / "file").build(sources, threads=1)


def test_a_frame_that_cannot_be_written_is_not_skipped(sources, cache, monkeypatch):
    def full(file, array):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="cannot be written"):
        cache.build(sources, threads=1, skip_broken=True)
