"""What a set's scores come to: its means for summary.json, and the tables that are printed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from datasets import ImageSet
from datasets.discovery.benchmarks import BENCHMARKS
from datasets.discovery.layout_table import GAMMA_DIR
from utils.common.errors import counted
from utils.metrics.published import published_on
from utils.metrics.scorer import KNOWN, protocol
from utils.report.page import published_images
from utils.report.rows import PAGE, Row

_GOPRO_INPUT = " (GoPro's whole test set has about 25.6: another value means a wrong or swapped folder)"
_INPUT = "input_"  # before a metric's name: of the blurry image


def summarise(
    image_set: ImageSet, rows: list[Row], complete: bool, problems: Sequence[str] = (), notes: Iterable[str] = ()
) -> dict[str, Any]:
    """Return a set's counts and means for summary.json.

    Args:
        image_set: the set.
        rows: of its images that were restored.
        complete: whether these are all that were asked for.
        problems: with the others.
        notes: on single images, in addition to those of the set.
    """
    summary: dict[str, Any] = {
        "kind": image_set.kind,
        "root": str(image_set.root),
        "images": len(rows),
        "images_in_set": len(image_set),
        "complete": complete,
        "notes": list(dict.fromkeys((*image_set.notes, *notes))),
        "problems": list(problems),
        "seconds_per_image": median(_number(row, "seconds") for row in rows),
    }
    names = [column.removeprefix(_INPUT) for column in rows[0] if column.startswith(_INPUT)]
    if names:
        summary["protocol"] = protocol(names, int(rows[0].get("crop_border", 0)))
        summary["input"] = {name: fmean(_number(row, f"{_INPUT}{name}") for row in rows) for name in names}
        summary["output"] = {name: fmean(_number(row, name) for row in rows) for name in names}
    if image_set.paired:
        other = image_set.other_split or GAMMA_DIR in image_set.layout
        comparable = not (other or (names and "crop_border" in rows[0]))
        summary["published"] = published_on(image_set.kind) if comparable else []
    return summary


def _number(row: Row, column: str) -> float:
    value = row[column]
    assert not isinstance(value, str)  # only names are
    return value


def print_summary(name: str, summary: dict[str, Any]) -> None:
    """Print a set's table: each metric of the input and the output, and what it may be compared with."""
    seconds = summary["seconds_per_image"]
    print(
        f"\n{name}: {counted(summary['images'], 'image')}" + (f", {seconds:.3g} s an image (median)" if seconds else "")
    )
    if "output" not in summary:
        print("no ground truth: restored and saved, not scored")
        return
    print(f"scored: {summary['protocol']}")
    if "psnr" in summary["input"]:
        print(
            f"input PSNR {summary['input']['psnr']:.2f} dB"
            + _GOPRO_INPUT * (summary["kind"] == "gopro" and bool(summary["published"]))
        )
    print(f"{'':14}{'input':>9}{'output':>9}   comparable with")
    for metric in summary["output"]:
        values = "".join(f"{summary[side][metric]:9.4f}" for side in ("input", "output"))
        print(f"{metric:14}{values}   {KNOWN[metric].comparable_with}")
    if all(math.isclose(summary["input"][metric], value, rel_tol=1e-6) for metric, value in summary["output"].items()):
        print("warning: the pictures score exactly as the blurry images do: are they those?")


def print_published(summaries: Iterable[Mapping[str, Any]]) -> None:
    """Print the published results that sets may be compared with, those on a kind of set once; of others a line."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for summary in summaries:
        if summary.get("published"):
            found.setdefault(summary["kind"], []).append(summary)
    for kind, of_kind in found.items():
        title, whole = BENCHMARKS[kind].title, published_images(kind)
        counts = dict.fromkeys(summary["images"] for summary in of_kind)
        if whole not in counts:
            scored = " and ".join(f"{count:,}" for count in counts)
            print(
                f"published results on {title} are of {whole:,} images, not comparable with these of {scored}: {PAGE}"
            )
            continue
        print(f"published on {title}'s test set (sources: summary.json):")
        for row in of_kind[0]["published"]:
            scores = f"{row['psnr']:.2f} dB" + ("" if row["ssim"] is None else f" / {row['ssim']:g}")
            print(f"  {row['method']:26} {scores:18} {row['protocol']}")


def print_table(sets: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Print the means of all sets in one table, those of the input first, where there are two results to compare.

    Args:
        sets: by their names, the summaries by what restored the set.
    """
    rows: list[tuple[str, str, dict[str, float | None]]] = []
    for name, summaries in sets.items():
        scored = {label: summary for label, summary in summaries.items() if "output" in summary}
        rows += [(name, "input", summary["input"]) for summary in list(scored.values())[:1]]
        rows += [(name, label, summary["output"]) for label, summary in scored.items()]
    if sum(label != "input" for _, label, _ in rows) < 2:
        return
    columns = list(dict.fromkeys(metric for *_, values in rows for metric in values))
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    print(f"\n{'':{first + second + 2}}" + "".join(f"{column:>15}" for column in columns))
    for name, label, values in rows:
        print(f"{name:{first}}  {label:{second}}" + "".join(f"{_shown(values, column):>15}" for column in columns))
    if partial := [f"{name}: {found}" for name, summaries in sets.items() if (found := _uneven_counts(summaries))]:
        print(f"some of these means are over fewer images than others, or than were asked for: {'; '.join(partial)}")


def _uneven_counts(summaries: Mapping[str, dict[str, Any]]) -> str:
    """Return how many images each mean of a set is over; nothing where all are over the same, all that were asked for.

    Where a network failed on every image it has no summary, here an empty one.
    """
    scored = [summary for summary in summaries.values() if "output" in summary]
    counts = {label: summary.get("images", 0) for label, summary in summaries.items()}
    # A set of which a folder is closed is not complete even if all its images that are known were scored.
    whole = all(each["complete"] or each["images"] == each["images_in_set"] for each in scored)
    if not scored or (len(set(counts.values())) == 1 and whole):
        return ""
    each = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    return f"{each} of {counted(scored[0]['images_in_set'], 'image')}"


def _shown(values: Mapping[str, float | None], metric: str) -> str:
    """Return a mean as text: an infinite one is None in results that were continued."""
    if metric not in values:
        return ""
    value = values[metric]
    return "inf" if value is None else f"{value:.4f}"
