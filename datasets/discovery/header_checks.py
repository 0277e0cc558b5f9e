"""Checks of a set's files without decoding them: readable, 8 bits, equal sizes, the published count."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets.discovery.benchmarks import published_count
from datasets.discovery.pairing import Problem
from models.blocks import MIN_SIZE
from utils.common.errors import UserError, counted, relative_names, some
from utils.images.codecs import HEIC, INSTALL_HEIC, RAW, SUFFIXES, ImageInfo, inspect_image

_LIKE_THE_FULL_SET = 0.5  # of the published count: fewer is a sample somebody chose
_SHOWN = 10
# Suffixes of images that are skipped in a folder. Videos are no part of a set: `utils.testing.inputs`.
_OTHER_PICTURES = {
    *(*HEIC, *RAW, ".apng", ".avif", ".avifs", ".dds", ".eps", ".exr", ".gif", ".hdr", ".heics", ".ico", ".j2k"),
    *(".jfif", ".jif", ".jp2", ".jpe", ".jpf", ".jpm", ".jpx", ".jxl", ".jxr", ".kra", ".pbm", ".pcx", ".pfm", ".pgm"),
    *(".pnm", ".ppm", ".psb", ".psd", ".svg", ".tga", ".wdp", ".xcf"),
}


def check_files(blurry: Sequence[Path], sharp: Sequence[Path] | None) -> tuple[list[Problem], list[str]]:
    """Read every file's header; return the problems, and notes on what will be converted.

    Problems are files that cannot be read, do not have 8 bits a channel, are too small, or differ in size from their
    partner, each with its name.
    """
    files = [*blurry, *(sharp or ())]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(_inspect, files))
    problems = [result for result in results if isinstance(result, str)]
    infos = [result if isinstance(result, ImageInfo) else None for result in results]
    problems += [
        f"{path} is {info.width}×{info.height} px, the smallest side the networks take is {MIN_SIZE}"
        for path, info in zip(files, infos, strict=True)
        if info and min(info.width, info.height) < MIN_SIZE
    ]
    for first, second, a, b in zip(blurry, sharp or (), infos, infos[len(blurry) :]):  # noqa: B905 (none: unpaired)
        if a and b and (a.height, a.width) != (b.height, b.width):
            problems.append(f"{first} is {a.width}×{a.height} px but its partner {second} is {b.width}×{b.height}")
    notes = []
    names = relative_names(files)[1] if files else []
    if converted := [name for name, info in zip(names, infos, strict=True) if info and info.mode != "RGB"]:
        notes = [
            f"converted to RGB: {counted(len(converted), 'image')} in grey, with palette or alpha ({some(converted)})"
        ]
    return [Problem(problem) for problem in problems], notes


def combine_problems(problems: Sequence[Problem], way_out: str = "") -> str:
    """Return the problems of a set as one message, and last a way out; that of a single problem is its own."""
    last = [way_out] if way_out else []
    if len(problems) == 1:
        return "\n  ".join([problems[0].summary, *last])
    lines = [problem.summary for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more; python -m tools.check_data lists every one")
    return "\n  ".join([f"{len(problems)} problems:", *lines, *last])


def skipped_note(files: Iterable[Path]) -> list[str]:
    """Return a note on those files that are pictures of kinds which cannot be read here; none where there are none."""
    suffixes = (file.suffix.lower() for file in files)
    counts = Counter(each for each in suffixes if each in _OTHER_PICTURES and each not in SUFFIXES)
    if not counts:
        return []
    listed = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common())
    remedies = [f"for HEIC {INSTALL_HEIC}"] if counts.keys() & set(HEIC) else []
    if counts.keys() - set(HEIC):
        remedies.append("convert them" if not remedies else "convert the others")
        remedies[-1] += " to PNG, TIFF or JPEG"
    return [f"WARNING: skipped, as they cannot be read here: {listed}; {', '.join(remedies)}"]


def _inspect(path: Path) -> ImageInfo | str:
    try:
        return inspect_image(path)
    except UserError as error:
        return str(error)


def compare_with_published_count(kind: str, split: str, count: int) -> list[str]:
    """Return a note where a known set has another number of images than published."""
    published = published_count(kind, split)
    if published is None or count == published:
        return []
    if count < _LIKE_THE_FULL_SET * published:
        return [f"a part of the {kind} {split} set: {count:,} of {published:,} images"]
    difference = f"{published - count:,} are missing" if count < published else f"{count - published:,} too many"
    return [
        f"WARNING: {counted(count, 'image')}, the published {kind} {split} set has {published:,}: {difference}; "
        "results are not comparable with published ones"
    ]
