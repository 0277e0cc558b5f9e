"""Work on a second CUDA stream, so that one kernel's last blocks and another's first share the GPU."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

First = TypeVar("First")
Second = TypeVar("Second")


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def run_concurrently(first: Callable[[], First], second: Callable[[], Second], x: Tensor) -> tuple[First, Second]:
    """Return `first()` and `second()`, which run concurrently where x is on CUDA and no gradient is wanted.

    The caller keeps what `first` reads: memory that is freed may be taken by work on one stream while the other still
    reads it.
    """
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return first(), second()
    current, side = torch.cuda.current_stream(x.device), _side_stream(x.device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        one = first()
    two = second()
    current.wait_stream(side)
    return one, two
