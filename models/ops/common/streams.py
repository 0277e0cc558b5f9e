"""Work on a second CUDA stream, so that one kernel's last blocks and another's first share the GPU."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

First = TypeVar("First")
Second = TypeVar("Second")


@cache
def _second_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _apart(x: Tensor) -> bool:
    return x.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def on_side_stream(work: Callable[[], First], x: Tensor) -> First:
    """Return `work()`, which runs beside what is enqueued from now on, where x is on CUDA and no gradient is wanted.

    Its result may be used after `wait_side_stream`. Until then the caller keeps what the work reads: memory that is
    freed may be taken by work on the first stream while the second still reads it.
    """
    if not _apart(x):
        return work()
    other = _second_stream(x.device)
    other.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(other):
        return work()


def wait_side_stream(x: Tensor) -> None:
    """Let everything enqueued from now on wait for the work that `on_side_stream` started."""
    if _apart(x):
        torch.cuda.current_stream(x.device).wait_stream(_second_stream(x.device))


def run_concurrently(first: Callable[[], First], second: Callable[[], Second], x: Tensor) -> tuple[First, Second]:
    """Return `first()` and `second()`, which run beside each other where x is on CUDA and no gradient is wanted."""
    one = on_side_stream(first, x)
    two = second()
    wait_side_stream(x)
    return one, two
