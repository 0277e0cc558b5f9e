"""The bundled pictures, and small files on disk."""

import tempfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples" / "GOPRO"
SAMPLE = SAMPLES / "test" / "GOPR0881_11_01" / "blur" / "000203.png"  # 640×384


def load(path: Path) -> np.ndarray:
    """Return an 8-bit RGB file as H×W×3, by OpenCV rather than by the code under test."""
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def save(path: Path, image: np.ndarray | None = None, size: tuple[int, int] = (8, 8)) -> Path:
    """Write an 8-bit image; without one, a black picture of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.new("RGB", size) if image is None else Image.fromarray(image)).save(path)
    return path


@cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="small-samples-")


@cache
def small_samples() -> Path:
    """Return a folder like `SAMPLES` with parts of its pairs, 160×128 px: it lasts as long as the process."""
    folder = Path(_temporary().name) / SAMPLES.name
    for path in SAMPLES.rglob("*.png"):
        save(folder / path.relative_to(SAMPLES), load(path)[100:228, 200:360])
    return folder


def save_all(root: Path, *names: str) -> Path:
    """Write tiny pictures under `root`; `{a,b}` in a name stands for one file with each."""
    for name in names:
        head, brace, rest = name.partition("{")
        options, _, tail = rest.partition("}")
        if brace:
            save_all(root, *(head + option + tail for option in options.split(",")))
        else:
            save(root / name)
    return root
