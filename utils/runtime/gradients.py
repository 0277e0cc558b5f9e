"""Gradients of several processes: averaged while the backward pass still computes others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.ops.common.streams import wait_aside

_CHUNKS = 4  # a tensor each: of few, the first are long ready while others are computed


class GradientMean:
    """Replaces a network's gradients by their means over the processes of the run.

    Gradients are sent in chunks of many, each as soon as its last one is computed. Nothing here waits for the GPU, so
    a step can be recorded as a CUDA graph.

    Args:
        network: the same on every process, which gets the weights of the first one.
        world_size: number of processes.
    """

    def __init__(self, network: nn.Module, world_size: int) -> None:
        self._world_size = world_size
        self._missing: list[int] | None = None  # gradients, by chunk, while they are averaged
        self._sent: list[tuple[Sequence[nn.Parameter], Tensor, dist.Work]] = []
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, src=0)
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad][::-1]
        size, seen = sum(map(Tensor.numel, parameters)), 0
        self._chunks: list[list[nn.Parameter]] = [[] for _ in range(_CHUNKS)]
        for parameter in parameters:  # the last layer's gradients come first
            chunk = seen * _CHUNKS // size
            seen += parameter.numel()
            self._chunks[chunk].append(parameter)
            parameter.register_post_accumulate_grad_hook(lambda _, chunk=chunk: self._count(chunk))

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Average the gradients that a backward pass inside this scope leaves in all parameters."""
        self._missing, self._sent = [len(chunk) for chunk in self._chunks], []
        try:
            yield
        finally:
            self._missing = None
        for chunk, gradients, work in self._sent:
            work.wait()
            if not gradients.is_cuda:
                gradients /= self._world_size  # gloo only adds
            parts = gradients.split([parameter.numel() for parameter in chunk])
            for parameter, part in zip(chunk, parts, strict=True):
                assert parameter.grad is not None
                parameter.grad = part.as_strided(parameter.grad.shape, parameter.grad.stride())

    def _count(self, chunk: int) -> None:
        """Count a gradient; after a chunk's last one, send them, as they lie in memory, as one tensor."""
        if self._missing is None:
            return
        self._missing[chunk] -= 1
        if self._missing[chunk] == 0:
            parameters = self._chunks[chunk]
            wait_aside()
            flat = [each.grad.as_strided((each.numel(),), (1,)) for each in parameters if each.grad is not None]
            gradients = torch.cat(flat)
            operation = dist.ReduceOp.AVG if gradients.is_cuda else dist.ReduceOp.SUM
            work = dist.all_reduce(gradients, operation, async_op=True)
            assert work is not None  # with async_op
            self._sent.append((parameters, gradients, work))
