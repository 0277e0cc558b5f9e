"""Work on other CUDA streams, so that one kernel's last blocks and another's first share the GPU."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

First = TypeVar("First")
Second = TypeVar("Second")
Gradients = Sequence[Tensor | None]
# Layers of which the parameters' gradients may be missing: more would hold more memory and gain nothing.
_LEAD = 8


@cache
def _stream(device: torch.device, purpose: str) -> torch.cuda.Stream:
    """Return a stream for one purpose: what is waited for soon must not stand behind what is not."""
    return torch.cuda.Stream(device)


def run_concurrently(first: Callable[[], First], second: Callable[[], Second], x: Tensor) -> tuple[First, Second]:
    """Return `first()` and `second()`, which run concurrently where x is on CUDA and no gradient is wanted.

    The caller keeps what `first` reads: memory that is freed may be taken by work on one stream while the other still
    reads it.
    """
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return first(), second()
    current, side = torch.cuda.current_stream(x.device), _stream(x.device, "concurrent")
    side.wait_stream(current)
    try:
        with torch.cuda.stream(side):
            one = first()
        two = second()
    finally:  # a recording with a stream that was not joined cannot end, and keeps its memory
        current.wait_stream(side)
    return one, two


class _Aside:
    """Gradients of parameters that are computed on a stream of their own, and that nothing has waited for."""

    def __init__(self) -> None:
        self.running: deque[tuple[torch.cuda.Event, torch.device, object]] = deque()  # the last is what each reads
        # Of each parameter the gradient that autograd is to keep, None where it adds several.
        self.kept: dict[Tensor, tuple[int, int] | None] = {}

    def takes(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether autograd will only keep their gradients. It reads those of others, or adds to them."""
        return all(each.is_leaf and each.grad is None and each not in self.kept for each in parameters)

    def start(self, gradients: Callable[[], Gradients], parameters: Sequence[Tensor], x: Tensor) -> Gradients:
        """Start to compute gradients of these parameters. The function holds all that it reads."""
        current, side = torch.cuda.current_stream(x.device), _stream(x.device, "gradients")
        if len(self.running) == _LEAD:
            current.wait_event(self.running.popleft()[0])
        side.wait_stream(current)
        try:
            with torch.cuda.stream(side):
                computed = gradients()
        finally:
            end = torch.cuda.Event()
            end.record(side)
            self.running.append((end, x.device, gradients))
        for parameter, gradient in zip(parameters, computed, strict=True):
            if gradient is not None and parameter.requires_grad:
                self.kept[parameter] = _state(gradient)
        return computed

    def add(self, parameters: Sequence[Tensor]) -> None:
        """Note that autograd adds other gradients to those of these parameters, which are complete."""
        self.kept.update(dict.fromkeys(parameters))

    def wait(self) -> None:
        """Let the current stream wait for all gradients that are being computed."""
        if self.running:
            end, device, _ = self.running[-1]
            torch.cuda.current_stream(device).wait_event(end)
            self.running.clear()

    def check(self) -> None:
        """Raise an error if autograd did not keep a gradient as it was, but read it, maybe before it was complete."""
        for parameter, state in self.kept.items():
            if state is not None and (parameter.grad is None or _state(parameter.grad) != state):
                raise RuntimeError(
                    f"the gradient of a parameter of shape {tuple(parameter.shape)} was copied, or added to, while it "
                    f"was computed (PyTorch {torch.__version__}); train with --deform_op torchvision and report this"
                )


def _state(gradient: Tensor) -> tuple[int, int]:
    """Return a gradient's address and the number of changes in place: another where anything was added to it."""
    return gradient.data_ptr(), gradient._version


_aside: _Aside | None = None  # of the process, not of a thread: autograd has threads of its own


@contextmanager
def parameter_gradients_aside() -> Iterator[None]:
    """Let a backward pass inside this scope not wait for the gradients of convolutions' parameters.

    After the scope they are complete. Inside, what reads a parameter's gradient has to call `wait_aside` first; in
    particular no parameter may have a hook that does not. A process has one such scope at a time.
    """
    global _aside
    _aside = aside = _Aside()
    try:
        yield
    finally:
        _aside = None
        aside.wait()
    aside.check()


def wait_aside() -> None:
    """Let the current stream wait for all parameters' gradients that are being computed."""
    if _aside is not None:
        _aside.wait()


def run_with_parameter_gradients(
    gradients: Callable[[], Gradients], rest: Callable[[], Second], x: Tensor, parameters: Sequence[Tensor]
) -> tuple[Gradients, Second]:
    """Return `gradients()`, those of the parameters, and `rest()`, as `run_concurrently` does.

    Inside `parameter_gradients_aside` the current stream does not wait for the former where nothing reads them.
    """
    if not any(each.requires_grad for each in parameters):
        return gradients(), rest()
    if _aside is None or not x.is_cuda or torch.is_grad_enabled() or not _aside.takes(parameters):
        both = run_concurrently(gradients, rest, x)
        if _aside is not None:
            _aside.add(parameters)
        return both
    return _aside.start(gradients, parameters, x), rest()
