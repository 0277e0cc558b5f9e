"""Decoding videos: by ffmpeg, which knows their colours and frame times, or by OpenCV where ffmpeg is not installed."""

import io
import re
import subprocess
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from utils.images.codecs import UnreadableError
from utils.video.probe import file_url, have_ffmpeg, keep_times, probe

SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".3gp", ".flv"),
    *(".ogv", ".vob"),
)
# Exact to the rounding of values; the default is faster and up to 3/255 off.
SCALING = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_TIMES = "times.txt"
_COUNT_THEIR_FRAMES = (".mp4", ".mov", ".m4v", ".avi")  # of others OpenCV guesses it from a length


def is_video(path: Path) -> bool:
    """Return whether a file's name is that of a video."""
    return path.suffix.lower() in SUFFIXES


class VideoFile:
    """The frames of a video file, as displayed.

    Args:
        path: the file.

    Attributes:
        rate: frames a second, the mean where it varies.
        count: frames that the file announces; 0 where it does not.
        probe: what else is known of it; None without ffmpeg.

    Raises:
        UnreadableError: no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.probe = probe(path) if have_ffmpeg() else None
        self._decoded, self._last = 0, 0.0
        if self.probe:
            self.rate, self.count = self.probe.rate, self.probe.count
            return
        capture = _open(path)
        fps = capture.get(cv2.CAP_PROP_FPS)
        if not capture.isOpened() or not fps > 0:
            raise UnreadableError(f"{path} cannot be read as a video; replace or remove it")
        self.rate = Fraction(fps).limit_denominator(1001)
        self.count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames as H×W×3 uint8 RGB, from the first one on."""
        for _, frame in self.timed():
            yield frame

    def timed(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield each frame with the seconds from the start at which it is shown."""
        self._decoded = 0
        for seconds, frame in self._by_ffmpeg() if self.probe else self._by_opencv():
            self._decoded += 1
            self._last = seconds
            yield seconds, frame

    def incomplete(self) -> str | None:
        """Return, after all frames were decoded, a message if the file announces more of them."""
        fewer = self._decoded < min(self.count - 2, 0.99 * self.count)
        of = f"{self._decoded:,} of {self.count:,}" if self.count > self._decoded else f"only {self._decoded:,}"
        message = f"{of} frames can be decoded; expected all of them, copy or download the file again"
        if self.probe is None:
            if fewer and self.path.suffix.lower() in _COUNT_THEIR_FRAMES:
                cause = "ends early, or was cut without encoding it again"
                return f"{self.path} {cause}: {message}, or install ffmpeg to know"
        elif self.probe.cut or (self.probe.last or 0) - self._last > self.probe.slack():
            return f"{self.path} ends early: {message}"
        elif fewer and self.probe.counted:
            return f"{self.path} is damaged: {message}"
        return None

    def _by_opencv(self) -> Iterator[tuple[float, np.ndarray]]:
        capture = _open(self.path)
        there, frame = capture.read()
        while there:
            yield self._decoded / float(self.rate), np.ascontiguousarray(frame[..., ::-1])
            there, frame = capture.read()
        capture.release()

    def _by_ffmpeg(self) -> Iterator[tuple[float, np.ndarray]]:
        found = self.probe
        assert found is not None  # see `timed`
        size = found.height, found.width, 3
        colours = f"in_color_matrix={found.colours.scale_matrix}:in_range={found.colours.range}"
        # The time of each frame is in the file before the frame is in the pipe. ffmpeg turns what is displayed turned.
        filters = (
            f"settb=AVTB,metadata=add:key=n:value=0,metadata=print:file={_TIMES}:direct=1,"
            f"scale={found.width}:{found.height}:{colours}:{SCALING},format=rgb24"
        )
        with tempfile.TemporaryDirectory() as folder:
            command = [
                "ffmpeg", "-loglevel", "quiet", "-nostdin", "-i", file_url(self.path), "-map", f"0:{found.stream}",
                "-vf", filters, *keep_times(), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1",
            ]  # fmt: skip
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder)
            assert isinstance(process.stdout, io.BufferedReader)
            times: IO[str] | None = None
            try:
                while process.stdout.readinto((frame := np.empty(size, np.uint8)).data.cast("B")) == frame.size:
                    times = times or (Path(folder) / _TIMES).open(encoding="utf-8")
                    yield self._seconds(times), frame
            finally:
                if times:
                    times.close()
                process.kill()
                process.stdout.close()
                process.wait()

    def _seconds(self, times: IO[str]) -> float:
        """Return the next frame's time, or, where it has none, that of the rate."""
        for line in times:
            if line.startswith("frame:"):
                stamp = re.search(r" pts:(\d+)", line)
                return int(stamp[1]) / 1e6 if stamp else self._last + bool(self._decoded) / float(self.rate)
        return self._last + bool(self._decoded) / float(self.rate)


def _open(path: Path) -> cv2.VideoCapture:
    return cv2.VideoCapture(str(path.absolute()))  # 12:30.mp4 alone would be taken for a URL
