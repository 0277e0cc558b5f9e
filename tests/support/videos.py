"""Small videos, made and looked at by the programs ffmpeg and ffprobe, and restored by nothing at all."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.samples import SAMPLE, load
from utils.testing.videos import restore_video
from utils.video import output_name

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=96x72:r=25:d=3")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def clip(path: Path, frames: int = 3, rate: float = 25, size: tuple[int, int] = (64, 48)) -> Path:
    """Write parts of a real picture as a video of Motion JPEG, in AVI whatever the name."""
    width, height = size
    picture = load(SAMPLE)[:height, :width]
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name("being written.avi")
    writer = cv2.VideoWriter(str(written), cv2.VideoWriter_fourcc(*"MJPG"), rate, size)
    for i in range(frames):
        writer.write(np.roll(picture, 4 * i, axis=1)[..., ::-1])
    writer.release()
    return written.rename(path)


def frames_of(path: Path) -> list[np.ndarray]:
    """Return the frames of a video, as the project reads them."""
    from utils.video.reader import VideoFile  # PyAV is optional

    return [frame.pixels for frame in VideoFile(path)]


def ffmpeg(*arguments: object) -> bytes:
    command = ["ffmpeg", "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def same(image: np.ndarray) -> np.ndarray:
    """Restore nothing."""
    return image.astype(np.float32) / 255


def restored(tmp_path: Path, source: Path, restorer=same, strip_metadata: bool = False) -> tuple[Path, dict, list[str]]:
    """Return the restored file, its summary, and the notes in it."""
    output = tmp_path / "out" / output_name(source)
    summary = restore_video(restorer, source, output, tmp_path / "stills" / "video", strip_metadata)
    return output, summary, summary["notes"]


def probed(path: Path, entries: str, stream: str = "v:0") -> list[str]:
    command = ["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", entries, "-of", "csv=p=0"]
    return subprocess.run([*command, str(path)], capture_output=True, check=True, text=True).stdout.split()


def times(path: Path, stream: str = "v:0") -> list[float]:
    return sorted(float(line.split(",")[0]) for line in probed(path, "packet=pts_time", stream))


def luma(path: Path) -> np.ndarray:
    """Return the luma of a video's frames as it is stored."""
    width, height = map(int, probed(path, "stream=width,height")[0].split(",")[:2])
    stored = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-"), np.uint8)
    return stored.reshape(-1, height * width * 3 // 2)[:, : height * width].astype(float)
