"""Frames out: H.264 with the source's times, colours and shape of pixels, sound, subtitles, chapters and metadata."""
# pyright: reportAttributeAccessIssue=false, reportOptionalOperand=false, reportOperatorIssue=false
# (PyAV's types lack what all streams with a codec have)

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import av
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.stream import Discard, Stream

from utils.video import CONTAINERS
from utils.video.reader import FULL, Frame, VideoFile, convert, open_video, rows_of

_X264 = {"crf": "14", "a53cc": "0"}  # no loss that is seen; not the captions of the frame of which the canvas was made
_AAC_BITS = 160_000  # a second and channel: as much as is of use
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")  # metadata of the source alone
_OF_A_TRACK = ("language", "title", "handler_name")  # of the pictures' metadata; the others count their bytes
_OF_DATA = ("data", "attachment")  # kinds of tracks: a camera's places and movements, pictures of covers
_TRIED = 8  # packets of a track


class _Track:
    """A track of sound or else on its way into a container: copied, or encoded anew where a codec is given."""

    def __init__(self, target: OutputContainer, stream: Stream, codec: str | None, shift: float = 0) -> None:
        self._target, self._stream, self._anew, self.bad = target, stream, codec is not None, 0
        self._shift = round(shift / stream.time_base)
        if codec is None:
            self.out = target.add_stream_from_template(stream)
        else:
            self.out = target.add_stream(codec, rate=stream.rate, layout=stream.layout.name)
            self.out.bit_rate = _AAC_BITS * stream.layout.nb_channels
        self.out.metadata.update(stream.metadata)
        self.out.disposition = stream.disposition

    def add(self, packet: av.Packet | None) -> None:
        """Write a packet; None stands for the end."""
        try:
            frames = self._stream.decode(packet) if self._stream.type == "audio" else []
        except FFmpegError:
            self.bad, frames = self.bad + 1, []
        if self._anew:
            for frame in frames:
                frame.pts = None if frame.pts is None else frame.pts - self._shift
            for frame in frames if packet else [*frames, None]:
                self._target.mux(self.out.encode(frame))
        elif packet:
            packet.pts = None if packet.pts is None else packet.pts - self._shift
            packet.dts = None if packet.dts is None else packet.dts - self._shift
            packet.stream = self.out
            try:
                self._target.mux(packet)
            except (ArgumentError, InvalidDataError):  # its time lies before the last one's, or it is damaged
                self.bad += 1


def _packets(source: InputContainer, streams: list[int]) -> Iterator[av.Packet]:
    """Yield the packets of streams as far as they can be read."""
    try:
        yield from (packet for packet in source.demux(streams) if packet.size)
    except FFmpegError:
        return  # the reader of the frames meets this, too


def _takes(path: Path, stream: Stream, container: str, codec: str | None) -> bool:
    """Try whether a container takes the beginning of a track: some refuse a codec only in the header."""
    try:
        with open_video(path) as source, av.open(io.BytesIO(), "w", container) as target:
            track = _Track(target, source.streams[stream.index], codec)
            target.start_encoding()
            for packet in islice(_packets(source, [stream.index]), _TRIED if stream.type == "audio" else 1):
                track.add(packet)
            track.add(None)
    except Exception:  # of any type, by the container and the codec
        return False
    return True


def _ways(path: Path, stream: Stream, suffix: str, log: Callable[[str], None]) -> list[str | None]:
    """Return how a track goes into a container: [None] is copied, [codec] encoded, [] left out; with a line."""
    codec = stream.codec_context and stream.codec_context.codec
    name = f"{codec.name if codec else ''} {'sound' if stream.type == 'audio' else stream.type}".strip()
    anew = [*(["flac" if suffix == ".mkv" else "alac"] if codec and codec.lossless else []), "aac"]
    for way in {"audio": [None, *anew], "video": []}.get(stream.type, [None]):
        if _takes(path, stream, CONTAINERS[suffix], way):
            if way:
                loss = "" if way == "aac" else " without loss"
                log(f"{path}: {suffix} takes no {name}, which is encoded as {way.upper()}{loss}")
            return [way]
    why = "is not the first" if stream.type == "video" else f"can neither be copied into {suffix} nor decoded"
    log(f"{path}: its {name} {why}, and is omitted")
    return []


@contextmanager
def video_writer(
    path: Path,
    video: VideoFile,
    log: Callable[[str], None],
    damaged: Callable[[str], None],
    strip_metadata: bool = False,
) -> Iterator[Callable[[Frame], None]]:
    """Yield a function that takes the restored frames in their order; the video is complete at the end of the block.

    Args:
        path: with a suffix as `output_name` gives it.
        video: what it is made of.
        log: gets a line on each track that is not copied.
        damaged: gets one on each that is.
        strip_metadata: keep no metadata but the languages of tracks, and no tracks of data.
    """
    options, size = {"movflags": "use_metadata_tags"}, (video.width, video.height)
    errors = "surrogateescape"
    target = av.open(
        str(path.absolute()), "w", CONTAINERS[path.suffix], container_options=options, metadata_errors=errors
    )
    with open_video(video.path) as source, target:
        out = target.add_stream("libx264", rate=video.rate, time_base=video.time_base, options=_X264)
        (out.width, out.height), context = size, out.codec_context
        out.pix_fmt = kind = "yuv444p" if out.width % 2 or out.height % 2 else "yuv420p"
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = video.tags
        context.sample_aspect_ratio = video.aspect
        context.flags |= Flags.frame_duration  # or the last frame would get that of the rate
        pictures = source.streams[video.stream]
        out.metadata.update({key: text for key, text in pictures.metadata.items() if key in _OF_A_TRACK})
        out.disposition = pictures.disposition
        target.metadata.update({key: text for key, text in source.metadata.items() if key not in _OF_THE_FILE})
        target.set_chapters(source.chapters())
        # Players begin at 0: what is shown before it would be cut off.
        start = (source.start_time or 0) / 1e6
        shift = min(start, 0) if path.suffix == video.path.suffix.lower() else start
        tracks = {
            stream.index: _Track(target, stream, way, shift)
            for stream in source.streams
            if stream.index != video.stream and stream.discard != Discard.all  # the list of chapters
            if not (strip_metadata and stream.type in _OF_DATA)
            for way in _ways(video.path, stream, path.suffix, log)
        }
        others, last = _packets(source, list(tracks)) if tracks else iter(()), None
        for each in (target, out, *(track.out for track in tracks.values())) if strip_metadata else ():
            for key in set(each.metadata) - {"language"}:
                del each.metadata[key]
        target.start_encoding()

        def copy(until: float) -> None:
            for packet in others:
                tracks[packet.stream_index].add(packet)
                if packet.dts is not None and packet.dts * packet.time_base > until:
                    return

        def add(frame: Frame) -> None:
            nonlocal last
            copy(float(frame.time) - shift)
            rows_of(video.canvas.planes[0])[:, : 3 * video.width] = frame.pixels.reshape(video.height, -1)
            coded = convert(video.canvas, size, kind, video.matrix, (FULL, video.range))
            coded.pict_type = 0  # not that of the frame of which the canvas was made
            stamp = round((frame.time - shift) / video.time_base)
            last = stamp if last is None else max(stamp, last + 1)
            coded.pts, coded.duration, coded.time_base = last, round(frame.duration / video.time_base), video.time_base
            target.mux(out.encode(coded))

        yield add
        target.mux(out.encode(None))
        copy(float("inf"))
        for index, track in tracks.items():
            track.add(None)
            if track.bad:
                damaged(f"{video.path}: its track {index} is damaged, and was kept as far as it can be decoded")
