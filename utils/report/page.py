"""report.html: the scores and pictures of a test run on one page, which a browser shows from the file system.

The page holds the scores; the pictures are referred to where they lie. `report_files/` next to it holds thumbnails, and
JPEG previews of what browsers do not show.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from datasets.discovery.benchmarks import BENCHMARKS, published_count
from utils.common.files import atomic_write
from utils.metrics.published import IMAGES
from utils.metrics.scorer import KNOWN, PRINTED, printed_metrics
from utils.report.names import set_titles
from utils.report.page_pictures import make_files, preview, thumbnail
from utils.report.rows import PAGE, Row

FILES = "report_files"

_PARTS = Path(__file__).with_name("page_parts")
_PLAIN = ("set", "image", "saved_as", "height", "width", "seconds", "crop_border")


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
    small = [each["restored"] for each in pictures if "restored" in each]
    small += [path for each in stills.values() for path in each.values()]
    made = make_files(folder / FILES, [*pictures, *stills.values()], small)

    def shown(each: dict[str, Path]) -> dict[str, Any]:
        return {
            "thumbnails": {
                side: _url(made[thumbnail, path], folder) for side, path in each.items() if (thumbnail, path) in made
            },
            "pictures": {side: _url(made.get((preview, path), path), folder) for side, path in each.items()},
        }

    titles = set_titles({name: str(summary["kind"]) for name, summary in sets.items()})
    content = {
        "home": f"{folder.as_uri()}/",
        "settings": settings,
        "labels": {name: metric.label for name, metric in KNOWN.items()},
        "titles": {kind: row.title for kind, row in BENCHMARKS.items()},
        "comparable_with": {name: metric.comparable_with for name, metric in KNOWN.items()},
        "printed": PRINTED,
        "sets": {
            titles[name]: {
                **summary,
                "main": _main_metric(summary),
                "published_images": published_images(summary["kind"]),
                **_files(folder, name, summary),
                **shown(stills[name]),
            }
            for name, summary in sets.items()
        },
        "problems": [text for text in problems if not any(text in each.get("problems", ()) for each in sets.values())],
        "columns": _columns(rows),
        "rows": [
            {"values": {**row, "set": titles.get(str(row["set"]), row["set"])}, **shown(each)}
            for row, each in zip(rows, pictures, strict=True)
        ],
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


def _main_metric(summary: dict[str, Any]) -> str | None:
    """Return the metric that a set is judged by, of those that papers print; None where it has none of these."""
    return next((name for name in printed_metrics(summary["kind"]) if name in summary.get("output", ())), None)


def published_images(kind: str) -> int | None:
    """Return of how many images published results on a kind of set are; None where that is not known."""
    return IMAGES.get(kind, published_count(kind, "test"))


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
    known = KNOWN.get(metric)
    return (known.digits, known.unit) if known else (4, "")


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
