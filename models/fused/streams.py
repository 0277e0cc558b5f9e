"""Work on a second CUDA stream, so that one kernel's last blocks and another's first share the GPU."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

First, Second = TypeVar("First"), TypeVar("Second")


@cache
def _second_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def side_by_side(first: Callable[[], First], second: Callable[[], Second], x: Tensor) -> tuple[First, Second]:
    """Return `first()` and `second()`, which run beside each other where x is on CUDA and no gradient is wanted.

    Each runs after what was enqueued before, and both before what comes after, so that memory one of them frees is
    never taken while the other still uses it.
    """
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return first(), second()
    main, other = torch.cuda.current_stream(x.device), _second_stream(x.device)
    other.wait_stream(main)
    with torch.cuda.stream(other):
        one = first()
    two = second()
    main.wait_stream(other)
    return one, two
