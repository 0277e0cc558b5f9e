"""report.html: the scores and pictures of a test run on one page, which a browser shows from the file system.

The page holds the scores; the pictures are referred to where they lie. `report_files/` next to it holds thumbnails, and
JPEG previews of what browsers do not show.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from utils.common.files import atomic_write
from utils.images.codecs import UnreadableError, inspect_image, readable
from utils.images.photographs import read_picture
from utils.metrics.scorer import KNOWN
from utils.report.rows import PAGE, Row

FILES = "report_files"

_PARTS = Path(__file__).with_name("page_parts")
_THUMBNAIL = (240, 240)  # px: twice the size at which the page shows it, for dense displays
_PREVIEW_QUALITY, _THUMBNAIL_QUALITY = 95, 80
_THREADS = min(16, os.cpu_count() or 1)  # Pillow decodes nearly all the time without Python's lock
_SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
_UPRIGHT_IN_BROWSERS = (".jpg", ".jpeg")  # EXIF orientation: Chromium follows it in others, but not in WebP
_PLAIN = ("set", "image", "saved_as", "height", "width", "seconds", "crop_border")
# Digits after the point and unit of a metric, by the first part of its name.
_FORMS = {"psnr": (2, "dB"), "niqe": (2, "")}
_OTHER_FORM = (4, "")


@dataclass(frozen=True)
class Source:
    """The files an image was restored from and scored against.

    Attributes:
        blurry: the input.
        sharp: the ground truth, or None without any.
    """

    blurry: Path
    sharp: Path | None = None


def write_report(
    folder: Path,
    rows: Sequence[Row],
    sets: dict[str, Any],
    settings: dict[str, Any],
    sources: Mapping[tuple[str, str], Source],
    problems: Sequence[str] = (),
) -> Path:
    """Write a run's page, with the thumbnails and previews that are missing or older than their pictures.

    Args:
        folder: where the restored pictures lie, and where the page goes.
        rows: of a test run's table; columns that are neither text nor among those of every image are metrics, and
            `input_NAME` is that metric of the blurry image.
        sets: their summaries by name, and those of videos.
        settings: what the results depend on, as in summary.json.
        sources: by set and image; a row without one has its restored picture only.
        problems: with skipped files; those in no set's summary are listed separately.

    Returns:
        the page's path.

    Raises:
        UserError: something cannot be written. A picture that cannot be read is omitted from the page.
    """
    folder = _absolute(folder)
    pictures = [_pictures(folder, row, sources) for row in rows]
    stills = {name: _stills(folder, summary) for name, summary in sets.items()}
    made = _make_files(folder / FILES, [*pictures, *stills.values()])

    def shown(each: dict[str, Path]) -> dict[str, Any]:
        return {
            "thumbnail": _url(made.get((_thumbnail, each["restored"])) if "restored" in each else None, folder),
            "pictures": {side: _url(made.get((_preview, path), path), folder) for side, path in each.items()},
        }

    content = {
        "home": f"{folder.as_uri()}/",
        "settings": settings,
        "comparable_with": {name: metric.comparable_with for name, metric in KNOWN.items()},
        "sets": {
            name: {**summary, **_files(folder, name, summary), **shown(stills[name])} for name, summary in sets.items()
        },
        "problems": [text for text in problems if not any(text in each.get("problems", ()) for each in sets.values())],
        "columns": _columns(rows),
        "rows": [{"values": row, **shown(each)} for row, each in zip(rows, pictures, strict=True)],
    }
    # Neither a tag nor a comment can begin inside the script element that holds it.
    data = json.dumps(_plain(content), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    with atomic_write(folder / PAGE) as path:
        path.write_text(_page(data), encoding="utf-8")
    return folder / PAGE


def _page(data: str) -> str:
    """Return page.html with its style, scripts and data in it."""

    def part(match: re.Match[str]) -> str:
        return data if match[1] == "data" else (_PARTS / match[1]).read_text(encoding="utf-8")

    return re.sub(r"\{\{([\w.]+)\}\}", part, (_PARTS / "page.html").read_text(encoding="utf-8"))


def _pictures(folder: Path, row: Row, sources: Mapping[tuple[str, str], Source]) -> dict[str, Path]:
    """Return the pictures of a row that exist."""
    source = sources.get((str(row["set"]), str(row["image"])))
    # Another method's pictures are named as the user named their folder, from the working directory.
    saved = [folder / str(row["saved_as"]), Path(str(row["saved_as"]))]
    paths = {
        "blurry": source and source.blurry,
        "restored": next((path for path in saved if path.is_file()), None),
        "sharp": source and source.sharp,
    }
    return {side: _absolute(path) for side, path in paths.items() if path and path.is_file()}


def _absolute(path: Path) -> Path:
    """Return a path without `..`; symbolic links stay, as browsers do not resolve them either."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _files(folder: Path, name: str, summary: dict[str, Any]) -> dict[str, str | None]:
    """Return where a video and its source are, as the page refers to them."""
    files = (
        {"file": folder / name, "original": Path(summary.get("source", name))} if summary.get("kind") == "video" else {}
    )
    return {key: _url(path, folder) for key, path in files.items() if path.is_file()}


