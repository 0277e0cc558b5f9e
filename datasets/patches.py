"""Training data: random patches of the frames of one or more image sets."""

import atexit
import multiprocessing
import signal
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.augmentation import PairAugmentation
from datasets.frame_cache import FrameCache
from datasets.layouts import ImageSet
from utils.images import read_image, to_tensor

Draw = tuple[int, int]  # which frame, and the seed of everything random about its patch


class TrainingPatches(Dataset):
    """Augmented patches; `patches[frame, seed]` is the same patch whenever and wherever it is asked for.

    Each item is a dict of `blurry` and `sharp`, (3, P, P) float32 in [-1, 1], and `paired`, 1.0 or, where the frame
    has no ground truth and `sharp` is all zeros, 0.0.

    Args:
        image_sets: where the frames come from; their frames follow one another.
        patch_size: P in px.
        cache: holds the decoded frames; without one they are decoded each time.
    """

    def __init__(self, image_sets: Sequence[ImageSet], patch_size: int, cache: FrameCache | None = None) -> None:
        self.frames = [
            (blurry, image_set.sharp[i] if image_set.sharp else None)
            for image_set in image_sets
            for i, blurry in enumerate(image_set.blurry)
        ]
        self.augment = PairAugmentation(patch_size)
        self.read = cache.read if cache else read_image

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        index, seed = draw
        blurry_path, sharp_path = self.frames[index]
        sharp_frame = None if sharp_path is None else self.read(sharp_path)
        blurry, sharp = self.augment(self.read(blurry_path), sharp_frame, seed)
        blurry_patch = to_tensor(blurry)
        return {
            "blurry": blurry_patch,
            "sharp": torch.zeros_like(blurry_patch) if sharp is None else to_tensor(sharp),
            "paired": torch.tensor(float(sharp_path is not None)),
        }


class SeededOrder(Sampler[Draw]):
    """Every frame once an epoch in random order, each with a seed of its own.

    Order and seeds follow from `seed` and the epoch alone, so the number of workers changes nothing. Set `epoch` before
    each epoch, and `start` to leave out the frames that an interrupted one has used.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return self.length - self.start

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.length).tolist()
        draws = zip(order, rng.integers(2**32, size=self.length).tolist(), strict=True)
        return iter(list(draws)[self.start :])


def training_loader(
    patches: TrainingPatches, batch_size: int, seed: int, num_workers: int, pin_memory: bool
) -> tuple[DataLoader, SeededOrder]:
    """Return a loader of batches of patches and the order it follows."""
    order = SeededOrder(len(patches), seed)
    loader = DataLoader(
        patches,
        batch_size=batch_size,
        sampler=order,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
    )
    return loader, order


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # every worker is a process; threads of its own would fight over the cores
    for number in (signal.SIGINT, signal.SIGTERM):  # these are the main process's to answer
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Kill what an error left running: multiprocessing would send SIGTERM, which workers ignore, and wait for ever."""
    if workers := multiprocessing.active_children():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the loader's handler takes a killed worker for an error
        for worker in workers:
            worker.kill()
