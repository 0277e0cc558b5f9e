"""What a restored video keeps of its source with ffmpeg: sound, colours, frame times; and messages on the rest."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from utils.common.errors import UserError
from utils.testing.video_restoring import restore_video
from utils.video.encoder import output_name
from utils.video.reader import VideoFile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
]

PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=96x72:r=25:d=3")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
COLOURS = ((200, 40, 30), (30, 180, 60), (40, 60, 210), (225, 190, 120))


def ffmpeg(*arguments):
    command = ["ffmpeg", "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def same(image):
    """Restore nothing."""
    return image.astype(np.float32) / 255


def restored(tmp_path, source, restorer=same):
    """Return the restored file, its summary, and the logged lines."""
    lines = []
    output = tmp_path / "out" / output_name(source)
    return output, restore_video(restorer, source, output, lines.append), lines


def probed(path, entries, stream="v:0"):
    command = ["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", entries, "-of", "csv=p=0"]
    return subprocess.run([*command, str(path)], capture_output=True, check=True, text=True).stdout.split()


def times(path, stream="v:0"):
    return sorted(float(line.split(",")[0]) for line in probed(path, "packet=pts_time", stream))


def shown(path):
    return subprocess.run(["ffprobe", "-show_streams", path], capture_output=True, check=True, text=True).stdout.split()


def samples(path):
    return ffmpeg("-i", path, "-map", "0:a", "-f", "s32le", "-")


# Sound


@pytest.mark.parametrize(
    ("name", "coded", "expected"),
    [
        ("a.mov", ("pcm_s16le",), "pcm_s16le"),
        ("a.mov", ("flac", "-f", "matroska"), "alac"),  # ffmpeg goes by the content, not by the name
        ("a.mp4", ("pcm_s16le", "-f", "mov"), "alac"),
        ("a.mp4", ("pcm_s24le", "-f", "mov"), "alac"),
        ("a.m4v", ("flac", "-strict", "-2", "-f", "mp4"), "alac"),
        ("a.mkv", ("pcm_s16le",), "pcm_s16le"),
        ("a.avi", ("pcm_s16le",), "pcm_s16le"),
    ],
)
def test_lossless_sound_stays_so_in_any_container(tmp_path, name, coded, expected):
    source = tmp_path / name
    ffmpeg(*PICTURE, *TONE, *H264, "-c:a", *coded, source)
    output, _, lines = restored(tmp_path, source)
    assert probed(output, "stream=codec_name", "a") == [expected]
    assert samples(output) == samples(source)
    assert len(lines) == (expected == "alac")
    assert all("encoded as ALAC without loss" in line for line in lines)


def test_other_sound_that_does_not_fit_is_encoded_and_every_track_stays(tmp_path):
    source = tmp_path / "two.mov"
    tracks = ("-map", "0", "-map", "1", "-map", "1", "-c:a:0", "libopus", "-c:a:1", "aac")
    ffmpeg(*PICTURE, *TONE, *tracks, *H264, "-f", "matroska", source)
    output, _, lines = restored(tmp_path, source)
    assert probed(output, "stream=codec_name", "a") == ["aac", "aac"]
    assert len(lines) == 1
    assert ".mov takes no opus sound, which is encoded as AAC" in lines[0]


def test_a_video_that_ffmpeg_cannot_write_is_an_error_and_leaves_nothing(tmp_path):
    source = tmp_path / "a.mp4"
    ffmpeg(*PICTURE, *H264, source)
    with pytest.raises(UserError, match="ffmpeg could not write"):
        restore_video(same, source, tmp_path / "out" / "a.unknown", print)
    assert not list((tmp_path / "out").iterdir())


# Colours


def quarters(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        image[i // 2 * height // 2 :, i % 2 * width // 2 :] = colour
    return image


def middles(image):
    """Return the colours in the middle of each quarter."""
    height, width = image.shape[:2]
    parts = [(i // 2 * height // 2 + height // 4, i % 2 * width // 2 + width // 4) for i in range(4)]
    return np.array([image[y - 4 : y + 4, x - 4 : x + 4].mean((0, 1)) for y, x in parts])


@pytest.mark.parametrize(
    ("size", "matrix", "range_", "tagged"),
    [
        ((720, 1280), "bt709", "tv", True),
        ((720, 1280), "bt709", "tv", False),
        ((720, 1280), "smpte170m", "tv", True),
        ((72, 96), "smpte170m", "tv", True),
        ((72, 96), "smpte170m", "tv", False),
        ((72, 96), "bt709", "tv", True),
        ((72, 96), "bt709", "pc", True),
    ],
)
def test_colours_are_those_of_the_source(tmp_path, size, matrix, range_, tagged):
    raw, source = tmp_path / "raw.rgb", tmp_path / "clip.mp4"
    raw.write_bytes(quarters(*size).tobytes() * 3)
    shape = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[1]}x{size[0]}")
    tags = ("-color_range", range_, "-colorspace", matrix, "-color_primaries", matrix, "-color_trc", matrix)
    convert = f"scale=out_color_matrix={matrix}:out_range={range_}:flags=accurate_rnd,format=yuv420p"
    ffmpeg(*shape, "-i", raw, "-vf", convert, *H264, "-qp", "0", *(tags if tagged else ()), source)
    seen = []

    def look(image):
        seen.append(image)
        return same(image)

    output, _, lines = restored(tmp_path, source, look)
    assert not lines
    assert np.abs(middles(seen[0]) - COLOURS).max() < 1.5
    back = f"scale=in_color_matrix={matrix}:in_range={range_}:flags=accurate_rnd+full_chroma_int,format=rgb24"
    decoded = np.frombuffer(ffmpeg("-i", output, "-vf", back, *shape[:4], "-"), np.uint8).reshape(-1, *size, 3)
    assert len(decoded) == 3
    assert np.abs(middles(decoded[1]) - COLOURS).max() < 3
    entries = "stream=color_range,color_space,color_transfer,color_primaries"
    assert probed(output, entries) == [",".join((range_, matrix, matrix, matrix))]


def test_the_shape_of_pixels_stays(tmp_path):
    source = tmp_path / "wide.mp4"
    ffmpeg(*PICTURE, "-vf", "setsar=4/3", *H264, source)
    output, *_ = restored(tmp_path, source)
    assert probed(output, "stream=sample_aspect_ratio") == ["4:3"]


def test_a_turned_video_is_turned_once(tmp_path):
    upright, source = tmp_path / "upright.mp4", tmp_path / "turned.mp4"
    ffmpeg("-f", "lavfi", "-i", "smptebars=s=96x72:r=25:d=0.2", *H264, upright)
    ffmpeg("-i", upright, "-c", "copy", "-metadata:s:v", "rotate=90", source)
    turn = {line for line in shown(source) if line.startswith("rotation=")}
    if not turn:
        pytest.skip("this ffmpeg writes no rotation in this way")
    output, info, _ = restored(tmp_path, source)
    assert (info["height"], info["width"]) == (96, 72)
    assert probed(output, "stream=width,height") == ["72,96"]
    assert "rotation" not in " ".join(shown(output))
    quarters_left = int(turn.pop().removeprefix("rotation=")) // 90
    first, expected = next(iter(VideoFile(output))), np.rot90(next(iter(VideoFile(upright))), quarters_left)
    assert np.abs(first.astype(float) - expected).mean() < 3


def test_more_than_8_bits_are_reported(tmp_path):
    source = tmp_path / "hdr.mkv"
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    ffmpeg(*PICTURE, "-t", "0.2", "-pix_fmt", "yuv420p10le", "-c:v", "ffv1", *tags, source)
    output, _, lines = restored(tmp_path, source)
    assert len(lines) == 1
    assert "its 10 bits a channel of high dynamic range become 8" in lines[0]
    assert probed(output, "stream=color_space,color_transfer,color_primaries") == ["bt2020nc,smpte2084,bt2020"]


# Frame times


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_frame_rate_keeps_the_time_of_each_frame(tmp_path, suffix):
    source = tmp_path / f"phone{suffix}"
    fewer = ("-vf", r"select=not(mod(n\,7)*mod(n\,5))+gt(n\,40)", "-vsync", "vfr")
    ffmpeg(*PICTURE, *TONE, *fewer, *H264, "-c:a", "aac", source)
    output, info, _ = restored(tmp_path, source)
    assert info["frames"] == len(times(source)) == 47
    assert info["frames_per_second"] == pytest.approx(15.5, abs=1)
    for stream in ("v:0", "a:0"):
        assert np.allclose(times(output, stream), times(source, stream), atol=0.0011)


def test_pictures_that_begin_after_the_sound_still_do(tmp_path):
    source = tmp_path / "late.mp4"
    ffmpeg("-itsoffset", "0.5", *PICTURE, *TONE, *H264, "-c:a", "aac", "-copyts", source)
    assert times(source)[0] == pytest.approx(0.5, abs=0.05)
    output, *_ = restored(tmp_path, source)
    for stream in ("v:0", "a:0"):
        assert np.allclose(times(output, stream), times(source, stream), atol=0.0011)


def test_names_that_look_like_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = Path("12:30 100%d.mp4")
    ffmpeg(*PICTURE, "-t", "0.2", *H264, f"file:{source}")
    output, info, _ = restored(tmp_path, source)
    assert (output.name, info["frames"]) == (source.name, 5)


def test_interlaced_videos_are_reported(tmp_path):
    source = tmp_path / "a.mp4"
    ffmpeg(*PICTURE, *H264, "-flags", "+ildct+ilme", "-vf", "setfield=tff", "-x264opts", "tff=1", source)
    lines = restored(tmp_path, source)[2]
    assert any("is interlaced, and is restored as whole frames" in line for line in lines)


# Incomplete files


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_file_that_ends_early_is_reported(tmp_path, name):
    source = tmp_path / name
    ffmpeg(*PICTURE, *TONE, *H264, "-movflags", "+faststart", source)
    _, info, _ = restored(tmp_path, source)
    assert (info["frames"], info["problems"]) == (75, [])
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 2 // 3])
    output, info, _ = restored(tmp_path, source)
    assert 20 < info["frames"] < 70
    assert f"{name} ends early: {info['frames']} of 75 frames" in info["problems"][0]
    assert output.exists()


def test_a_file_with_a_hole_is_reported(tmp_path):
    source = tmp_path / "a.mp4"
    ffmpeg(*PICTURE, *H264, "-g", "15", "-movflags", "+faststart", source)
    whole = bytearray(source.read_bytes())
    third = len(whole) // 3
    whole[third : 2 * third] = bytes(third)
    source.write_bytes(whole)
    _, info, _ = restored(tmp_path, source)
    assert f"a.mp4 is damaged: {info['frames']} of 75 frames" in info["problems"][0]


def test_longer_sound_and_cut_clips_are_no_problem(tmp_path):
    long, cut = tmp_path / "long.mkv", tmp_path / "cut.mp4"
    ffmpeg(*PICTURE, "-f", "lavfi", "-i", "sine=duration=6", *H264, long)
    ffmpeg("-ss", "1.1", "-i", long, "-t", "1", "-c:v", "copy", "-an", cut)  # hides frames by an edit list
    for source in (long, cut):
        assert restored(tmp_path, source)[1]["problems"] == []
