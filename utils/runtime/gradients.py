"""Gradients of several processes: averaged while the backward pass still computes others."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import torch.distributed as dist
from torch import Tensor

from models.ops.common.streams import wait_aside
from utils.runtime.flat_parameters import FlatParameters

_CHUNKS = 4  # a tensor each: of few, the first are long ready while others are computed
_SMALLEST = 2**20  # numbers in a chunk: to send fewer apart takes longer than what it hides


class GradientMean:
    """Gathers the means of gradients over the processes of the run, and those of a few numbers of a step.

    Gradients are sent in chunks of many, each as soon as its last one is computed. Nothing here waits for the GPU, so
    a step can be recorded as a CUDA graph.

    Args:
        flat: the parameters, the same ones on every process, which get the values of the first one.
        world_size: number of processes.
    """

    def __init__(self, flat: FlatParameters, world_size: int) -> None:
        self._flat, self._world_size = flat, world_size
        self._missing: list[int] | None = None  # gradients, by chunk, while they are averaged
        self._sent: list[tuple[Tensor, dist.Work]] = []
        dist.broadcast(flat.whole.detach(), src=0)
        sizes = [parameter.numel() for parameter in flat.parameters]
        chunks = min(_CHUNKS, max(1, sum(sizes) // _SMALLEST))
        chunk_of = [(end - size) * chunks // sum(sizes) for end, size in zip(accumulate(sizes), sizes, strict=True)]
        self._chunks = [slice(bisect_left(chunk_of, i), bisect_right(chunk_of, i)) for i in range(chunks)]
        for parameter, chunk in zip(flat.parameters, chunk_of, strict=True):
            parameter.register_post_accumulate_grad_hook(lambda _, chunk=chunk: self._count(chunk))

    @contextmanager
    def __call__(self, numbers: Tensor) -> Iterator[None]:
        """Gather the means of the gradients of a backward pass inside this scope; `numbers` become theirs meanwhile.

        Raises:
            RuntimeError: a parameter has no gradient.
        """
        self._missing, self._sent = [chunk.stop - chunk.start for chunk in self._chunks], []
        self._send(numbers)
        try:
            yield
        finally:
            missing, self._missing = self._missing, None
        if any(missing):
            raise RuntimeError(f"{sum(missing)} parameters have no gradient")
        for values, work in self._sent:
            work.wait()
            if not values.is_cuda:
                values /= self._world_size  # gloo only adds

    def _count(self, chunk: int) -> None:
        """Count a gradient; after a chunk's last one, send them, as they lie in memory, as one tensor."""
        if self._missing is None:
            return
        self._missing[chunk] -= 1
        if self._missing[chunk] == 0:
            wait_aside()
            self._send(self._flat.gather(self._chunks[chunk]))

    def _send(self, values: Tensor) -> None:
        operation = dist.ReduceOp.AVG if values.is_cuda else dist.ReduceOp.SUM
        work = dist.all_reduce(values, operation, async_op=True)
        assert work is not None  # with async_op
        self._sent.append((values, work))
