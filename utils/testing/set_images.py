"""The images of a set on their way: read, and, once they are restored, scored and saved."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from utils.common.errors import UserError
from utils.common.files import name_too_long
from utils.common.memory import free_memory, out_of_memory
from utils.common.pipeline import Pipeline
from utils.images.codecs import UnreadableError, inspect_image
from utils.images.photographs import write_picture
from utils.images.saving import SaveSettings
from utils.inference.evaluation import Decoded, check_result, decode, score_both
from utils.inference.restorer import Restorer
from utils.metrics.scorer import Scorer
from utils.report.rows import Row
from utils.testing.inputs import InputSet
from utils.testing.results import Results
from utils.testing.saved_results import read_result
from utils.testing.sources import ResultSource

_SHARE = 0.25  # of the free main memory that images before and after the network may take
_BYTES_A_PIXEL, _BYTES_TO_SCORE = 60, 400  # decoded, restored, rounded; and the float64 maps of SSIM


class Batch(NamedTuple):
    """Images of one size that follow one another, by their indices in the set, with their number of pixels."""

    indices: tuple[int, ...]
    pixels: int


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image, its index in the set, and another method's result, H×W×3 float32 in [0, 1]."""

    index: int
    pair: Decoded
    saved: np.ndarray | None


@dataclass
class Restored:
    """Images that the GPU may still be at.

    Attributes:
        images: waits for them, and returns each as H×W×3 float32 in [0, 1].
        started: when they were the next, by `time.perf_counter`; 0 for those that another method restored.
    """

    images: Callable[[], list[np.ndarray]]
    started: float = 0.0