def _stills(folder: Path, summary: dict[str, Any]) -> dict[str, Path]:
    """Return the pictures of a frame of a video, before and after."""
    paths = {side: folder / name for side, name in summary.get("stills", {}).items()}
    return {side: path for side, path in paths.items() if path.is_file()}


def _url(path: Path | None, folder: Path) -> str | None:
    """Return a path as the page in `folder` refers to it."""
    if path is None:
        return None
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # on another drive
        return path.as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _columns(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the metrics and further texts among the rows' columns, with what is known of them."""
    examples = {name: value for row in rows for name, value in row.items() if name not in _PLAIN}
    columns = []
    for name, value in examples.items():
        if isinstance(value, str):
            columns.append({"name": name, "text": True})
        elif not (name.startswith("input_") and name.removeprefix("input_") in examples):
            (digits, unit), known = form_of(name), KNOWN.get(name)
            better = known and ("lower" if known.lower_is_better else "higher")
            columns.append({"name": name, "better": better, "digits": digits, "unit": unit})
    return columns


def form_of(metric: str) -> tuple[int, str]:
    """Return how many digits after the point a metric is shown with, and its unit."""
    return _FORMS.get(metric.split("_")[0], _OTHER_FORM)


def _plain(value: Any) -> Any:
    """Return what JSON can hold: numbers that are not finite as the words that JavaScript reads as such."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, float):
        return round(value, 6)
    return value if isinstance(value, str | int | None) else str(value)


def _make_files(
    folder: Path, pictures: Iterable[dict[str, Path]]
) -> dict[tuple[Callable[[Path], Image.Image], Path], Path | None]:
    """Make thumbnails of restored pictures and previews; return them by what made them and its picture.

    None stands for one that could not be made.
    """
    jobs: dict[tuple[Callable[[Path], Image.Image], Path], int] = {}
    for each in pictures:
        jobs |= {(_thumbnail, path): _THUMBNAIL_QUALITY for side, path in each.items() if side == "restored"}
        jobs |= {(_preview, path): _PREVIEW_QUALITY for path in each.values() if not _is_shown(path)}
    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(lambda job: _make_file(folder, job[0], job[1], jobs[job]), jobs)
        return dict(
            zip(jobs, tqdm(made, "report", len(jobs), delay=2, unit="picture", dynamic_ncols=True), strict=True)
        )


def _make_file(folder: Path, make: Callable[[Path], Image.Image], path: Path, quality: int) -> Path | None:
    # Pictures of several folders may share a name.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    target = folder / f"{make.__name__.removeprefix('_')}-{digest}.jpg"
    try:
        if target.exists() and target.stat().st_mtime >= path.stat().st_mtime:
            return target
        with readable(path):
            image = make(path)
    except (UnreadableError, OSError):
        return None
    with atomic_write(target) as temporary:
        image.save(temporary, quality=quality, subsampling=0, icc_profile=image.info.get("icc_profile"))
    return target


def _is_shown(path: Path) -> bool:
    """Return whether browsers show a file upright."""
    suffix = path.suffix.lower()
    if suffix not in _SHOWN or suffix in _UPRIGHT_IN_BROWSERS:
        return suffix in _SHOWN
    try:
        return inspect_image(path, deep=True).orientation == 1
    except UnreadableError:
        return True  # a preview could not be made either


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        colour = image.mode in ("RGB", "RGBA")
        image.thumbnail(_THUMBNAIL, reducing_gap=2.0)
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if not colour:  # a profile of grey or CMYK
        upright.info.pop("icc_profile", None)
    return upright


def _preview(path: Path) -> Image.Image:
    picture = read_picture(path)
    values = picture.pixels[..., 0] if picture.grey else picture.pixels
    image = Image.fromarray((values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values)
    if picture.metadata.profile:
        image.info["icc_profile"] = picture.metadata.profile
    return image
