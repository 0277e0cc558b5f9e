"""Properties of a video by ffprobe, before it is decoded: its size, frame times, colours and sound tracks."""

import functools
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from utils.images.codecs import UnreadableError

_HD_WIDTH, _HD_HEIGHT = 1280, 720  # from here on untagged video is taken for BT.709, as players do
_MATRICES = {  # ffprobe's names and those of ffmpeg's filter `scale`; RGB sources (gbr) have none
    "bt709": "bt709",
    "fcc": "fcc",
    "bt470bg": "bt470",
    "smpte170m": "smpte170m",
    "smpte240m": "smpte240m",
    "bt2020nc": "bt2020",
}
_HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
_CONTAINERS_WITH_LENGTH = (
    "mov",
    "mp4",
    "matroska",
    "webm",
    "avi",
)  # in a header; of others it is guessed from what is there
_SLACK = 0.01  # of a video's length that may lack at its end unsaid, and
_SLACK_FRAMES = 2.5


@dataclass(frozen=True)
class Colours:
    """The colour encoding of a video, in ffmpeg's names; None if the file does not specify it."""

    matrix: str
    full_range: bool
    primaries: str | None
    transfer: str | None

    @property
    def scale_matrix(self) -> str:
        """Return the matrix as ffmpeg's filter `scale` names it."""
        return _MATRICES[self.matrix]

    @property
    def range(self) -> str:
        """Return the range's name."""
        return "pc" if self.full_range else "tv"


@dataclass(frozen=True)
class Sound:
    """A sound track: its stream in the file, and its codec."""

    stream: int
    codec: str


@dataclass(frozen=True)
class Probe:
    """A video as ffprobe describes it.

    Attributes:
        stream: of the pictures, in the file.
        height: in px as displayed.
        width: in px as displayed.
        aspect: of a pixel, as displayed.
        rate: frames a second, the mean where it varies.
        constant: whether the frames stand at that rate from the start on.
        count: frames that the file announces, or that its length makes likely.
        counted: whether the file itself states the number of frames that can be decoded.
        last: seconds from the start at which its last frame is due; None where that is not certain.
        cut: whether the file holds less than it announces.
        colours: what its values stand for.
        bits: a channel.
        hdr: whether the colours are of high dynamic range.
        interlaced: whether a frame is of two moments, line by line.
        sounds: its sound tracks.
    """

    stream: int
    height: int
    width: int
    aspect: Fraction
    rate: Fraction
    constant: bool
    count: int
    counted: bool
    last: float | None
    cut: bool
    colours: Colours
    bits: int
    hdr: bool
    interlaced: bool
    sounds: tuple[Sound, ...]

    def slack(self) -> float:
        """Return how many seconds may lack at the end unsaid."""
        return max(_SLACK_FRAMES / float(self.rate), _SLACK * self.count / float(self.rate))


