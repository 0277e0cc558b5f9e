"""Restoring a video frame by frame: the same size and, with ffmpeg, frame times, colours and sound tracks."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from utils.common.files import atomic_write
from utils.images.codecs import UnreadableError, to_uint8
from utils.inference.evaluation import check_min_size
from utils.video.encoder import Encoder, FfmpegEncoder, OpenCVEncoder
from utils.video.reader import VideoFile


def restore_video(
    restorer: Callable[[np.ndarray], np.ndarray], path: Path, output: Path, log: Callable[[str], None]
) -> dict[str, Any]:
    """Restore a video's frames one after the other, while others are decoded and encoded; a complete file or none.

    Args:
        restorer: makes an H×W×3 float32 image in [0, 1] of a uint8 one.
        path: the video.
        output: where the restored one goes, see `output_name`.
        log: gets a line on each difference between the restored video and its source.

    Returns:
        its height and width in px, frames, frames a second, and problems: that the source is incomplete.

    Raises:
        UnreadableError: the file is no video, or has no frame that can be decoded.
        UserError: the video cannot be written.
    """
    video = VideoFile(path)
    frames = video.timed()
    first = next(frames, None)
    if first is None:
        raise UnreadableError(f"{path} holds no frame that can be decoded; replace or remove it")
    check_min_size(path, first[1])
    height, width = first[1].shape[:2]
    for line in _differences(video, height, width):
        log(line)
    count = 0
    with (
        atomic_write(output) as temporary,
        _encoder(temporary, video, first, log) as encoder,
        ThreadPoolExecutor(1) as writer,
    ):
        writing: Future[None] | None = None
        for seconds, frame in tqdm(_ahead(first, frames), desc=path.name, total=video.count or None, unit="frame"):
            restored = restorer(frame)
            if writing:
                writing.result()
            writing = writer.submit(lambda at, image: encoder.add(at, to_uint8(image)), seconds, restored)
            count += 1
        assert writing is not None  # there is a first frame
        writing.result()
    incomplete = video.incomplete()
    return {
        "height": height,
        "width": width,
        "frames": count,
        "frames_per_second": float(video.rate),
        "problems": [incomplete] if incomplete else [],
    }


def _encoder(path: Path, video: VideoFile, first: tuple[float, np.ndarray], log: Callable[[str], None]) -> Encoder:
    start, (height, width) = first[0], first[1].shape[:2]
    if video.probe is None:
        return OpenCVEncoder(path, video, height, width)
    return FfmpegEncoder(path, video, height, width, start, log)


def _differences(video: VideoFile, height: int, width: int) -> Iterator[str]:
    """Yield a line on each difference between the restored video and its source, but for its sound."""
    if video.probe is None:
        yield (
            f"{video.path}: ffmpeg (with ffprobe) is not installed, so the restored video is MPEG-4 at a constant "
            "frame rate, and sound is omitted"
        )
        if height % 2 or width % 2:
            even = f"{width + width % 2}×{height + height % 2}"
            yield f"{video.path}: {width}×{height} px become {even}; ffmpeg would keep the odd size"
    elif video.probe.bits > 8:
        hdr = " of high dynamic range" if video.probe.hdr else ""
        yield f"{video.path}: its {video.probe.bits} bits a channel{hdr} become 8 in the restored video"
    if video.probe is not None and video.probe.interlaced:
        yield f"{video.path} is interlaced, and is restored as whole frames: deinterlace it first (ffmpeg -vf bwdif)"


def _ahead(
    first: tuple[float, np.ndarray], rest: Iterator[tuple[float, np.ndarray]]
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield frames with their times; while one is in use a thread decodes the next."""
    with ThreadPoolExecutor(1) as reader:
        frame: tuple[float, np.ndarray] | None = first
        while frame is not None:
            following = reader.submit(next, rest, None)
            yield frame
            frame = following.result()
