"""Training data: random patches of the frames of one or more image sets."""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from datasets.augmentation import PairAugmentation
from datasets.discovery.layouts import ImageSet
from datasets.frame_cache import FrameCache
from datasets.sampler import Draw, SharedBatches
from datasets.synthesis.blur import BlurPlan
from utils.common.errors import SystemLacksError, UserError
from utils.common.memory import out_of_memory
from utils.common.signals import STOP_SIGNALS
from utils.images.codecs import read_image

# Of photographs. Scaled down, as they are in most collections, they are sharper than a camera's frames at full size:
# those of the recipe have twice the Laplacian variance of GoPro's sharp frames, enlarged by 1.25 the same spectrum.
ENLARGEMENT = 1.5
PREFETCHED = 2  # batches of each worker

Item = dict[str, Any]  # see `TrainingPatches`
LoadedBatch = dict[str, Any]  # see `collate`
DrawBlur = Callable[[list[int], int, int], BlurPlan]  # see `BlurSynthesis.draw`


class TrainingPatches(Dataset):
    """Augmented patches; `patches[frame, seed]` is always the same patch.

    Each item is a dict of `blurry` and `sharp`, (P, P, 3) uint8; `has_sharp`, 1.0 or, where the frame has no ground
    truth and `sharp` is all zeros, 0.0; `name`, the blurry file; and `broken`, what is wrong with a frame that this one
    replaces, or nothing. For a photograph to be blurred, `photograph`, (P + 2 margin, P + 2 margin, 3) uint8, and the
    `seed` of its blur replace the first three.

    Args:
        image_sets: whose frames are concatenated.
        patch_size: P in px.
        cache: of decoded frames; without one they are decoded each time.
        skip_broken: replace a frame that cannot be read by the next one instead of raising.
        margin: px around the patch of a photograph, into which the blur's motion may reach.
    """

    def __init__(
        self,
        image_sets: Sequence[ImageSet],
        patch_size: int,
        cache: FrameCache | None = None,
        skip_broken: bool = False,
        margin: int = 0,
    ) -> None:
        self.frames = [
            (blurry, image_set.sharp[i] if image_set.sharp else None, image_set.synthetic)
            for image_set in image_sets
            for i, blurry in enumerate(image_set.blurry)
        ]
        self.augment = PairAugmentation(patch_size)
        self.augment_photograph = PairAugmentation(patch_size + 2 * margin, ENLARGEMENT)
        self.read = cache.read if cache else read_image
        self.skip_broken = skip_broken

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, draw: Draw) -> Item:
        index, seed = draw
        broken: list[str] = []
        while True:
            frame = self.frames[(index + len(broken)) % len(self)]
            try:
                patch = self._photograph(frame[0], seed) if frame[2] else self._patch(*frame[:2], seed)
                return patch | {"name": str(frame[0]), "broken": "; ".join(broken)}
            except UserError as error:
                frame_to_blame = not isinstance(error, SystemLacksError) and not out_of_memory(error)
                if not (self.skip_broken and frame_to_blame) or len(broken) + 1 == len(self):
                    raise
                broken.append(str(error))

    def _photograph(self, path: Path, seed: int) -> Item:
        patch, _ = self.augment_photograph(self.read(path), None, seed)
        return {"photograph": torch.from_numpy(patch), "seed": seed}

    def _patch(self, blurry_path: Path, sharp_path: Path | None, seed: int) -> Item:
        sharp_frame = None if sharp_path is None else self.read(sharp_path)
        blurry_frame = self.read(blurry_path)
        if sharp_frame is not None and sharp_frame.shape != blurry_frame.shape:
            raise UserError(f"{blurry_path} and {sharp_path} are not of one size any more; put the right one back")
        blurry, sharp = self.augment(blurry_frame, sharp_frame, seed)
        return {
            "blurry": torch.from_numpy(blurry),
            "sharp": torch.from_numpy(np.zeros_like(blurry) if sharp is None else sharp),
            "has_sharp": float(sharp_path is not None),
        }


def collate(items: Sequence[Item], draw_blur: DrawBlur | None = None) -> LoadedBatch:
    """Return items as a batch: first those with pairs or blurry images, then the photographs to be blurred.

    `pairs`, (2, N, P, P, 3), are all blurry images, then their sharp partners: a worker hands each tensor over by a
    connection of its own, so the fewer the faster. `has_sharp`, `name` and `broken` are lists. Entries of a kind are
    missing where the batch has none of it. With `draw_blur` the photographs' blur is drawn here: a `plan` replaces
    their seeds.
    """
    photographs = [item for item in items if "photograph" in item]
    others = [item for item in items if "photograph" not in item]
    batch: LoadedBatch = {name: [item[name] for item in (*others, *photographs)] for name in ("name", "broken")}
    if others:
        images = default_collate([item["blurry"] for item in others] + [item["sharp"] for item in others])
        batch |= {"pairs": images.unflatten(0, (2, -1)), "has_sharp": [item["has_sharp"] for item in others]}
    if photographs:
        batch["photograph"] = default_collate([item["photograph"] for item in photographs])
        seeds = [item["seed"] for item in photographs]
        size = batch["photograph"].shape[1:3]
        batch |= {"plan": draw_blur(seeds, *size)} if draw_blur else {"seed": torch.tensor(seeds)}
    return batch


def training_loader(
    patches: TrainingPatches,
    batches: SharedBatches,
    num_workers: int,
    pin_memory: bool,
    draw_blur: DrawBlur | None = None,
) -> DataLoader:
    """Return a loader of batches of patches; see `collate` for `draw_blur`."""
    return DataLoader(
        patches,
        batch_sampler=batches,
        collate_fn=partial(collate, draw_blur=draw_blur),
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
    )


def batches_of(loader: DataLoader) -> Iterator[LoadedBatch]:
    """Return an iterator over an epoch of a loader, whose workers end at once when the program does."""
    iterator = iter(loader)
    # What is registered last runs first: before what PyTorch has registered for workers whose batches are pinned, which
    # waits 5 s for each of them, one after the other.
    atexit.unregister(_end_workers)
    atexit.register(_end_workers)
    return iterator


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # every worker is a process; its threads would compete for the cores
    for number in STOP_SIGNALS:  # the main process handles these
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill running workers: multiprocessing would send SIGTERM, which they ignore, and wait forever."""
    if workers := multiprocessing.active_children():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the loader's handler takes a killed worker for an error
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(timeout=5)
