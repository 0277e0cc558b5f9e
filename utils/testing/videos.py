"""The videos of a test run, restored one after the other, frame by frame."""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from utils.common.errors import UserError
from utils.common.files import atomic_write
from utils.common.pipeline import Pipeline
from utils.common.signals import Interruption
from utils.images.codecs import UnreadableError, write_png
from utils.images.conversion import to_uint8
from utils.inference.evaluation import check_min_size, check_result
from utils.report.page import FILES
from utils.testing.results import Results
from utils.testing.saved_results import SavedResults
from utils.testing.settings import RunSettings
from utils.testing.sources import ResultSource
from utils.video import check_pyav

if TYPE_CHECKING:
    from utils.video.reader import VideoFile

_FRAMES = 2  # read or written while another is restored
_HDR = {16: " of high dynamic range (PQ)", 18: " of high dynamic range (HLG)"}  # transfer functions, by ITU-T H.273
_KEPT = ("yuv420p", "yuvj420p", "nv12", "gray")  # kinds of pixels that lose nothing


def restore_videos(
    source: ResultSource, videos: Mapping[Path, Path], settings: RunSettings, results: Results, stop: Interruption
) -> None:
    """Restore videos; one that cannot be read or written is skipped.

    Args:
        source: restores them.
        videos: each with its output path, relative to the folder of the source.
        settings: of the run.
        results: receive their summaries; videos in them are not restored again.
        stop: checked between two frames; a request ends the program.
    """

    def restore(frame: np.ndarray) -> np.ndarray:
        if stop.requested:
            print("the current video is discarded: --resume restores it from its start, and keeps finished ones")
            stop.end()
        assert not isinstance(source.restorer, SavedResults)  # only of images
        return source.restorer(frame)

    for path, relative_output in videos.items():
        output = source.folder / relative_output
        name = results.name_of(output)
        if not (settings.resume and output.exists() and name in results.sets):
            results.begin(output)
            stills = f"{FILES}/video-{hashlib.sha256(os.fsencode(name)).hexdigest()[:20]}"
            try:
                summary = restore_video(restore, path, output, results.folder / stills, settings.saving.strip_metadata)
            except UserError as error:
                problem = str(error) if str(path) in str(error) else f"{path}: {error}"
                results.problems.append(problem)
                print(f"skipped: {problem}")
                continue
            pictures = {side: f"{stills}-{side}.png" for side in ("blurry", "restored")}
            results.sets[name] = {"kind": "video", "source": str(path.absolute()), "stills": pictures, **summary}
            results.write()
            print(f"{path}: restored as {output}")
        results.incomplete += results.sets[name].get("problems", [])


def restore_video(
    restorer: Callable[[np.ndarray], np.ndarray], path: Path, output: Path, stills: Path, strip_metadata: bool = False
) -> dict[str, Any]:
    """Restore a video's frames one after the other, while others are decoded and encoded; a complete file or none.

    Args:
        restorer: makes an H×W×3 float32 image in [0, 1] of a uint8 one.
        path: the video.
        output: where the restored one goes, see `output_name`.
        stills: what the paths of a frame before and after begin with, which are written for the page.
        strip_metadata: keep no metadata but the languages of tracks, and no tracks of data.

    Returns:
        its height and width in px, frames, frames a second, notes on what it lacks, and problems of the source.

    Raises:
        UnreadableError: the file is no video, has no frame that can be decoded, or PyAV is not installed.
        UserError: the video cannot be written.
    """
    check_pyav(path)
    from av.error import FFmpegError  # not before: it is optional

    try:
        return _restore(restorer, path, output, stills, strip_metadata)
    except FFmpegError as error:  # one of the disk is none any more
        raise UnreadableError(f"{path} cannot be restored ({error.strerror}); replace or remove it") from error


def _restore(
    restorer: Callable[[np.ndarray], np.ndarray], path: Path, output: Path, stills: Path, strip_metadata: bool
) -> dict[str, Any]:
    from utils.video.reader import VideoFile  # these need PyAV
    from utils.video.writer import video_writer

    video = VideoFile(path)
    notes, damaged = [f"{path}: {line}" for line in _losses(video)], []
    with (
        atomic_write(output) as temporary,
        video_writer(temporary, video, notes.append, damaged.append, strip_metadata) as add,
        Pipeline(1, lambda _: 1, _FRAMES) as pipeline,
        tqdm(desc=path.name, total=video.count or None, unit="frame", dynamic_ncols=True) as bar,
    ):
        for note in notes:
            tqdm.write(note)
        frames = iter(video)
        for i, frame in pipeline.read(itertools.count(), lambda _: next(frames, None)):
            if frame is None:
                break
            if i == 0:
                check_min_size(path, frame.pixels)
            values = restorer(frame.pixels)
            check_result(values, f"frame {i} of {path}")
            restored = to_uint8(values)
            if i in (0, video.count // 2):
                write_png(stills.with_name(f"{stills.name}-blurry.png"), frame.pixels)
                write_png(stills.with_name(f"{stills.name}-restored.png"), restored)
            pipeline.write(i, partial(add, frame._replace(pixels=restored)))
            bar.update(sum(1 for _ in pipeline.written()))
        bar.update(sum(1 for _ in pipeline.written(everything=True)))
    return {
        "height": video.height,
        "width": video.width,
        "frames": video.decoded,
        "frames_per_second": float(video.rate),
        "notes": notes,
        "problems": ["; ".join(problems)] if (problems := [*_problems(video), *damaged]) else [],
    }


def _losses(video: "VideoFile") -> Iterator[str]:
    """Yield what the restored pictures cannot keep."""
    odd, hdr = video.width % 2 or video.height % 2, _HDR.get(video.tags[3], "")
    if odd:
        yield f"{video.width}×{video.height} px need H.264 of 4:4:4, which not every player shows: a side is odd"
    if hdr or video.kind not in (*_KEPT, *(["yuv444p", "yuvj444p"] if odd else [])):
        yield f"its {video.bits} bits per channel{hdr} ({video.kind}) become 8 of YUV 4:{'4:4' if odd else '2:0'}"
    if video.interlaced:
        yield "it is interlaced, and is restored as whole frames: deinterlace it first (ffmpeg -vf bwdif)"


def _problems(video: "VideoFile") -> Iterator[str]:
    found = f"{video.decoded:,} of {max(video.count, video.decoded):,} frames can be decoded"
    advice = "expected all of them, copy or download the file again"
    if video.ends_early:
        yield f"{video.path} ends early: {found}; {advice}"
    elif video.bad:
        yield f"{video.path} is damaged: {found}, and {video.bad:,} are not whole; {advice}"