class SetImages:
    """The images of a set, on which several threads may work.

    Args:
        inputs: the set.
        source: what makes the restored images.
        scorer: of an image and its reference, or of an image without one.
        results: record each file before it is written, and notes on images.
        saving: how restored images are saved.
    """

    def __init__(
        self, inputs: InputSet, source: ResultSource, scorer: Scorer, results: Results, saving: SaveSettings
    ) -> None:
        self._inputs, self._images, self._source = inputs, inputs.images, source
        self._outputs, self._scorer = source.outputs(inputs), scorer.of(inputs.images.kind)
        self._results, self._saving = results, saving
        self._gpu = scorer.gpu  # one thread at a time computes there
        self._before = Restored(list)

    def pipeline(
        self, threads: int
    ) -> Pipeline[Batch, list[LoadedImage | UnreadableError], list[Row | UnreadableError]]:
        """Return a pipeline that reads and writes images while the network runs, in a part of the free memory."""
        bytes_a_pixel = _BYTES_TO_SCORE if self._images.paired else _BYTES_A_PIXEL
        budget = int(_SHARE * free_memory(torch.device("cpu")) / bytes_a_pixel)
        return Pipeline(threads, lambda batch: batch.pixels, budget)

    def batches(self, indices: Iterable[int]) -> Iterator[Batch]:
        """Yield images of the set in the given order, in batches where a GPU restores small ones faster so."""
        for size, alike in itertools.groupby(indices, self._size):
            height, width, _ = size or (0, 0, 0)
            many = max(self._source.restorer.batch_pixels // (height * width), 1) if size else 1
            while several := tuple(itertools.islice(alike, many)):
                yield Batch(several, height * width * len(several))

    def _size(self, index: int) -> tuple[int, int, int] | None:
        """Return height, width and bits a channel; None for what decoding will refuse."""
        try:
            info = inspect_image(self._images.blurry[index], deep=True)
        except UnreadableError:
            return None
        return info.height, info.width, info.bits

    def load(self, batch: Batch) -> list[LoadedImage | UnreadableError]:
        """Decode images, and what another method made of them; for one that cannot be used, return the error."""
        return [self._load(index) for index in batch.indices]

    def _load(self, index: int) -> LoadedImage | UnreadableError:
        output, path = self._outputs[index], self._images.blurry[index]
        try:
            saved = None if self._source.saves else read_result(output)
            pair = decode(self._images, index)
            self._saving.check_size(path, pair.blurry.pixels)
        except UnreadableError as error:
            return error
        except MemoryError:
            return self._too_large(index)
        if saved is not None and saved.shape != pair.blurry.pixels.shape:
            (height, width), (expected, across) = saved.shape[:2], pair.blurry.pixels.shape[:2]
            return UnreadableError(
                f"{output} is {width}×{height} px, the test image {path} {across}×{expected}; expected the result of "
                "the whole image"
            )
        return LoadedImage(index, pair, saved)

    def restore(self, loaded: Iterable[LoadedImage | UnreadableError]) -> Restored:
        """Start restoring those of the images that could be read, while the GPU is still at those before."""
        good = [each for each in loaded if not isinstance(each, UnreadableError)]
        if not good or not isinstance(self._source.restorer, Restorer):
            saved = [image.saved for image in good if image.saved is not None]
            return Restored(lambda: saved)
        started = time.perf_counter()
        pixels = [image.pair.blurry.pixels for image in good]
        alike = len({(each.shape, each.dtype) for each in pixels}) == 1  # a header does not describe all of an image
        with self._gpu:
            if alike and len(pixels) > 1:
                parts = [self._source.restorer.start(np.stack(pixels))]
                restored = Restored(lambda: list(parts[0]()), started)
            else:
                parts = list(map(self._source.restorer.start, pixels))
                restored = Restored(lambda: [part() for part in parts], started)
        waiting, before, self._before = time.perf_counter(), self._before, restored
        before.images()  # no more than two at a time take memory
        restored.started += time.perf_counter() - waiting
        return restored

    def score_and_save(
        self, loaded: Sequence[LoadedImage | UnreadableError], restored: Restored
    ) -> list[Row | UnreadableError]:
        """Score and save what `restore` returned; return a row of results, or the error, for each image."""
        images = restored.images()
        seconds = (time.perf_counter() - restored.started) / max(len(images), 1) if restored.started else 0.0
        outputs = iter(images)
        return [
            each if isinstance(each, UnreadableError) else self._score_and_save(each, next(outputs), seconds)
            for each in loaded
        ]

    def _score_and_save(self, image: LoadedImage, restored: np.ndarray, seconds: float) -> Row | UnreadableError:
        blurry, (path, output) = image.pair.blurry, (self._images.blurry[image.index], self._outputs[image.index])
        height, width = restored.shape[:2]
        row: Row = {
            "set": self._source.set_name(self._inputs),
            "image": self._images.names[image.index],
            "saved_as": self._results.name_of(output),
            **({"weights": self._source.name} if self._source.name else {}),
            **{"height": height, "width": width, "seconds": round(seconds, 4)},
            **({"crop_border": self._scorer.crop_border} if self._scorer.crop_border else {}),
        }
        if blurry.frames > 1:
            self._results.note(f"{path} holds {blurry.frames} pages or frames: the first one was restored")
        for note in blurry.metadata.notes:
            self._results.note(f"{path}: {note}")
        try:
            check_result(restored, str(path))
            before, after = score_both(self._scorer, image.pair, restored, str(path))
            if self._source.saves:
                self._results.begin(output)
                for note in write_picture(output, restored, blurry, self._saving):
                    self._results.note(f"{path}: {note}")
        except UnreadableError as error:
            return error
        except UserError as error:
            if not name_too_long(error):
                raise
            return UnreadableError(f"{error}: the name of {path} has to be shorter")
        except Exception as error:
            if not out_of_memory(error):
                raise
            return self._too_large(image.index)
        if failed := [what for what, of in (("input", before), ("result", after)) if of.get("aligned") == 0.0]:
            which = " and the ".join(failed)
            self._results.note(f"{path}: ECC could not align the {which}, scored unaligned (aligned: 0)")
        return row | {f"input_{name}": value for name, value in before.items()} | after

    def _too_large(self, index: int) -> UnreadableError:
        return UnreadableError(
            f"not enough memory to decode, save and score {self._images.blurry[index]}; free some, give a "
            "smaller --num_workers, or cut it into parts"
        )
