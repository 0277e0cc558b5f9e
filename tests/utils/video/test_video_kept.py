"""What a restored video keeps of its source: sound, colours, frame times, metadata; and messages on the rest."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.videos import (
    H264,
    PICTURE,
    TONE,
    ffmpeg,
    needs_ffmpeg,
    probed,
    restored,
    times,
)

av = pytest.importorskip("av", reason="videos need PyAV")
pytestmark = [pytest.mark.slow, needs_ffmpeg]


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
    languages = (
        "-metadata:s:a:0",
        "language=deu",
        "-metadata:s:a:1",
        "language=eng",
        "-metadata:s:s",
        "language=fra",
        "-metadata:s:v",
        "language=ita",
    )
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
        tracks = [(each["codec_name"], each["tags"].get("language")) for each in found["streams"][:4]]
        return [tags.get(key) for key in ("title", "artist", "location", "creation_time")], chapters, tracks

    assert content(output) == content(source)
    assert content(output)[0] == ["Übung", "Me", "+48.1000+011.5000/", "2024-05-06T07:08:09.000000Z"]
    assert [len(each) for each in content(output)[1:]] == [2, 4]
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


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_stripped_videos_keep_languages_alone(tmp_path, name):
    source, tags = tmp_path / name, ("location=+48.1+011.5/", "title=Beach", "creation_time=2024-05-06T07:08:09Z")
    tracks = ("-metadata:s:v", "title=Ours", "-metadata:s:a", "title=Voices", "-metadata:s:a", "language=deu")
    named = [text for tag in tags for text in ("-metadata", tag)]
    ffmpeg(*PICTURE, *TONE, "-t", "0.2", *H264, "-movflags", "use_metadata_tags", *named, *tracks, source)
    output, *_ = restored(tmp_path, source, strip_metadata=True)
    with av.open(str(output)) as file:
        assert file.streams.audio[0].metadata["language"] == "deu"
    content = output.read_bytes()
    assert not [text for text in (b"48.1", b"Beach", b"2024", b"Ours", b"Voices") if text in content]
    assert b"48.1" in source.read_bytes()


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
