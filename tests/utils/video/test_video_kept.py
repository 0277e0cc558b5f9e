"""What a restored video keeps of its source: sound, colours, frame times, metadata; and messages on the rest."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import SAMPLES, load
from tests.support.videos import (
    H264,
    PICTURE,
    TONE,
    ffmpeg,
    frames_of,
    luma,
    needs_ffmpeg,
    probed,
    restored,
    same,
    times,
)
from utils.images.codecs import UnreadableError

av = pytest.importorskip("av", reason="videos need PyAV")
pytestmark = [pytest.mark.slow, needs_ffmpeg]

COLOURS = ((200, 40, 30), (30, 180, 60), (40, 60, 210), (225, 190, 120))


def shown(path):
    return subprocess.run(["ffprobe", "-show_streams", path], capture_output=True, check=True, text=True).stdout.split()


def samples(path):
    return ffmpeg("-i", path, "-map", "0:a", "-f", "s32le", "-")


# Sound


@pytest.mark.parametrize(
    ("name", "coded", "expected"),
    [
        ("a.mov", ("pcm_s16le",), "pcm_s16le"),
        ("a.mov", ("flac", "-f", "matroska"), "alac"),  # FFmpeg goes by the content, not by the name
        ("a.mp4", ("pcm_s16le", "-f", "mov"), "pcm_s16le"),
        ("a.m4v", ("pcm_s24le", "-f", "mov"), "alac"),
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


def test_sound_that_is_neither_copied_nor_decoded_is_left_out_with_a_line(tmp_path):
    source = tmp_path / "a.mkv"
    ffmpeg(*PICTURE, *TONE, *H264, "-c:a", "pcm_s16le", source)
    content = source.read_bytes()
    source.write_bytes(content.replace(b"A_PCM/INT/LIT", b"A_PCM/XXX/XXX"))
    output, info, lines = restored(tmp_path, source)
    assert lines == [f"{source}: its sound can neither be copied into .mkv nor decoded, and is omitted"]
    assert (probed(output, "stream=codec_name", "a"), info["frames"], info["problems"]) == ([], 75, [])


@pytest.mark.parametrize("name", ["a.mp4", "a.m4v"])  # copied; encoded
def test_damaged_sound_stays_as_far_as_it_can_be_decoded_and_is_listed(tmp_path, name):
    source = tmp_path / name
    ffmpeg(*PICTURE, *TONE, *H264, "-c:a", *(("aac",) if name == "a.mp4" else ("libopus", "-f", "mp4")), source)
    sound = [tuple(map(int, line.split(",")[:2])) for line in probed(source, "packet=size,pos", "a")]
    content = bytearray(source.read_bytes())
    for size, position in sound[40:50]:
        content[position : position + size] = b"\xff" * size
    source.write_bytes(content)
    output, info, _ = restored(tmp_path, source)
    assert f"{name}: its track 1 is damaged, and was kept as far as it can be decoded" in info["problems"][0]
    assert info["frames"] == 75
    assert len(samples(output)) > 0.8 * 3 * 44100 * 4


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
    assert probed(output, entries) == probed(source, entries)
    assert matrix in probed(output, entries)[0] or not tagged


FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
MATRICES = {"bt709": "bt709", "smpte170m": "bt601", "bt2020nc": "bt2020", "fcc": "fcc", "smpte240m": "smpte240m"}


def gopro(path, matrix, range_, transfer, *options):
    """Write the bundled frames, each moving a little, as a video of these colours."""
    frames = [
        load(file)[8 * i : 8 * i + 192, 8 * i : 8 * i + 320] for file in sorted(SAMPLES.rglob("*.png")) for i in (0, 1)
    ]
    raw = path.with_suffix(".rgb")
    raw.write_bytes(np.ascontiguousarray(frames).tobytes())
    convert = f"scale=out_color_matrix={MATRICES.get(matrix, 'bt709')}:out_range={range_}:flags={FLAGS},format=yuv420p"
    tags = f"colormatrix={matrix}:transfer={transfer}:colorprim=bt709:range={range_}"
    shape = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "320x192")
    ffmpeg(*shape, "-i", raw, "-vf", convert, *H264, "-crf", 12, "-x264-params", tags, *options, path)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("range_", "transfer"), [("tv", "bt470m"), ("pc", "bt470bg"), ("tv", "bt470bg"), ("pc", "bt470m")]
)
def test_real_frames_stay_within_a_fraction_of_a_level(tmp_path, matrix, range_, transfer):
    """As x264 names them, bt470m is gamma 2.2 and bt470bg 2.8; the table in docs/fidelity.md is of larger frames."""
    source = tmp_path / "a.mp4"
    gopro(source, matrix, range_, transfer)
    output, _, lines = restored(tmp_path, source)
    entries = "stream=pix_fmt,color_range,color_space,color_transfer,color_primaries"
    assert probed(output, entries) == probed(source, entries)
    assert f"{range_},{matrix},{transfer},bt709" in probed(output, entries)[0]
    difference = luma(output) - luma(source)
    assert np.square(difference).mean() < 255**2 / 10**4.5  # 45 dB
    assert abs(difference.mean()) < 0.25
    assert lines == []


@pytest.mark.parametrize(
    ("matrix", "found"), [("YCgCo", "YCgCo"), ("bt2020c", "BT.2020 with constant luminance"), ("ictcp", "ICtCp")]
)
def test_colours_that_are_not_converted_are_skipped_by_name(tmp_path, matrix, found):
    gopro(tmp_path / "a.mp4", matrix, "tv", "bt709", "-t", "0.1")
    with pytest.raises(UnreadableError, match=f"a.mp4 has colours that are not converted .{found}.; expected YUV"):
        restored(tmp_path, tmp_path / "a.mp4")


@pytest.mark.parametrize("source_format", ["yuv444p", "rgb24"])
def test_odd_sides_stay_in_h264_of_444(tmp_path, source_format):
    source = tmp_path / "odd.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=95x71:r=25:d=0.2",
        "-pix_fmt",
        source_format,
        "-c:v",
        "ffv1" if source_format == "yuv444p" else "png",
        source,
    )
    output, info, lines = restored(tmp_path, source)
    assert (info["height"], info["width"]) == (71, 95)
    assert probed(output, "stream=pix_fmt,width,height") == ["95,71,yuv444p"]
    assert "95×71 px need H.264 of 4:4:4" in lines[0]
    assert [line for line in lines[1:] if "its 8 bits per channel (rgb24) become 8 of YUV 4:4:4" in line] == lines[1:]
    assert len(lines) == 1 + (source_format == "rgb24")
    for after, before in zip(frames_of(output), frames_of(source), strict=True):
        assert np.abs(after.astype(float) - before).mean() < 2


@pytest.mark.parametrize(("name", "coded"), [("a.mp4", H264), ("a.mkv", H264), ("a.avi", ("-c:v", "mpeg4"))])
def test_the_shape_of_pixels_stays(tmp_path, name, coded):
    source = tmp_path / name
    ffmpeg(*PICTURE, "-t", "0.2", "-vf", "setsar=128/117:max=1000", *coded, source)
    output, *_ = restored(tmp_path, source)
    assert probed(output, "stream=sample_aspect_ratio") == probed(source, "stream=sample_aspect_ratio") == ["128:117"]


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
    first, expected = frames_of(output)[0], np.rot90(frames_of(upright)[0], quarters_left)
    assert np.abs(first.astype(float) - expected).mean() < 5


@pytest.mark.parametrize(
    "matrix", [(1, 0, 0, -1), (-1, 0, 0, 1), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, -1, 0), (-1, 0, 0, -1)]
)
def test_turned_and_mirrored_as_the_display_matrix_says(tmp_path, matrix):
    """Pixel (x, y) is displayed at (ax + cy, bx + dy), moved into the picture."""
    (a, b, c, d), upright, source = matrix, tmp_path / "upright.mp4", tmp_path / "turned.mp4"
    ffmpeg("-f", "lavfi", "-i", "smptebars=s=96x72:r=25:d=0.1", *H264, "-qp", "0", upright)
    with av.open(str(upright)) as file, av.open(str(source), "w") as target:
        out = target.add_stream_from_template(file.streams.video[0], opaque=True)
        out.set_display_matrix([value << 16 for value in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30])
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = out
                target.mux(packet)
    stored, output = frames_of(upright)[0], restored(tmp_path, source)[0]
    y, x = np.indices(stored.shape[:2])
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    expected = np.zeros((down.max() + 1, across.max() + 1, 3))
    expected[down, across] = stored
    assert np.abs(frames_of(output)[0] - expected).mean() < 5
    assert "rotation" not in " ".join(shown(output))


def test_more_than_8_bits_are_reported(tmp_path):
    source = tmp_path / "hdr.mkv"
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    ffmpeg(*PICTURE, "-t", "0.2", "-pix_fmt", "yuv420p10le", "-c:v", "ffv1", *tags, source)
    output, _, lines = restored(tmp_path, source)
    assert len(lines) == 1
    assert "its 10 bits per channel of high dynamic range (PQ) (yuv420p10le) become 8 of YUV 4:2:0" in lines[0]
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


def test_a_broadcast_begins_at_0_and_keeps_sound_and_pictures_together(tmp_path):
    source = tmp_path / "a.ts"
    ffmpeg(*PICTURE, *TONE, *H264, "-c:a", "aac", "-output_ts_offset", "5000", source)
    output, info, _ = restored(tmp_path, source)
    assert (info["frames"], info["problems"]) == (75, [])
    for stream in ("v:0", "a:0"):
        assert np.allclose(
            times(output, stream), np.array(times(source, stream)) - times(source)[0] + times(output)[0], atol=0.0011
        )
    assert 0 <= min(times(output)[0], times(output, "a:0")[0]) < 0.002


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


# What else is in the file


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_tracks_subtitles_chapters_and_metadata_stay(tmp_path, name):
    (tmp_path / "s.srt").write_text(
        "1\n00:00:00,100 --> 00:00:01,000\nHello\n\n2\n00:00:01,500 --> 00:00:02,000\nWorld\n"
    )
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n"
        for start, end, title in ((0, 1000, "one"), (1000, 3000, "two"))
    )
    (tmp_path / "meta").write_text(f";FFMETADATA1\ntitle=Übung\nartist=Me\nlocation=+48.1000+011.5000/\n{chapters}")
    source, codec = tmp_path / name, "mov_text" if name == "a.mp4" else "srt"
    maps = ("-map", "0", "-map", "1", "-map", "1", "-map", "2", "-map_metadata", "3", "-map_chapters", "3")
    languages = ("-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=eng", "-metadata:s:s", "language=fra")
    tags = ("-metadata", "creation_time=2024-05-06T07:08:09Z")
    inputs = ("-i", tmp_path / "s.srt", "-f", "ffmetadata", "-i", tmp_path / "meta")
    ffmpeg(*PICTURE, *TONE, *inputs, *maps, *H264, "-c:a", "aac", "-c:s", codec, *languages, *tags, source)
    output, _, lines = restored(tmp_path, source)

    def content(path):
        command = [
            "ffprobe",
            "-v",
            "error",
            "-show_format",
            "-show_streams",
            "-show_chapters",
            "-of",
            "json",
            str(path),
        ]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        tags = {key.lower(): text for key, text in found["format"]["tags"].items()}
        chapters = [(each["start_time"], each["end_time"], each["tags"]["title"]) for each in found["chapters"]]
        tracks = [(each["codec_name"], each["tags"].get("language")) for each in found["streams"][1:4]]
        return [tags.get(key) for key in ("title", "artist", "location", "creation_time")], chapters, tracks

    assert content(output) == content(source)
    assert content(output)[0] == ["Übung", "Me", "+48.1000+011.5000/", "2024-05-06T07:08:09.000000Z"]
    assert [len(each) for each in content(output)[1:]] == [2, 3]
    assert lines == []
    for stream in ("a:0", "a:1", "s:0"):
        assert times(output, stream) == times(source, stream)
        as_stored = ("-map", f"0:{stream}", "-c", "copy", "-f", "md5", "-")
        assert ffmpeg("-i", output, *as_stored) == ffmpeg("-i", source, *as_stored)


def test_quicktimes_place_and_date_stay(tmp_path):
    place, date = (
        "com.apple.quicktime.location.ISO6709=+48.1+011.5/",
        "com.apple.quicktime.creationdate=2024-05-06T09:08:09+0200",
    )
    source = tmp_path / "a.mov"
    ffmpeg(
        *PICTURE, "-t", "0.2", *H264, "-movflags", "use_metadata_tags", "-metadata", place, "-metadata", date, source
    )
    output, *_ = restored(tmp_path, source)
    with av.open(str(output)) as file:
        assert {f"{key}={text}" for key, text in file.metadata.items()} >= {place, date}


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
    assert f"{name} ends early: {info['frames']} of 7" in info["problems"][0]
    assert output.exists()


def test_a_file_with_a_hole_is_reported(tmp_path):
    source = tmp_path / "a.mp4"
    ffmpeg(*PICTURE, *H264, "-g", "15", "-movflags", "+faststart", source)
    whole = bytearray(source.read_bytes())
    third = len(whole) // 3
    whole[third : 2 * third] = bytes(third)
    source.write_bytes(whole)
    _, info, _ = restored(tmp_path, source)
    assert f"a.mp4 is damaged: {info['frames']} of 75 frames can be decoded, and " in info["problems"][0]


def test_longer_sound_and_cut_clips_are_no_problem(tmp_path):
    long, cut = tmp_path / "long.mkv", tmp_path / "cut.mp4"
    ffmpeg(*PICTURE, "-f", "lavfi", "-i", "sine=duration=6", *H264, long)
    ffmpeg("-ss", "1.1", "-i", long, "-t", "1", "-c:v", "copy", "-an", cut)  # hides frames by an edit list
    for source in (long, cut):
        assert restored(tmp_path, source)[1]["problems"] == []
