"""Colours, the shape of pixels and orientation of a restored video are those of its source."""

import subprocess

import numpy as np
import pytest

from tests.support.samples import SAMPLES, load
from tests.support.videos import H264, PICTURE, ffmpeg, frames_of, luma, needs_ffmpeg, probed, restored, same
from utils.images.codecs import UnreadableError

av = pytest.importorskip("av", reason="videos need PyAV")
pytestmark = [pytest.mark.slow, needs_ffmpeg]

COLOURS = ((200, 40, 30), (30, 180, 60), (40, 60, 210), (225, 190, 120))


def shown(path):
    return subprocess.run(["ffprobe", "-show_streams", path], capture_output=True, check=True, text=True).stdout.split()


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


@pytest.mark.parametrize(
    ("matrix", "range_", "transfer"),
    [
        *((matrix, *rest) for matrix in MATRICES for rest in (("tv", "bt470m"), ("pc", "bt470bg"))),
        *(("bt709", *rest) for rest in (("tv", "bt470bg"), ("pc", "bt470m"))),
    ],
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
