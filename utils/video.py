"""Restoring a video frame by frame: the same size, frame rate and, with ffmpeg, sound track."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.evaluation import refuse_small
from utils.files import atomic_write
from utils.images import UnreadableError, to_uint8

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".mts")
_KEPT = (".mp4", ".mov", ".m4v", ".mkv")  # containers that take the restored video and the copied sound
_QUALITY = "14"  # x264's constant rate factor: no loss that is seen


class VideoFile:
    """The frames of a video file, as displayed.

    Args:
        path: the file.

    Raises:
        UnreadableError: no video, or one without frames.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        if not self._capture.isOpened() or not fps > 0:
            raise UnreadableError(f"{path} cannot be read as a video; replace or remove it")
        self.rate = Fraction(fps).limit_denominator(1001)
        self.count = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames as H×W×3 uint8 RGB, from the first one on."""
        while True:
            there, frame = self._capture.read()
            if not there:
                self._capture.release()
                return
            yield np.ascontiguousarray(frame[..., ::-1])


class _Encoder(AbstractContextManager):
    """Takes frames and writes a video, with the sound of `source` where ffmpeg is installed."""

    def __init__(self, path: Path, source: VideoFile, height: int, width: int) -> None:
        self._size = width, height
        self._ffmpeg = shutil.which("ffmpeg")
        if self._ffmpeg is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(path), code, float(source.rate), (width, height))
            if not self._writer.isOpened():
                raise UserError(f"OpenCV cannot write {path}; install ffmpeg, or give a --save_dir on another disk")
            return
        odd = width % 2 or height % 2
        rate, size = f"{source.rate.numerator}/{source.rate.denominator}", f"{width}x{height}"
        command = [
            self._ffmpeg, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate,
            "-i", "pipe:", "-i", str(source.path), "-map", "0:v", "-map", "1:a?", "-map_metadata", "1",
            "-c:v", "libx264", "-crf", _QUALITY, "-pix_fmt", "yuv444p" if odd else "yuv420p", "-c:a", "copy", str(path),
        ]  # fmt: skip
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._messages)

    def add(self, frame: np.ndarray) -> None:
        if self._ffmpeg is None:
            self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
            return
        try:
            self._process.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self._refuse()

    def _refuse(self) -> None:
        self._process.wait()
        self._messages.seek(0)
        said = self._messages.read().decode(errors="replace").strip().splitlines()
        raise UserError(f"ffmpeg could not write the video: {said[-1] if said else 'no reason given'}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ffmpeg is None:
            self._writer.release()
        elif kind is None:
            self._process.stdin.close()
            if self._process.wait():
                self._refuse()
        else:
            self._process.kill()
            self._process.wait()
        if self._ffmpeg is not None:
            self._messages.close()


def is_video(path: Path) -> bool:
    """Say whether a file's name is that of a video."""
    return path.suffix.lower() in SUFFIXES


def output_name(path: Path) -> str:
    """Return the restored video's name: that of the source, in a container that takes any sound track."""
    if shutil.which("ffmpeg") is None:
        return f"{path.stem}.mp4"
    return f"{path.stem}{path.suffix.lower() if path.suffix.lower() in _KEPT else '.mkv'}"


def restore_video(
    restorer: Callable[[np.ndarray], np.ndarray], path: Path, output: Path, say: Callable[[str], None]
) -> dict[str, float]:
    """Restore a video's frames one after the other, decoding and encoding beside it; complete or not at all.

    Args:
        restorer: makes an H×W×3 float32 image in [0, 1] of a uint8 one.
        path: the video.
        output: where the restored one goes, see `output_name`.
        say: gets a line where there is no ffmpeg to keep the sound.

    Returns:
        its height and width in px, frames, and frames a second.

    Raises:
        UnreadableError: the file is no video, or has no frame that can be decoded.
        UserError: the video cannot be written.
    """
    video = VideoFile(path)
    if shutil.which("ffmpeg") is None:
        say(f"{path}: ffmpeg is not installed, so the restored video has no sound and is encoded as MPEG-4")
    frames = iter(video)
    first = next(frames, None)
    if first is None:
        raise UnreadableError(f"{path} holds no frame that can be decoded; replace or remove it")
    refuse_small(path, first)
    height, width = first.shape[:2]
    count = 0
    with (
        atomic_write(output) as temporary,
        _Encoder(temporary, video, height, width) as encoder,
        ThreadPoolExecutor(1) as writer,
    ):
        writing: Future[None] | None = None
        for frame in tqdm(_ahead(first, frames), desc=path.name, total=video.count or None, unit="frame"):
            restored = restorer(frame)
            if writing:
                writing.result()
            writing = writer.submit(lambda image: encoder.add(to_uint8(image)), restored)
            count += 1
        writing.result()
    return {"height": height, "width": width, "frames": count, "frames_per_second": float(video.rate)}


def _ahead(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield frames; while one is in use a thread decodes the next."""
    with ThreadPoolExecutor(1) as reader:
        frame: np.ndarray | None = first
        while frame is not None:
            following = reader.submit(next, rest, None)
            yield frame
            frame = following.result()
