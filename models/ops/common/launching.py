"""Launching Triton kernels."""

from collections.abc import Callable
from typing import Protocol, cast


class Kernel(Protocol):
    """What `triton.jit` makes of a function.

    By Triton's own types a launch takes what the function takes. It takes `num_warps` and the like as well, and plain
    numbers where the function has a `constexpr`.
    """

    def __getitem__(self, grid: tuple[object, ...], /) -> Callable[..., object]: ...


def launcher(kernel: Callable[..., object], grid: tuple[object, ...]) -> Callable[..., object]:
    """Return what launches a kernel on a grid."""
    # Where Triton is not installed, a kernel is a plain function to those who check types.
    return cast(Kernel, kernel)[grid]
