"""The batches of a training run: read by workers, on the device, photographs blurred."""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from datasets import BlurSettings, BlurSynthesis, FrameCache, ImageSet
from datasets.patches import LoadedBatch, TrainingPatches, batches_of, training_loader
from datasets.sampler import SharedBatches
from utils.runtime.device import Batch, to_device
from utils.runtime.distributed import DistributedContext
from utils.training.prefetch import Prefetch

_IMAGES = ("blurry", "sharp", "has_sharp")  # what of a batch goes to the device


class TrainingData:
    """Endless epochs of batches, each epoch in an order of its own.

    Args:
        image_sets: where the frames come from.
        args: the training script's arguments.
        distributed: the processes that share each batch.

    Attributes:
        frames: how many an epoch has.
        batches: which frames make up a batch, and what they weigh.
    """

    def __init__(
        self, image_sets: Sequence[ImageSet], args: argparse.Namespace, distributed: DistributedContext
    ) -> None:
        self._device = distributed.device
        self._synthesis = BlurSynthesis(BlurSettings().changed(args.blur))
        cache = FrameCache(args.cache_dir) if args.cache_dir else None
        patches = TrainingPatches(image_sets, args.patch_size, cache, args.skip_bad_images, self._synthesis.margin)
        self.frames = len(patches)
        self.batches = SharedBatches(self.frames, args.batch_size, args.seed, distributed.rank, distributed.world_size)
        on_cuda = distributed.device.type == "cuda"
        self._loader = training_loader(patches, self.batches, args.num_workers, pin_memory=on_cuda)

    def epoch(self, epoch: int, start: int) -> Prefetch[LoadedBatch, tuple[LoadedBatch, Batch]]:
        """Return an iterator over an epoch's batches: each as loaded, and its images on the device.

        Args:
            epoch: from 0 on.
            start: frames of it that are left out, which an interrupted run has used.
        """
        self.batches.epoch, self.batches.start = epoch, start
        return Prefetch(batches_of(self._loader), self._on_device)

    def _on_device(self, loaded: LoadedBatch) -> tuple[LoadedBatch, Batch]:
        found = {name: each for name in _IMAGES if isinstance(each := loaded.get(name), Tensor)}
        images = to_device(found, self._device)
        photographs, seeds = loaded.get("photograph"), loaded.get("seed")
        if isinstance(photographs, Tensor) and isinstance(seeds, Tensor):
            blurry, sharp = self._synthesis(photographs.to(self._device, non_blocking=True), seeds)
            pairs = {"blurry": blurry, "sharp": sharp, "has_sharp": blurry.new_ones(len(blurry))}
            images = {name: torch.cat([images[name], new]) if images else new for name, new in pairs.items()}
        layout = torch.channels_last
        return loaded, {n: i.contiguous(memory_format=layout) if i.dim() == 4 else i for n, i in images.items()}
