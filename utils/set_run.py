"""Restoring, saving and scoring the images of a set: files are read and written in threads beside the network."""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from tqdm import tqdm

from datasets import ImageSet
from utils.evaluation import Decoded, decode, score_both
from utils.images import UnreadableError, inspect_image, to_uint8, write_png
from utils.memory import free_memory
from utils.methods import Method
from utils.overlap import overlapped
from utils.pictures import write_picture
from utils.ranks import Ranks
from utils.restoration import Restorer
from utils.result_files import Row, name_in
from utils.results import Results
from utils.saved_results import SavedResults, read_result
from utils.scoring import Scorer
from utils.summaries import summarise

_SHARE = 0.25  # of the free main memory that images before and after the network may take
_BYTES_A_PIXEL, _BYTES_TO_SCORE = 60, 400  # decoded, restored, rounded; and the float64 maps of SSIM


@dataclass(frozen=True)
class _Group:
    """Images of one size that follow one another, by their places in the set, and how many pixels they have."""

    places: tuple[int, ...]
    pixels: int


@dataclass(frozen=True)
class SetRun:
    """What the images of a set go through.

    Attributes:
        restorer: makes the restored images, or reads those of another method.
        image_set: the set.
        outputs: where each restored image goes, or was saved by another method.
        scorer: of an image and its reference, or of an image without one.
        threads: that read files, and as many that score and write.
        begin: is told of each file before it is written.
    """

    restorer: Restorer | SavedResults
    image_set: ImageSet
    outputs: Sequence[Path]
    scorer: Scorer
    threads: int
    begin: Callable[[Path], None]
    _device: Lock = field(default_factory=Lock)  # one of the threads computes on it at a time

    def __call__(self, places: Sequence[int]) -> Iterator[tuple[int, Row | UnreadableError]]:
        """Yield, for images of the set in the order given, its row of results without names, or why it was left out."""
        bytes_a_pixel = _BYTES_TO_SCORE if self.image_set.paired else _BYTES_A_PIXEL
        rows = overlapped(
            self._groups(places),
            self._load,
            self._work,
            self._store,
            threads=self.threads,
            size=lambda group: group.pixels,
            budget=int(_SHARE * free_memory(torch.device("cpu")) / bytes_a_pixel),
        )
        for group, stored in rows:
            yield from zip(group.places, stored, strict=True)

    def _groups(self, places: Sequence[int]) -> Iterator[_Group]:
        for size, alike in itertools.groupby(places, self._size):
            height, width, _ = size or (0, 0, 0)
            many = max(self.restorer.batch_pixels // (height * width), 1) if size else 1
            while several := tuple(itertools.islice(alike, many)):
                yield _Group(several, height * width * len(several))

    def _size(self, place: int) -> tuple[int, int, int] | None:
        """Return height, width and bits a channel; None for what decoding will refuse."""
        try:
            info = inspect_image(self.image_set.blurry[place], deep=True)
        except UnreadableError:
            return None
        return info.height, info.width, info.bits

    def _load(self, group: _Group) -> list[tuple[Decoded, np.ndarray | None] | UnreadableError]:
        """Decode the images, and what another method made of them."""
        return [self._load_one(place) for place in group.places]

    def _load_one(self, place: int) -> tuple[Decoded, np.ndarray | None] | UnreadableError:
        try:
            saved = read_result(self.outputs[place]) if isinstance(self.restorer, SavedResults) else None
            return decode(self.image_set, place), saved
        except UnreadableError as error:
            return error

    def _work(
        self, group: _Group, loaded: Sequence[tuple[Decoded, np.ndarray | None] | UnreadableError]
    ) -> tuple[list[np.ndarray], float]:
        """Return the restored images of those that could be decoded, and the seconds for each."""
        good = [each for each in loaded if not isinstance(each, UnreadableError)]
        if isinstance(self.restorer, SavedResults) or not good:
            return [saved for _, saved in good], 0.0
        start = time.perf_counter()
        with self._device:
            restored = self.restorer.batch([image.blurry.pixels for image, _ in good])
        return restored, (time.perf_counter() - start) / len(good)

    def _store(
        self,
        group: _Group,
        loaded: Sequence[tuple[Decoded, np.ndarray | None] | UnreadableError],
        worked: tuple[list[np.ndarray], float],
    ) -> list[Row | UnreadableError]:
        """Save and score the restored images."""
        restored, seconds = worked
        rows: list[Row | UnreadableError] = []
        outputs = iter(restored)
        for place, each in zip(group.places, loaded, strict=True):
            if isinstance(each, UnreadableError):
                rows.append(each)
                continue
            try:
                rows.append(self._store_one(place, each[0], next(outputs), seconds))
            except UnreadableError as error:
                rows.append(error)
        return rows

    def _store_one(self, place: int, image: Decoded, output: np.ndarray, seconds: float) -> Row:
        height, width = image.blurry.pixels.shape[:2]
        row: Row = {"height": height, "width": width, "seconds": round(seconds, 4)}
        name = str(self.image_set.blurry[place])
        with self._device if self.scorer.device.type == "cuda" else nullcontext():
            before, after = score_both(self.scorer, image, output, name)
        row |= {f"input_{metric}": value for metric, value in before.items()} | after
        if isinstance(self.restorer, SavedResults):
            return row
        self.begin(self.outputs[place])
        if image.sharp is None:
            write_picture(self.outputs[place], output, image.blurry)
        else:
            write_png(self.outputs[place], to_uint8(output))
        return row


def run_set(
    method: Method,
    image_set: ImageSet,
    place: Path,
    scorer: Scorer,
    args: argparse.Namespace,
    results: Results,
    ranks: Ranks,
) -> list[str]:
    """Restore, save and score this process's share of a set's images; return what was wrong with those left out."""
    name = method.set_name(place.name)
    count = min(len(image_set), args.limit or len(image_set))
    outputs = method.outputs(image_set, place, args.save_dir, count)
    done = set(ranks.gather(list(results.of(name)))[0])
    own = [i for i in range(count) if image_set.names[i] not in done][ranks.rank :: ranks.world]
    run = SetRun(method.restorer, image_set, outputs, scorer, args.num_workers, results.begin)
    problems: list[str] = []
    try:
        for i, row in tqdm(run(own), name, len(own), unit="image", dynamic_ncols=True, disable=not ranks.main):
            if isinstance(row, UnreadableError):
                problems.append(str(row))
                tqdm.write(f"left out: {row}")
                continue
            where = name_in(args.save_dir, outputs[i])
            named: Row = {"set": name, "image": image_set.names[i], "saved_as": where}
            results.add(named | ({"weights": method.name} if method.name else {}) | row)
    finally:  # neither an error nor Ctrl-C loses the scores before it
        if not ranks.together:
            _finish_set(name, image_set, count, [results.of(name)], problems, results)
        else:
            results.write()
    if ranks.together:
        shares = ranks.gather((results.of(name), problems))
        problems = [problem for _, found in shares for problem in found]
        if ranks.main:
            _finish_set(name, image_set, count, [rows for rows, _ in shares], problems, results)
        ranks.wait()
        if not ranks.main:
            results.hand_over()
    return problems


def _finish_set(
    name: str,
    image_set: ImageSet,
    count: int,
    shares: Sequence[dict[str, Row]],
    problems: Sequence[str],
    results: Results,
) -> None:
    """Put a set's rows into the order of its images, and write them with their summary."""
    by_image = {image: row for rows in shares for image, row in rows.items()}
    rows = [by_image[image] for image in image_set.names if image in by_image]
    if rows:
        results.replace(name, rows)
        results.sets[name] = summarise(image_set, rows, complete=len(rows) == count, problems=problems)
        results.write()
