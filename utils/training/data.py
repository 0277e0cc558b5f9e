"""The batches of a training run: loaded by workers, moved to the device, photographs blurred there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets import BlurSettings, BlurSynthesis, FrameCache, ImageSet
from datasets.patches import LoadedBatch, TrainingPatches, batches_of, training_loader
from datasets.sampler import SharedBatches
from utils.images.conversion import to_network_range
from utils.runtime.distributed import DistributedContext
from utils.training.image_sets import warn_of_small_frames
from utils.training.prefetch import Prefetch
from utils.training.shared_memory import check_shared_memory
from utils.training.stage import Batch


@dataclass(frozen=True)
class TrainingBatch:
    """This rank's part of a batch.

    Attributes:
        images: on the device: `blurry` and `sharp`, (N, 3, H, W) in [-1, 1], and `has_sharp`, (N,).
        names: their files.
        broken: what is wrong with frames that were replaced.
    """

    images: Batch
    names: Sequence[str]
    broken: Sequence[str]


@dataclass(frozen=True)
class DataSettings:
    """How training patches are made; see the flags of DR_training.py that have these names."""

    batch_size: int
    patch_size: int
    seed: int
    num_workers: int
    cache_dir: Path | None = None
    skip_bad_images: bool = False
    blur: Sequence[str] = ()


def prepare_data(image_sets: Sequence[ImageSet], settings: DataSettings, distributed: DistributedContext) -> None:
    """Check that the batches of some sets fit into shared memory, and decode what the cache lacks; all ranks wait.

    Frames smaller than a patch are counted in a warning.

    Raises:
        UserError: the batches do not fit; a frame cannot be decoded; or the cache cannot be written.
    """
    warn_of_small_frames(image_sets, settings.patch_size)
    frames = sum(map(len, image_sets))
    batch = math.ceil(min(settings.batch_size, frames) / distributed.world_size)
    batch_bytes = batch * max(_item_bytes(each, settings) for each in image_sets)
    batches = math.ceil(frames / settings.batch_size)
    check_shared_memory(batch_bytes, batches, settings.num_workers, distributed.local_world_size)
    if settings.cache_dir and distributed.local_rank == 0:
        sources = [path for each in image_sets for path in (*each.blurry, *(each.sharp or ()))]
        FrameCache(settings.cache_dir).build(sources, max(settings.num_workers, 1), settings.skip_bad_images)
    distributed.barrier()


def _item_bytes(image_set: ImageSet, settings: DataSettings) -> int:
    """Return the size of what `TrainingPatches` makes of a frame: one or two images of three bytes a pixel."""
    if not image_set.synthetic:
        return 2 * 3 * settings.patch_size**2
    margin = BlurSynthesis(BlurSettings().changed(list(settings.blur))).margin
    return 3 * (settings.patch_size + 2 * margin) ** 2


class TrainingData:
    """The batches of each epoch, in a new random order.

    Args:
        image_sets: the frames.
        settings: how patches are made of them.
        distributed: the processes that share each batch.

    Attributes:
        frames: number of frames per epoch.
        batches: the frames of each batch, and their weights.
    """

    def __init__(self, image_sets: Sequence[ImageSet], settings: DataSettings, distributed: DistributedContext) -> None:
        self._device, on_cuda = distributed.device, distributed.device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if on_cuda else None
        self._synthesis = BlurSynthesis(BlurSettings().changed(list(settings.blur)))
        cache = FrameCache(settings.cache_dir) if settings.cache_dir else None
        patches = TrainingPatches(
            image_sets,
            settings.patch_size,
            cache,
            skip_broken=settings.skip_bad_images,
            margin=self._synthesis.margin,
        )
        self.frames = len(patches)
        self.batches = SharedBatches(
            self.frames, settings.batch_size, settings.seed, distributed.rank, distributed.world_size
        )
        # Workers draw the blur, so that the process that launches a GPU's work need not.
        draw_blur = self._synthesis.draw if on_cuda else None
        self._loader = training_loader(patches, self.batches, settings.num_workers, on_cuda, draw_blur)
        self._upcoming: tuple[tuple[int, int], Prefetch[LoadedBatch, TrainingBatch]] | None = None

    def start(self, epoch: int, start: int) -> None:
        """Have the workers load the first batches of what `epoch` returns for the same numbers, if called next."""
        self.batches.epoch, self.batches.start = epoch, start
        self._upcoming = (epoch, start), Prefetch(batches_of(self._loader), self._on_device)

    def epoch(self, epoch: int, start: int) -> Prefetch[LoadedBatch, TrainingBatch]:
        """Return an iterator over an epoch's batches.

        Args:
            epoch: from 0 on.
            start: number of its first frames to skip, which an interrupted run has used.
        """
        if self._upcoming is None or self._upcoming[0] != (epoch, start):
            self.start(epoch, start)
        assert self._upcoming is not None
        (_, upcoming), self._upcoming = self._upcoming, None
        return upcoming

    def _on_device(self, loaded: LoadedBatch) -> TrainingBatch:
        if self._stream is None:
            images = self._images(loaded)
        else:  # while the step before computes
            current = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(self._stream):
                images = self._images(loaded)
            current.wait_stream(self._stream)
            for image in images.values():
                image.record_stream(current)  # until then its memory is not taken for the next batch
        return TrainingBatch(images, loaded["name"], [text for text in loaded["broken"] if text])

    def _images(self, loaded: LoadedBatch) -> Batch:
        images: Batch = {}
        pinned = self._stream is not None  # elsewhere a copy that does not wait could come after its source's end
        if "pairs" in loaded:
            blurry, sharp = to_network_range(loaded["pairs"].to(self._device, non_blocking=pinned))
            known = torch.tensor(loaded["has_sharp"], pin_memory=pinned)  # so that its copy waits for nothing
            has_sharp = known.to(self._device, non_blocking=pinned)
            images = {"blurry": blurry, "sharp": sharp * has_sharp.view(-1, 1, 1, 1), "has_sharp": has_sharp}
        if "photograph" in loaded:
            photograph = to_network_range(loaded["photograph"].to(self._device, non_blocking=pinned)).contiguous()
            blurry, sharp = self._synthesis(photograph, loaded["plan"] if "plan" in loaded else loaded["seed"])
            pairs = {"blurry": blurry, "sharp": sharp, "has_sharp": blurry.new_ones(len(blurry))}
            images = {name: torch.cat([images[name], new]) if images else new for name, new in pairs.items()}
        layout = torch.channels_last
        return {n: i.contiguous(memory_format=layout) if i.dim() == 4 else i for n, i in images.items()}
