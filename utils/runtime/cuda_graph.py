"""CUDA graphs: kernels of a function are recorded once, and replayed with one launch."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Key = tuple[tuple[str | int, torch.Size, torch.dtype], ...]


class CudaGraph(Generic[Result]):
    """A function of CUDA tensors that is recorded as a CUDA graph after enough calls with the same shapes.

    The function has to do the same work each time: no decisions by values, no transfers to the CPU. All other
    tensors that it reads must keep their addresses; weights may only be updated inside the function. One graph is kept;
    other shapes run as usual, and replace it after enough calls in a row. The next call overwrites the result of a
    recorded one.

    As a context it releases the graph at its end, even if other references exist: destroying an NCCL process group
    waits for all graphs with its operations, and exceptions can keep references for long.

    Args:
        function: takes tensors and returns tensors, in any nesting.
        warmup: consecutive calls with the same shapes that run as usual before recording.
    """

    def __init__(self, function: Callable[..., Result], warmup: int) -> None:
        self._function = function
        self._warmup = warmup
        self._seen: Key | None = None
        self._times_seen = 0
        self._recorded: Key | None = None
        self._recording: tuple[torch.cuda.CUDAGraph, Result] | None = None  # and what it returns
        self._inputs: dict[str | int, Tensor] = {}

    def __call__(self, *tensors: Tensor, **named: Tensor) -> Result:
        """Return the function's result for these tensors."""
        arguments: dict[str | int, Tensor] = {**dict(enumerate(tensors)), **named}
        key = tuple((name, tensor.shape, tensor.dtype) for name, tensor in arguments.items())
        if key != self._recorded:
            self._times_seen = self._times_seen + 1 if key == self._seen else 1
            self._seen = key
            if self._times_seen <= self._warmup:
                return self._run_on_side_stream(arguments)
            self._record(key, arguments)
        for name, tensor in arguments.items():
            self._inputs[name].copy_(tensor)
        assert self._recording is not None  # its key is equal
        graph, result = self._recording
        graph.replay()
        return result

    def __enter__(self) -> "CudaGraph[Result]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the graph and its memory; its results must not be read any more."""
        if self._recording is not None:
            self._recording[0].reset()
        self._recorded = self._recording = self._seen = None
        self._inputs = {}

    def _run_on_side_stream(self, arguments: dict[str | int, Tensor]) -> Result:
        """Run as usual, but on a side stream: autograd must not tie the work to the default stream."""
        device = next(iter(arguments.values())).device
        current, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self._call(arguments)
        current.wait_stream(stream)
        return result

    def _record(self, key: Key, arguments: dict[str | int, Tensor]) -> None:
        self.release()
        self._inputs = {name: tensor.clone() for name, tensor in arguments.items()}
        graph = torch.cuda.CUDAGraph()
        device = next(iter(arguments.values())).device
        try:
            # Other threads (NCCL's watchdog, the one that pins memory) may use CUDA meanwhile.
            with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self._call(self._inputs)
        except BaseException:
            graph.reset()  # the error may keep references to it, and it keeps its memory
            self._inputs = {}
            raise
        self._recording, self._recorded = (graph, result), key

    def _call(self, arguments: dict[str | int, Tensor]) -> Result:
        named = {name: tensor for name, tensor in arguments.items() if isinstance(name, str)}
        return self._function(*(tensor for name, tensor in arguments.items() if isinstance(name, int)), **named)
