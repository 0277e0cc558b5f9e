"""Videos: frames in, frames out. `reader` and `writer` need PyAV, which is optional; this module does not."""

from importlib.util import find_spec
from pathlib import Path

from utils.images.codecs import UnreadableError

SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".3gp", ".flv"),
    *(".ogv", ".vob"),
)
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".m4v": "ipod", ".mkv": "matroska"}  # that take H.264 and most sound


def is_video(path: Path) -> bool:
    """Return whether a file's name is that of a video."""
    return path.suffix.lower() in SUFFIXES


def output_name(path: Path, suffix: str = "") -> str:
    """Return the restored video's name: that of the source, in its container where that takes H.264, else in .mkv.

    Args:
        path: of the source.
        suffix: what its name gets before the ending.
    """
    return f"{path.stem}{suffix}{path.suffix.lower() if path.suffix.lower() in CONTAINERS else '.mkv'}"


def check_pyav(path: Path) -> None:
    """Raise `UnreadableError` for a video where PyAV is not installed."""
    if find_spec("av") is None:
        raise UnreadableError(f"{path} is a video, which needs PyAV; run `make video`")
