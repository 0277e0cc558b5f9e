"""Videos: every frame, the same size and rate, the sound where ffmpeg is installed."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest

import D_testing
from tests.support.samples import SAMPLE, load
from utils.common.errors import UserError
from utils.images.codecs import UnreadableError
from utils.metrics.numpy_metrics import psnr
from utils.testing.video_restoring import restore_video
from utils.video.encoder import output_name
from utils.video.reader import VideoFile

FRAMES, RATE = 7, 24000 / 1001
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def frames(height=72, width=96):
    picture = load(SAMPLE)
    return [np.ascontiguousarray(picture[4 * i : 4 * i + height, 6 * i : 6 * i + width]) for i in range(FRAMES)]


@pytest.fixture
def silent(tmp_path):
    path = tmp_path / "shaky.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (96, 72))
    for frame in frames():
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def same(image):
    """Restore nothing."""
    return image.astype(np.float32) / 255


def check(path, original, at_least):
    restored = VideoFile(path)
    assert restored.rate == VideoFile(original).rate
    pictures = list(restored)
    assert len(pictures) == FRAMES
    for picture, expected in zip(pictures, VideoFile(original), strict=True):
        assert picture.shape == expected.shape
        assert psnr(picture, expected) > at_least


def test_without_ffmpeg_there_is_a_line_and_no_sound(tmp_path, silent, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    lines = []
    output = tmp_path / "out" / output_name(silent)
    info = restore_video(same, silent, output, lines.append)
    assert (info["frames"], info["height"], info["width"]) == (FRAMES, 72, 96)
    assert len(lines) == 1
    assert (
        "ffmpeg (with ffprobe) is not installed, so the restored video is MPEG-4 at a constant frame rate" in lines[0]
    )
    assert "and sound is omitted" in lines[0]
    check(output, silent, 28)


@pytest.mark.slow
@needs_ffmpeg
def test_without_ffmpeg_odd_sizes_are_padded_with_a_message(tmp_path, monkeypatch):
    source = tmp_path / "odd.avi"
    for i, frame in enumerate(frames(71, 95)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame[..., ::-1])
    pictures = ["-i", str(tmp_path / "%d.png"), "-c:v", "png", str(source)]  # OpenCV writes no odd sizes
    subprocess.run(["ffmpeg", "-loglevel", "error", *pictures], check=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    lines = []
    restore_video(same, source, tmp_path / "out" / "odd.mp4", lines.append)
    assert [line for line in lines if "95×71 px become 96×72" in line]
    (picture, *_), (expected, *_) = VideoFile(tmp_path / "out" / "odd.mp4"), VideoFile(source)
    assert picture.shape == (72, 96, 3)
    assert psnr(picture[:71, :95], expected) > 28


def test_without_ffmpeg_a_video_that_ends_early_is_reported(tmp_path, silent, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    whole = silent.read_bytes()
    silent.write_bytes(whole[: len(whole) // 2])
    info = restore_video(same, silent, tmp_path / "out" / "shaky.mp4", print)
    assert 0 < info["frames"] < FRAMES - 2
    assert "ends early, or was cut" in info["problems"][0]
    assert f" {info['frames']} of {FRAMES} frames" in info["problems"][0]
    longer = silent.rename(tmp_path / "guessed.mkv")  # of these OpenCV has no count, but the length of all tracks
    assert restore_video(same, longer, tmp_path / "out" / "guessed.mp4", print)["problems"] == []


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("size", [(72, 96), (71, 95)])
def test_with_ffmpeg_the_sound_stays_to_the_bit(tmp_path, size):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(frames(*size)):
        cv2.imwrite(str(folder / f"{i}.png"), frame[..., ::-1])
    source = tmp_path / "shaky.mp4"
    pictures = ["-framerate", "24000/1001", "-i", str(folder / "%d.png")]
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.29", "-c:a", "aac"]
    coded = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *pictures, *tone, *coded, str(source)], check=True)
    output = tmp_path / "out" / output_name(source)
    restore_video(same, source, output, print)
    check(output, source, 35)

    def sound(path):
        copy = ["ffmpeg", "-loglevel", "error", "-i", str(path), "-map", "0:a", "-c", "copy", "-f", "adts", "-"]
        return subprocess.run(copy, capture_output=True, check=True).stdout

    assert len(sound(source)) > 1000
    assert sound(output) == sound(source)


@pytest.mark.slow
def test_the_script_restores_a_video_and_lists_a_broken_one(tmp_path, small_networks, silent):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(silent.read_bytes()[:100])
    arguments = ["--testset_dir", str(silent), "--testset_dir", str(broken), "--save_dir", str(tmp_path / "out")]
    arguments += ["--weights", str(small_networks / "DeblurringNet_FT.pth"), "--device", "cpu"]
    with pytest.raises(UserError, match=r"1 of the files were skipped:\n .*broken.mp4 cannot be read as a video"):
        D_testing.main(D_testing.parse_args(arguments))
    output = tmp_path / "out" / output_name(silent)
    assert len(list(VideoFile(output))) == FRAMES
    with pytest.raises(UserError, match="exists already; give --resume"):
        D_testing.main(D_testing.parse_args(arguments))
    before = output.stat().st_mtime_ns
    broken.unlink()
    D_testing.main(D_testing.parse_args([*arguments[:2], *arguments[4:], "--resume"]))
    assert output.stat().st_mtime_ns == before


def test_a_failed_video_leaves_nothing_behind(tmp_path, silent):
    def fails(image):
        raise UnreadableError("broken")

    with pytest.raises(UnreadableError):
        restore_video(fails, silent, tmp_path / "out" / "a.mp4", print)
    assert not list((tmp_path / "out").iterdir())
