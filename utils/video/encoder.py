"""Encoding videos: by ffmpeg as H.264 with the source's frame times, colours and sound, or by OpenCV without it."""

import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from utils.common.errors import UserError
from utils.video.probe import Probe, Sound, file_url, have_ffmpeg, keep_times
from utils.video.reader import SCALING, VideoFile

_QUALITY = "14"  # x264's constant rate factor: no loss that is seen
_TICKS = 1_000_000  # a second
_LOSSLESS = ("pcm_", "flac", "alac", "wavpack", "truehd", "mlp", "tta", "ape")
_AAC_BITS = "320k"  # of stereo; as much as is of use
_KEPT = (".mp4", ".mov", ".m4v", ".mkv")  # containers that take the restored video


def output_name(path: Path) -> str:
    """Return the restored video's name: that of the source, in its container where that takes H.264, else in .mkv."""
    if not have_ffmpeg():
        return f"{path.stem}.mp4"
    return f"{path.stem}{path.suffix.lower() if path.suffix.lower() in _KEPT else '.mkv'}"


class Encoder(AbstractContextManager, ABC):
    """Takes frames in order and writes a video."""

    @abstractmethod
    def add(self, seconds: float, frame: np.ndarray) -> None:
        """Take the H×W×3 uint8 RGB frame that is shown so many seconds from the start."""


class OpenCVEncoder(Encoder):
    """Writes MPEG-4 at a constant rate without sound; sides of an odd length are one px longer.

    Args:
        path: of the video.
        source: what it is made of.
        height: of its frames in px.
        width: of its frames in px.

    Raises:
        UserError: OpenCV cannot write it.
    """

    def __init__(self, path: Path, source: VideoFile, height: int, width: int) -> None:
        self._odd = height % 2, width % 2
        size = width + width % 2, height + height % 2
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), float(source.rate), size)
        if not self._writer.isOpened():
            raise UserError(f"OpenCV cannot write {path}; install ffmpeg, or give a --save_dir on another disk")

    def add(self, seconds: float, frame: np.ndarray) -> None:
        """Take a frame, see `Encoder`."""
        bottom, right = self._odd
        padded = np.pad(frame[..., ::-1], ((0, bottom), (0, right), (0, 0)), mode="edge")
        self._writer.write(np.ascontiguousarray(padded))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.release()


