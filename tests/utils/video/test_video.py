"""Videos: every frame once, the same size and rate; what is no video, or cannot be read without PyAV, is skipped."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import D_testing
import utils.video
from tests.support.networks import identity_file
from tests.support.processes import run_script
from tests.support.samples import save
from tests.support.videos import H264, PICTURE, TONE, clip, ffmpeg, frames_of, luma, needs_ffmpeg, restored, times
from utils.common.errors import UserError
from utils.images.codecs import UnreadableError
from utils.metrics.numpy_metrics import psnr

resource = pytest.importorskip("resource", reason="POSIX only")
FRAMES, RATE = 7, 24000 / 1001


def check(path, original, at_least):
    from utils.video.reader import VideoFile

    assert VideoFile(path).rate == VideoFile(original).rate
    pictures, expected = frames_of(path), frames_of(original)
    assert len(pictures) == len(expected) == FRAMES
    for picture, before in zip(pictures, expected, strict=True):
        assert picture.shape == before.shape
        assert psnr(picture, before) > at_least


def test_without_pyav_pictures_are_restored_and_videos_listed(tmp_path, monkeypatch, small_networks):
    monkeypatch.setattr(utils.video, "find_spec", lambda name: None)
    save(tmp_path / "in" / "a.png", size=(16, 16))
    video = clip(tmp_path / "in" / "b.mp4")
    arguments = ["--testset_dir", str(tmp_path / "in"), "--weights", str(small_networks / "DeblurringNet_FT.pth")]
    listed = f"1 of the files were skipped:\n  {video} is a video, which needs PyAV; run `make video`"
    with pytest.raises(UserError, match=listed):
        D_testing.main(D_testing.parse_args([*arguments, "--save_dir", str(tmp_path / "out"), "--device", "cpu"]))
    assert sorted(path.name for path in (tmp_path / "out" / "in").iterdir()) == ["a.png"]


def test_every_frame_stays(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    source = clip(tmp_path / "shaky.avi", FRAMES, RATE)
    output, info, notes = restored(tmp_path, source)
    assert (info["frames"], info["height"], info["width"], output.name) == (FRAMES, 48, 64, "shaky.mkv")
    assert (notes, info["problems"]) == ([], [])  # the source is YUV of 4:2:0
    check(output, source, 35)


@pytest.mark.slow
@needs_ffmpeg
def test_a_network_that_returns_its_input_leaves_the_luma(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    source = clip(tmp_path / "shaky.avi", FRAMES, RATE)
    arguments = ["--testset_dir", str(source), "--weights", str(identity_file(tmp_path / "identity.pth"))]
    D_testing.main(D_testing.parse_args([*arguments, "--save_dir", str(tmp_path / "out"), "--device", "cpu"]))
    difference = luma(tmp_path / "out" / "shaky.mkv") - luma(source)
    assert np.square(difference).mean() < 255**2 / 10**4.5  # 45 dB
    assert abs(difference.mean()) < 0.25


@pytest.mark.parametrize(
    "content", [b"", b"no video", b"\x00\x00\x00\x18ftypmp42" + bytes(200)], ids=["empty", "text", "cut"]
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov"])
def test_what_is_no_video_is_named(tmp_path, name, content):
    pytest.importorskip("av", reason="videos need PyAV")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=f"{name} cannot be read as a video .*; replace or remove it"):
        restored(tmp_path, tmp_path / name)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@needs_ffmpeg
def test_sound_alone_and_a_picture_are_no_videos(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    ffmpeg(*TONE, tmp_path / "sound.m4v")
    save(tmp_path / "picture.png").rename(tmp_path / "picture.mp4")
    for name in ("sound.m4v", "picture.mp4"):
        with pytest.raises(UnreadableError, match="cannot be read as a video .nothing moves in it"):
            restored(tmp_path, tmp_path / name)


def test_pictures_that_are_too_small_for_the_networks_are_named(tmp_path):
    with pytest.raises(UnreadableError, match=r"small.avi is 16×6 px; the networks need at least 8×8"):
        restored(tmp_path, clip(tmp_path / "small.avi", size=(16, 6)))
    assert not (tmp_path / "out" / "small.mp4").exists()


@pytest.mark.slow
def test_the_script_restores_a_video_and_lists_a_broken_one(tmp_path, small_networks):
    pytest.importorskip("av", reason="videos need PyAV")
    silent, broken = clip(tmp_path / "shaky.avi", FRAMES, RATE), tmp_path / "broken.mp4"
    broken.write_bytes(silent.read_bytes()[:100])
    arguments = ["--testset_dir", str(silent), "--testset_dir", str(broken), "--save_dir", str(tmp_path / "out")]
    arguments += ["--weights", str(small_networks / "DeblurringNet_FT.pth"), "--device", "cpu"]
    with pytest.raises(UserError, match=r"1 of the files were skipped:\n .*broken.mp4 cannot be read as a video"):
        D_testing.main(D_testing.parse_args(arguments))
    output = tmp_path / "out" / "shaky.mkv"
    assert len(frames_of(output)) == FRAMES
    with pytest.raises(UserError, match="exists already; give --resume"):
        D_testing.main(D_testing.parse_args(arguments))
    before = output.stat().st_mtime_ns
    broken.unlink()
    D_testing.main(D_testing.parse_args([*arguments[:2], *arguments[4:], "--resume"]))
    assert output.stat().st_mtime_ns == before


def test_a_failed_video_leaves_nothing_behind(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")

    def fails(image):
        raise UnreadableError("broken")

    with pytest.raises(UnreadableError, match="broken"):
        restored(tmp_path, clip(tmp_path / "a.mp4"), fails)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="limits the size of files")
def test_a_full_disk_is_a_line_and_leaves_nothing(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    source, noise = clip(tmp_path / "a.mp4", 30), np.random.default_rng(0).random((30, 48, 64, 3), np.float32)
    frames = iter(noise)  # which do not get small
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32_000, before[1]))
        with pytest.raises(UserError, match=r"a\.mp4 cannot be written: .*"):
            restored(tmp_path, source, lambda image: next(frames))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_no_utf8_are_restored(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    source = clip(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff 100%d.mp4")))
    assert len(frames_of(restored(tmp_path, source)[0])) == 3


PEAK = """
import resource, sys
from pathlib import Path
from tests.support.videos import restored
restored(Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@needs_ffmpeg
def test_memory_does_not_grow_with_the_length(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    peaks = []
    for seconds in (10, 60):
        source = tmp_path / f"{seconds}.mp4"
        ffmpeg(
            "-f", "lavfi", "-i", f"testsrc2=s=320x240:r=5:d={seconds}", *TONE[:3], f"sine=d={seconds}", *H264, source
        )
        result = run_script("-c", PEAK, str(tmp_path), str(source))
        peaks.append(int(result.stdout))
    assert peaks[1] < 1.05 * peaks[0]


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m2ts", "a.ts", "a.wmv", "a.3gp", "a.flv", "a.ogv", "a.vob", "a.mts", "a.webm"])
def test_videos_of_many_kinds_are_restored(tmp_path, name):
    pytest.importorskip("av", reason="videos need PyAV")
    source = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=0.2", source)  # H.263, of .3gp, has few sizes
    output, summary, _ = restored(tmp_path, source)
    assert (summary["frames"], summary["height"], summary["width"], summary["problems"]) == (5, 144, 176, [])
    assert np.allclose(np.diff(times(output)), 0.04, atol=0.0011)
    assert len(frames_of(output)) == 5


@pytest.mark.slow
@needs_ffmpeg
def test_frames_that_are_decoded_in_another_order_keep_theirs_in_avi(tmp_path):
    """AVI holds no times of its own: with B-frames those that FFmpeg guesses are out of order."""
    pytest.importorskip("av", reason="videos need PyAV")
    ffmpeg(*PICTURE, *TONE, *H264, "-bf", "3", "-c:a", "mp3", tmp_path / "a.avi")
    output, summary, _ = restored(tmp_path, tmp_path / "a.avi")
    assert summary["frames"] == 75
    assert np.allclose(times(output), np.arange(75) / 25, atol=0.0011)
