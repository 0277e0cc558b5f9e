"""Frames in: those of a video file as they are displayed, each with its time."""
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOptionalMemberAccess=false
# (PyAV's types lack frames' side data, and what all streams with a codec have)

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.plane import VideoPlane

from utils.images.codecs import UnreadableError

_MATRICES = (1, 4, 5, 6, 7, 9)  # of YUV, by ITU-T H.273: BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020
_OTHER_MATRICES = {0: "GBR", 8: "YCgCo", 10: "BT.2020 with constant luminance", 14: "ICtCp"}
_BT_709, _UNSPECIFIED, _RESERVED, _BT_601 = 1, 2, 3, 6
LIMITED, FULL = 1, 2  # ranges of values
_SCALING = 0x4 | 0x40000 | 0x2000 | 0x4000  # swscale's BICUBIC, ACCURATE_RND, FULL_CHR_H_INT, FULL_CHR_H_INP
_SLACK, _SLACK_FRAMES = 0.01, 2.5  # share of the length, and frames, that may lack at the end


class Frame(NamedTuple):
    """A frame's time and duration (0 if not known) in seconds, and its pixels, H×W×3 uint8 RGB."""

    time: Fraction
    duration: Fraction
    pixels: np.ndarray


def open_video(path: Path) -> InputContainer:
    """Open a video file, or raise `UnreadableError`."""
    try:
        return av.open(str(path.absolute()), metadata_errors="surrogateescape")
    except (OSError, FFmpegError) as error:
        raise UnreadableError(f"{path} cannot be read as a video ({error.strerror}); replace or remove it") from error


def convert(
    frame: av.VideoFrame, size: tuple[int, int], kind: str, matrix: int, ranges: tuple[int, int]
) -> av.VideoFrame:
    """Return a frame of another width and height and kind of pixels, exact to the rounding of values.

    The matrix is that of YUV on either side; ranges are those before and after.
    """
    wide = ranges[1] == FULL and kind.startswith("yuv")
    frame.colorspace, frame.color_range = matrix, ranges[0]
    frame.color_primaries = frame.color_trc = _UNSPECIFIED  # or they would be converted
    result = frame.reformat(*size, f"{kind}16le" * wide or kind, interpolation=_SCALING, dst_color_range=ranges[1])
    return _rounded(result, kind) if wide else result


def _rounded(wide: av.VideoFrame, kind: str) -> av.VideoFrame:
    """Return a frame of full range and 16 bits as one of 8; from 8 bits on, swscale rounds its chroma down."""
    frame = av.VideoFrame(wide.width, wide.height, kind)
    for plane, (source, target) in enumerate(zip(wide.planes, frame.planes, strict=True)):
        values = rows_of(source, np.uint16)[:, : source.width].astype(np.float32)
        rows_of(target)[:, : target.width] = np.rint((values - 32768) / 257 + 128 if plane else values / 257).clip(
            0, 255
        )
    return frame


def rows_of(plane: VideoPlane, dtype: type = np.uint8) -> np.ndarray:
    """Return the rows of a plane of a frame as they are stored, with what fills them up."""
    return np.asarray(memoryview(plane)).view(dtype).reshape(plane.height, -1)


