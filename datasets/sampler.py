"""Which frames make up a batch, and the seed of what is random about each: the same whatever the workers and ranks."""

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

Draw = tuple[int, int]  # which frame, and the seed of everything random about its patch


class SharedBatches(Sampler[list[Draw]]):
    """Every frame once an epoch in random order, each with its own seed, in batches that are divided among ranks.

    Order and seeds follow from `seed` and the epoch alone, so neither the number of workers nor that of ranks changes
    anything. Set `epoch` before each epoch, and `start` to skip the frames that an interrupted one has used.

    Args:
        length: number of frames.
        batch_size: frames of a step, over all ranks.
        seed: of order and patches.
        rank: which part of each batch is wanted.
        world: how many parts there are; they differ by one frame at most.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return math.ceil((self.length - self.start) / self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.length).tolist()
        draws = list(zip(order, rng.integers(2**32, size=self.length).tolist(), strict=True))
        for position in range(self.start, self.length, self.batch_size):
            batch = draws[position : position + self.batch_size]
            first, last = self._part(len(batch))
            yield batch[first:last] or batch[:1]

    def size(self, position: int) -> int:
        """Return how many frames the batch has, over all ranks, that begins at so many frames of the epoch."""
        return min(self.batch_size, self.length - position)

    def weight(self, position: int) -> float:
        """Return the weight of each frame of this rank's part in the batch at `position`.

        With these weights the mean over ranks of each rank's sum is the mean over the batch. A batch of fewer frames
        than ranks leaves some without: they get one that others have, too, with weight 0.
        """
        first, last = self._part(self.size(position))
        return self.world / self.size(position) if last > first else 0.0

    def _part(self, size: int) -> tuple[int, int]:
        return self.rank * size // self.world, (self.rank + 1) * size // self.world
