"""Restoring, saving and scoring the images of a set: files are read and written in threads beside the network."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from datasets import ImageSet
from utils.common.errors import UserError
from utils.common.files import name_too_long
from utils.common.memory import free_memory, out_of_memory
from utils.common.pipeline import run_pipeline
from utils.common.signals import Interruption
from utils.images.codecs import UnreadableError, inspect_image, to_uint8, write_png
from utils.images.photographs import write_picture
from utils.inference.evaluation import Decoded, decode, score_both
from utils.inference.restorer import Restorer
from utils.metrics.scorer import Scorer
from utils.report.rows import Row
from utils.testing.saved_results import SavedResults, read_result

_SHARE = 0.25  # of the free main memory that images before and after the network may take
_BYTES_A_PIXEL, _BYTES_TO_SCORE = 60, 400  # decoded, restored, rounded; and the float64 maps of SSIM


@dataclass(frozen=True)
class _Group:
    """Images of one size that follow one another, by their places in the set, and how many pixels they have."""

    indices: tuple[int, ...]
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
        stop: once requested, no image is restored any more.
        notes: on images of which a user should know something.
    """

    restorer: Restorer | SavedResults
    image_set: ImageSet
    outputs: Sequence[Path]
    scorer: Scorer
    threads: int
    begin: Callable[[Path], None]
    stop: Interruption = field(default_factory=Interruption)
    notes: list[str] = field(default_factory=list)
    _device: Lock = field(default_factory=Lock)  # one of the threads computes on it at a time

    def __call__(self, indices: Sequence[int]) -> Iterator[tuple[int, Row | UnreadableError]]:
        """Yield, for images of the set in the order given, its row of results without names, or why it was left out."""
        bytes_a_pixel = _BYTES_TO_SCORE if self.image_set.paired else _BYTES_A_PIXEL
        rows = run_pipeline(
            self._groups(indices),
            self._load,
            self._work,
            self._store,
            threads=self.threads,
            size=lambda group: group.pixels,
            budget=int(_SHARE * free_memory(torch.device("cpu")) / bytes_a_pixel),
            stop=lambda: self.stop.requested,
        )
        for group, stored in rows:
            yield from zip(group.indices, stored, strict=True)

    def _groups(self, indices: Sequence[int]) -> Iterator[_Group]:
        for size, alike in itertools.groupby(indices, self._size):
            height, width, _ = size or (0, 0, 0)
            many = max(self.restorer.batch_pixels // (height * width), 1) if size else 1
            while several := tuple(itertools.islice(alike, many)):
                yield _Group(several, height * width * len(several))

    def _size(self, index: int) -> tuple[int, int, int] | None:
        """Return height, width and bits a channel; None for what decoding will refuse."""
        try:
            info = inspect_image(self.image_set.blurry[index], deep=True)
        except UnreadableError:
            return None
        return info.height, info.width, info.bits

    def _load(self, group: _Group) -> list[tuple[Decoded, np.ndarray | None] | UnreadableError]:
        """Decode the images, and what another method made of them."""
        return [self._load_one(index) for index in group.indices]

    def _load_one(self, index: int) -> tuple[Decoded, np.ndarray | None] | UnreadableError:
        try:
            saved = read_result(self.outputs[index]) if isinstance(self.restorer, SavedResults) else None
            image = decode(self.image_set, index)
        except UnreadableError as error:
            return error
        except MemoryError:
            return self._too_large(index)
        if saved is not None and saved.shape != image.blurry.pixels.shape:
            (height, width), (expected, across) = saved.shape[:2], image.blurry.pixels.shape[:2]
            return UnreadableError(
                f"{self.outputs[index]} is {width}×{height} px, the test image {self.image_set.blurry[index]} "
                f"{across}×{expected}; expected the result of the whole image"
            )
        return image, saved

    def _too_large(self, index: int) -> UnreadableError:
        return UnreadableError(
            f"memory does not suffice to decode, save and score {self.image_set.blurry[index]}; free some, give a "
            "smaller --num_workers, or cut it into parts"
        )

    def _work(
        self, group: _Group, loaded: Sequence[tuple[Decoded, np.ndarray | None] | UnreadableError]
    ) -> tuple[list[np.ndarray], float]:
        """Return the restored images of those that could be decoded, and the seconds for each."""
        good = [each for each in loaded if not isinstance(each, UnreadableError)]
        if isinstance(self.restorer, SavedResults) or not good:
            return [saved for _, saved in good if saved is not None], 0.0
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
        for index, each in zip(group.indices, loaded, strict=True):
            if isinstance(each, UnreadableError):
                rows.append(each)
                continue
            try:
                rows.append(self._store_one(index, each[0], next(outputs), seconds))
            except UnreadableError as error:
                rows.append(error)
            except UserError as error:
                if not name_too_long(error):
                    raise
                rows.append(UnreadableError(f"{error}: the name of {self.image_set.blurry[index]} has to be shorter"))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                rows.append(self._too_large(index))
        return rows

    def _store_one(self, index: int, image: Decoded, output: np.ndarray, seconds: float) -> Row:
        height, width = image.blurry.pixels.shape[:2]
        row: Row = {"height": height, "width": width, "seconds": round(seconds, 4)}
        name = str(self.image_set.blurry[index])
        if image.blurry.frames > 1:
            self.notes.append(f"{name} holds {image.blurry.frames} pages or frames: the first one was restored")
        with self._device if self.scorer.device.type == "cuda" else nullcontext():
            before, after = score_both(self.scorer, image, output, name)
        row |= {f"input_{metric}": value for metric, value in before.items()} | after
        if isinstance(self.restorer, SavedResults):
            return row
        self.begin(self.outputs[index])
        if image.sharp is None:
            write_picture(self.outputs[index], output, image.blurry)
        else:
            write_png(self.outputs[index], to_uint8(output))
        return row
