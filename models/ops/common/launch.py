"""What the launches of all Triton kernels share; Triton itself is not imported here."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.library import CustomOpDef  # pyright: ignore[reportPrivateImportUsage] (PyTorch's types hide it)

INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"
_only_compiles = False


class Kernel(Protocol):
    """The type of functions decorated with `triton.jit`.

    By Triton's own types a launch takes what the function takes. It takes `num_warps` and the like as well, and plain
    numbers where the function has a `constexpr`.
    """

    warmup: Callable[..., object]

    def __getitem__(self, grid: tuple[object, ...], /) -> Callable[..., object]: ...


def op_name(name: str) -> str:
    """Return what PyTorch calls an operation; in a copy of this package under another name it is another operation.

    PyTorch has the operations of all packages in one table, where the last one of a name takes the place of the others.
    """
    package = __name__.removesuffix(".ops.common.launch").replace(".", "_")
    return f"aspdc_{package}::{name}"


def operation(name: str) -> Callable[[Callable[..., object]], CustomOpDef]:
    """Return a decorator that makes a function an operation of PyTorch; it must change none of its arguments.

    It differs from `torch.library.custom_op` in what is called: the function itself. PyTorch's wrapper of it would
    import `torch._dynamo` first, which takes seconds. torch.compile takes both alike.
    """

    def define(function: Callable[..., object]) -> CustomOpDef:
        defined = torch.library.custom_op(op_name(name), function, mutates_args=(), device_types=())
        torch.library.impl(op_name(name), "default", function)
        return defined

    return define


def launcher(kernel: Callable[..., object], grid: tuple[object, ...]) -> Callable[..., object]:
    """Return what launches a kernel on a grid."""
    # Where Triton is not installed, a kernel is a plain function to those who check types.
    launched = cast(Kernel, kernel)
    return partial(launched.warmup, grid=grid) if _only_compiles else launched[grid]


class CompiledKernel(Protocol):
    """A compiled kernel; `run` loads it on the current device, and makes its launcher."""

    src: object
    metadata: object
    run: object


class CollectedKernel(Protocol):
    """A kernel that was not launched: `result` reads it from Triton's cache on disk, or compiles it.

    It has to be called before a launch that is not collected.
    """

    result: Callable[[], CompiledKernel]


@contextlib.contextmanager
def only_collecting() -> Iterator[dict[str, CollectedKernel]]:
    """Collect the kernels that are launched inside on the current device, and run none: all results are undefined.

    Yields:
        the kernels that this process has not loaded yet, in the order of their first launches. A kernel has the same
        key in all processes that launch it on the same sort of GPU.
    """
    from triton import AsyncCompileMode, FutureKernel  # pyright: ignore[reportMissingImports] (optional)

    class Collection(AsyncCompileMode):
        """Compiles nothing yet."""

        def submit(self, key: str, compile_fn: Callable[[], object], finalize_fn: Callable[[object], object]) -> object:
            if key not in self.future_kernels:
                self.future_kernels[key] = FutureKernel(finalize_fn, cast(Any, SimpleNamespace(result=compile_fn)))
            return self.future_kernels[key]

    global _only_compiles
    _only_compiles = True
    try:
        # It is this thread's mode, so that backward passes have to run in it, too.
        with Collection(Executor()) as mode, torch.autograd.set_multithreading_enabled(False):
            yield cast(dict[str, CollectedKernel], mode.future_kernels)
    finally:
        _only_compiles = False


def compile_launcher(kernel: CompiledKernel) -> None:
    """Have Triton's cache on disk hold a kernel's launcher: up to 3.6 Triton compiles one for each. Uses no GPU."""
    from triton.runtime import driver  # pyright: ignore[reportMissingImports] (optional)

    cast(Any, driver.active).launcher_cls(kernel.src, kernel.metadata)


def on_disk(key: str) -> bool:
    """Return whether Triton's cache on disk has a kernel with a key that `only_collecting` gave."""
    from triton.runtime.cache import get_cache_manager  # pyright: ignore[reportMissingImports] (optional)

    # A cache elsewhere, which Triton can have, too, is not looked at.
    folder = getattr(get_cache_manager(hashlib.sha256(key.encode()).hexdigest()), "cache_dir", None)
    return bool(folder) and any(Path(folder).glob("__grp__*"))  # which is written last


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a scope in which the tensor's device is the current one, which is where kernels are launched."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@cache
def has_copy_engine(device: torch.device) -> bool:
    """Return whether the GPU copies blocks to shared memory by itself: from compute capability 9.0 on.

    Elsewhere threads load them, which takes registers, so that fewer are left for a tile.
    """
    return INTERPRET or torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def gluon_runs(device: torch.device) -> bool:
    """Return whether kernels in Gluon run on a GPU: on compute capability 9, with a Triton that compiled them before.

    Gluon is experimental: Triton 3.8 refuses to read a piece of shared memory as a longer one.
    """
    import triton  # pyright: ignore[reportMissingImports] (optional)

    hopper = not INTERPRET and torch.cuda.get_device_capability(device)[0] == 9
    return hopper and triton.__version__.startswith(("3.6.", "3.7."))


def limit_shared_memory(kernel: str, percent: int) -> None:
    """Have no more than a share of a GPU's shared memory set aside for one kernel, so that the rest is its L1 cache.

    For a kernel of more than 48 KiB Triton takes all of it, whatever the kernel needs. PyTorch brings `cuda.bindings`
    from 2.12 on; where it cannot be used, the kernel is slower.

    Args:
        kernel: its name; Triton must not have loaded it yet.
        percent: of the most that a multiprocessor can have, of which CUDA takes the next size that it offers.
    """
    from triton import knobs  # pyright: ignore[reportMissingImports] (optional)

    def loaded(module: object, function: Any, name: str, metadata_group: dict[str, str], hash: str) -> None:
        if name == kernel:
            with contextlib.suppress(ImportError, RuntimeError):
                from cuda.bindings import driver  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue] (optional)

                attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
                driver.cuFuncSetCacheConfig(driver.CUfunction(function), driver.CUfunc_cache.CU_FUNC_CACHE_PREFER_NONE)
                driver.cuFuncSetAttribute(driver.CUfunction(function), attribute, percent)

    knobs.runtime.kernel_load_end_hook.add(loaded)


def empty_nhwc(n: int, h: int, w: int, c: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty (N, C, H, W) tensor in channels_last memory, of the device and type of `like`."""
    return torch.empty(n, h, w, c, device=like.device, dtype=dtype or like.dtype).permute(0, 3, 1, 2)


def next_power_of_2(size: int) -> int:
    """Return the smallest power of two that holds `size`."""
    return 1 << (size - 1).bit_length()


def ceil_div(size: int, part: int) -> int:
    """Return how many parts cover `size`."""
    return -(-size // part)


def product_precision(dtype: torch.dtype) -> str:
    """Return how the kernels multiply values of this type.

    fp32 as TF32 where PyTorch may, else as three TF32 products of its upper and lower digits, whose sum is closer to
    the true product than cuDNN's fp32 (docs/performance.md).
    """
    if dtype == torch.float64:
        return "ieee"
    return "tf32" if dtype.itemsize == 2 or torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