class VideoFile:
    """The frames of a video, as displayed, and what the restored one has to have of it.

    Attributes:
        stream: index of the pictures in the file.
        kind: of its pixels, as FFmpeg calls it, of so many `bits` per channel; `interlaced`: whether it is.
        canvas: a frame of RGB, which names where the chroma of the video lies.
        width: in px as displayed; so are `height` and `aspect`, of a pixel.
        rate: frames a second, the mean where it varies; `time_base` is the unit of their times in seconds.
        count: frames that the file announces, or that its length makes likely; 0 where it tells neither.
        matrix: of YUV, by H.273; `range` is that of the values, and `tags` are matrix, range, primaries and transfer
            function as the file names them.
        decoded: frames, after they were; `bad` of them, or of what should have been some, are not whole.
        ends_early: likewise, whether the file announces more.

    Raises:
        UnreadableError: no video, or one with colours that are not converted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_video(path) as container:
            kinds = set(container.format.name.split(","))
            moving = [each for each in container.streams.video if "attached_pic" not in (each.disposition.name or "")]
            if not moving or container.format.name.endswith("_pipe"):  # a cover; a picture named as a video
                raise UnreadableError(f"{path} cannot be read as a video (nothing moves in it); replace or remove it")
            stream, self.stream = moving[0], moving[0].index
            self._alone = not kinds.isdisjoint(("mov", "avi"))  # their header has the length of each track
            self.rate, self.time_base = stream.average_rate or stream.guessed_rate or Fraction(25), stream.time_base
            if "matroska" in kinds:
                self._length = (container.duration or 0) / 1e6  # other containers guess it
            else:
                length = stream.frames / self.rate if "avi" in kinds else (stream.duration or 0) * stream.time_base
                self._length = float(length) if self._alone else 0.0
            self.count = stream.frames or round(self._length * self.rate)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            first = next(self._decode(container), None)
            if first is None:
                raise UnreadableError(f"{path} holds no frame that can be decoded; replace or remove it")
            # AVI holds the order of decoding alone; times that are guessed from it are wrong.
            self._late = (first.dts or 0) - (stream.start_time or 0) if "avi" in kinds else None
        self.kind, self.bits = first.format.name, max(part.bits for part in first.format.components)
        self.interlaced, self._size = first.interlaced_frame, (first.width, first.height)
        self._turned, self._flipped, self._mirrored = _turns(first)
        self.width, self.height = self._size[::-1] if self._turned else self._size
        self.aspect = 1 / aspect if self._turned else aspect
        tag, is_rgb = first.colorspace, first.format.is_rgb or first.format.has_palette
        guessed = _BT_709 if self._size[0] >= 1280 or self._size[1] >= 720 else _BT_601  # as players do
        self.matrix = guessed if is_rgb or tag in (_UNSPECIFIED, _RESERVED) else tag
        if self.matrix not in _MATRICES:
            name = _OTHER_MATRICES.get(tag, f"matrix {tag} of H.273")
            raise UnreadableError(f"{path} has colours that are not converted ({name}); expected YUV of BT.709 or RGB")
        self.range = FULL if first.color_range == FULL and not is_rgb else LIMITED
        named = (self.matrix, LIMITED) if is_rgb else (tag, first.color_range)
        self.tags = (*named, first.color_primaries, first.color_trc)
        self._source = FULL if is_rgb else self.range
        self.canvas = convert(first, (self.width, self.height), "rgb24", self.matrix, (self._source, FULL))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames from the first one on, as far as they can be decoded."""
        self.decoded, begin, last, between = 0, 0, 0, round(1 / self.rate / self.time_base)
        with open_video(self.path) as container:
            for frame in self._decode(container):
                stamp = frame.pts if self._late is None else frame.dts and frame.dts - self._late
                last = stamp if stamp is not None else last + between if self.decoded else 0
                begin = begin if self.decoded else last
                self.decoded += 1
                rgb = convert(frame, self._size, "rgb24", self.matrix, (self._source, FULL)).to_ndarray()
                rgb = rgb.swapaxes(0, 1) if self._turned else rgb
                rgb = rgb[:: -1 if self._flipped else 1, :: -1 if self._mirrored else 1]
                duration = (frame.duration or 0) * self.time_base
                yield Frame(last * self.time_base, duration, np.ascontiguousarray(rgb))
        if last > begin:
            mean = (self.decoded - 1) / ((last - begin) * self.time_base)
            self.rate = self.rate if 0.9 < mean / self.rate < 1.1 else mean  # headers may state another one
        slack = max(_SLACK_FRAMES / float(self.rate), _SLACK * self._length)
        self.ends_early = self._length - (self._end - self._start) > slack

    def _decode(self, container: InputContainer) -> Iterator[av.VideoFrame]:
        self.bad, self._start, self._end = 0, float("inf") if self._alone else 0.0, 0.0
        for packet in self._packets(container):
            try:
                ours = packet is None or packet.stream_index == self.stream
                frames = container.streams[self.stream].decode(packet) if ours else ()
            except FFmpegError:
                self.bad, frames = self.bad + 1, ()
            for frame in frames:
                self.bad += frame.is_corrupt
                yield frame

    def _packets(self, container: InputContainer) -> Iterator[av.Packet | None]:
        """Yield the packets of all streams, then None, at which a decoder returns what it still holds."""
        try:
            for packet in container.demux():
                counts = packet.stream_index == self.stream or not self._alone
                if counts and packet.pts is not None and not packet.is_discard:
                    self._start = min(self._start, float(packet.pts * packet.time_base))
                    self._end = max(self._end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.size:
                    yield packet
        except FFmpegError:
            self.bad += 1
        yield None


def _turns(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether a frame is displayed with its sides exchanged, then upside down, then mirrored."""
    try:
        across, down, _, aside, below = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)[:5]
    except KeyError:
        return False, False, False
    turned = abs(int(down)) > abs(int(across))
    return turned, bool((down if turned else below) < 0), bool((aside if turned else across) < 0)