class FfmpegEncoder(Encoder):
    """Writes H.264 with the source's frame times, colours, shape of pixels and sound.

    Args:
        path: of the video.
        source: what it is made of.
        height: of its frames in px.
        width: of its frames in px.
        start: seconds from the source's start at which its first frame is shown.
        log: gets a line on sound that has to be encoded again.

    Raises:
        UserError: ffmpeg cannot write it.
    """

    def __init__(
        self, path: Path, source: VideoFile, height: int, width: int, start: float, log: Callable[[str], None]
    ) -> None:
        self._last = -1
        found = source.probe
        assert found is not None  # ffmpeg is here, and so is ffprobe
        colours = found.colours
        matrix, odd = colours.scale_matrix, height % 2 or width % 2
        pixels = "yuv444p" if odd else "yuv420p"
        tags = {"colorspace": colours.matrix, "color_primaries": colours.primaries, "color_trc": colours.transfer}
        tags = {name: value for name, value in tags.items() if value}
        # For both frames and encoder, since versions of ffmpeg differ in which of them they use.
        tag_options = "".join(f":{name}={value}" for name, value in tags.items())
        filters = (
            f"scale=out_color_matrix={matrix}:out_range={colours.range}:{SCALING},format={pixels},"
            f"setparams=range={colours.range}{tag_options},setsar={found.aspect.numerator}/{found.aspect.denominator}"
        )
        rate = f"{found.rate.numerator}/{found.rate.denominator}"
        name, passthrough = keep_times()
        times = [name, "cfr", "-r", rate] if found.constant else [name, passthrough, "-enc_time_base", f"1:{_TICKS}"]
        options = [f"-{name}" for name in tags]
        tagged = [text for pair in zip(options, tags.values(), strict=True) for text in pair]
        offset = 0 if found.constant else start  # ffmpeg lets every input begin at 0
        command = [
            "ffmpeg", "-loglevel", "error", "-y", "-itsoffset", f"{offset:.6f}", "-f", "matroska", "-i", "pipe:0",
            "-i", file_url(source.path), "-map", "0:v", *_sound_options(found, source.path, path.suffix, log),
            "-map_metadata", "1",
            "-vf", filters, *times, "-c:v", "libx264", "-crf", _QUALITY, "-color_range", colours.range, *tagged,
            file_url(path),
        ]  # fmt: skip
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._messages)
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        self._send(_matroska_header(height, width, float(found.rate)))

    def add(self, seconds: float, frame: np.ndarray) -> None:
        """Take a frame, see `Encoder`."""
        self._last = max(round(seconds * _TICKS), self._last + 1)
        self._send(_matroska_frame(self._last, frame))

    def _send(self, data: bytes) -> None:
        try:
            self._pipe.write(data)
        except BrokenPipeError:
            self._raise_failure()

    def _raise_failure(self) -> None:
        self._process.wait()
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        raise UserError(f"ffmpeg could not write the video: {lines[-1] if lines else 'no reason given'}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(BrokenPipeError):  # its message is read below
                self._pipe.close()
            if kind is None and self._process.wait():
                self._raise_failure()
        finally:
            self._process.kill()
            self._process.wait()
            self._messages.close()


def _sound_options(found: Probe, source: Path, suffix: str, log: Callable[[str], None]) -> list[str]:
    """Return ffmpeg's options for the sound tracks: copied where the container takes them, else encoded again."""
    options: list[str] = []
    for sound in found.sounds:
        lossless = sound.codec.startswith(_LOSSLESS)
        again = [["flac" if suffix == ".mkv" else "alac"]] if lossless else []
        again += [["aac", "-b:a", _AAC_BITS]]
        fitting = next((each for each in (["copy"], *again) if _takes(source, sound, suffix, each)), None)
        if fitting is None:
            log(f"{source}: its {sound.codec} sound can neither be copied into {suffix} nor decoded, and is omitted")
            continue
        if fitting != ["copy"]:
            loss = "" if fitting[0] == "aac" else " without loss"
            log(f"{source}: {suffix} takes no {sound.codec} sound, which is encoded as {fitting[0].upper()}{loss}")
        index = options.count("-map")
        codec, *more = fitting
        options += ["-map", f"1:{sound.stream}", f"-c:a:{index}", codec]
        options += [f"-b:a:{index}", more[1]] if more else []
    return options


def _takes(source: Path, sound: Sound, suffix: str, codec: Sequence[str]) -> bool:
    """Try whether a container takes the beginning of a sound track."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "ffmpeg", "-loglevel", "quiet", "-nostdin", "-i", file_url(source), "-map", f"0:{sound.stream}",
            "-c:a", *codec, "-t", "0.2", file_url(Path(folder) / f"sound{suffix}"),
        ]  # fmt: skip
        return not subprocess.run(command, check=False).returncode


# Raw frames in Matroska: of what ffmpeg reads from a pipe the simplest that gives each frame a time.


def _matroska_header(height: int, width: int, rate: float) -> bytes:
    """Return what comes before the frames: a stream of unknown length, with a track of raw RGB."""
    colours = _number("B0", width) + _number("BA", height) + _element("2EB524", b"RGB\x18")
    track = _number("D7", 1) + _number("73C5", 1) + _number("83", 1) + _element("86", b"V_UNCOMPRESSED")
    track += _number("23E383", round(1e9 / rate))
    track = _element("AE", track + _element("E0", colours))
    info = _element("1549A966", _number("2AD7B1", 10**9 // _TICKS))
    endless = bytes.fromhex("1853806701FFFFFFFFFFFFFF")
    return _element("1A45DFA3", _element("4282", b"matroska")) + endless + info + _element("1654AE6B", track)


def _matroska_frame(time: int, frame: np.ndarray) -> bytes:
    """Return a frame at a time in ticks, as a cluster of its own."""
    return _element("1F43B675", _number("E7", time) + _element("A3", b"\x81\0\0\x80" + frame.tobytes()))


def _element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))