def have_ffmpeg() -> bool:
    """Return whether ffmpeg and ffprobe are installed."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


@functools.cache
def keep_times() -> tuple[str, str]:
    """Return the option that lets ffmpeg neither drop nor double frames, whose name depends on its version."""
    found_by_probe = subprocess.run(["ffmpeg", "-hide_banner", "-h", "long"], capture_output=True, check=False).stdout
    return ("-fps_mode" if b"-fps_mode" in found_by_probe else "-vsync"), "passthrough"


def file_url(path: Path) -> str:
    """Return a path such that ffmpeg takes it neither for an option nor, with a colon, for another protocol."""
    return f"file:{path.absolute()}"


def probe(path: Path) -> Probe:
    """Describe a video; the file is read once, not decoded.

    Raises:
        UnreadableError: no video, or one without frame rate or size.
    """
    found_by_probe = json.loads(_ffprobe(path, "-show_streams", "-show_format", "-of", "json") or "{}")
    streams = found_by_probe.get("streams", [])
    pictures = [
        each
        for each in streams
        if each.get("codec_type") == "video" and not each.get("disposition", {}).get("attached_pic")
    ]
    rates = [rate for name in ("avg_frame_rate", "r_frame_rate") if pictures and (rate := _ratio(pictures[0], name))]
    if not rates or not pictures[0].get("width") or not pictures[0].get("height"):
        raise UnreadableError(f"{path} cannot be read as a video; replace or remove it")
    stream = pictures[0]
    height, width, aspect = stream["height"], stream["width"], _ratio(stream, "sample_aspect_ratio") or Fraction(1)
    if _turned(stream):
        height, width, aspect = width, height, 1 / aspect
    rate = rates[0].limit_denominator(1001)
    times, dropped, span = _packets(path, stream["index"])
    start, length = (_seconds(found_by_probe["format"].get(name)) for name in ("start_time", "duration"))
    times = [time - start for time in times]
    constant = _constant(times, rate, float(_ratio(stream, "time_base") or 0))
    if not constant and times[-1] > times[0]:
        mean = Fraction(len(times) - 1) / Fraction(times[-1] - times[0])
        rate = rate if 0.9 < mean / rate < 1.1 else mean.limit_denominator(1001)  # headers may state another one
    announced = _number(stream.get("nb_frames")) - dropped
    has_length = not set(_CONTAINERS_WITH_LENGTH).isdisjoint(found_by_probe["format"]["format_name"].split(","))
    likely = round((length - min(times, default=0)) * rate) if has_length else len(times)
    # AVI also counts frames that were dropped, and a picture of two fields may be counted twice.
    whole_pictures = stream.get("field_order", "unknown") in ("progressive", "unknown")
    counted = announced > 0 and whole_pictures and "avi" not in found_by_probe["format"]["format_name"]
    found = Probe(
        stream["index"],
        height,
        width,
        aspect,
        rate,
        constant,
        announced if announced > 0 else max(likely, 0),
        counted,
        max(times, default=None) if has_length else None,
        False,
        _colours(stream),
        _bits(stream),
        stream.get("color_transfer") in _HDR_TRANSFERS,
        not whole_pictures,
        tuple(
            Sound(each["index"], each.get("codec_name", "unknown"))
            for each in streams
            if each.get("codec_type") == "audio"
        ),
    )
    cut = has_length and span is not None and length - span > found.slack()
    return Probe(**{**vars(found), "cut": cut})


def _ffprobe(path: Path, *options: str) -> str:
    command = ["ffprobe", "-v", "error", *options, file_url(path)]
    return subprocess.run(command, capture_output=True, check=False).stdout.decode(errors="replace")


def _ratio(stream: dict[str, Any], name: str) -> Fraction | None:
    numerator, _, denominator = stream.get(name, "").replace(":", "/").partition("/")
    ratio = Fraction(_number(numerator), _number(denominator) or 1)
    return ratio if ratio > 0 and _number(denominator) > 0 else None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _seconds(text: str | None) -> float:
    return float(text) if text and text != "N/A" else 0.0


def _turned(stream: dict[str, Any]) -> bool:
    """Return whether the picture is displayed turned by a quarter."""
    turns = [each["rotation"] for each in stream.get("side_data_list", ()) if "rotation" in each]
    turn = turns[0] if turns else stream.get("tags", {}).get("rotate", 0)
    return round(float(turn)) % 180 == 90


def _packets(path: Path, stream: int) -> tuple[list[float], int, float | None]:
    """Return the times at which frames of a stream are shown, how many are not, and how long all streams last."""
    fields = "packet=stream_index,pts_time,duration_time,flags"
    times: list[float] = []
    dropped, complete = 0, True
    first, end = float("inf"), float("-inf")
    for line in _ffprobe(path, "-show_entries", fields, "-of", "csv=p=0").splitlines():
        values = line.split(",")
        if len(values) < 4 or not values[0].isdigit():
            continue
        if "D" in values[3]:  # before or behind the part that an edit list shows
            dropped += int(values[0]) == stream
            continue
        try:
            time = float(values[1])
        except ValueError:
            complete = complete and int(values[0]) != stream
            continue
        first = min(first, time)
        end = max(end, time + (float(values[2]) if values[2] != "N/A" else 0))
        if int(values[0]) == stream:
            times.append(time)
    return sorted(times) if complete else [], dropped, end - first if end > first else None


def _constant(times: list[float], rate: Fraction, tick: float) -> bool:
    """Return whether frames follow one another from 0 on at a rate, but for the rounding of their times to ticks."""
    frame = 1 / float(rate)
    slack = min(1.01 * tick + 2e-6, frame / 2)
    even = all(abs(time - times[0] - i * frame) <= slack for i, time in enumerate(times))
    return not times or (even and times[0] < frame / 2)


def _colours(stream: dict[str, Any]) -> Colours:
    full = stream.get("color_range") == "pc" or stream.get("pix_fmt", "").startswith("yuvj")
    primaries, transfer = (_known(stream.get(name)) for name in ("color_primaries", "color_transfer"))
    if (matrix := stream.get("color_space")) not in _MATRICES:
        hd = stream["width"] >= _HD_WIDTH or stream["height"] >= _HD_HEIGHT
        matrix = "bt709" if hd else "smpte170m"
        primaries, transfer = primaries or matrix, transfer or matrix
    return Colours(matrix, full, primaries, transfer)


def _known(value: str | None) -> str | None:
    return None if value in (None, "unknown", "unspecified", "reserved") else value


def _bits(stream: dict[str, Any]) -> int:
    named = re.search(r"(9|10|12|14|16|48|64)(le|be)$", stream.get("pix_fmt", ""))
    bits = {48: 16, 64: 16}.get(int(named[1]), int(named[1])) if named else 8
    return max(bits, _number(stream.get("bits_per_raw_sample")))
