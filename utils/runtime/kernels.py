"""Compilation of the GPU kernels: before the work, in parallel, each once a machine."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch

from models.ops.common.launch import CollectedKernel, compile_launcher, on_disk, only_collecting
from utils.common.signals import STOP_SIGNALS
from utils.runtime.distributed import DistributedContext

_MOST_PROCESSES = 16  # that compile for one GPU
_PATIENCE = 180.0  # s


def compile_kernels(run: Callable[[], object], distributed: DistributedContext, log: Callable[[str], None]) -> None:
    """Compile the kernels that `run` launches, each in one process of a machine, and load them; all have to call this.

    Where Triton's cache on disk has them already, this is a matter of half a second.

    Args:
        run: is called with undefined results, and must not change weights.
        distributed: the processes of the run.
        log: gets a line when kernels have to be compiled, and one with their number on this machine and the time.
    """
    start, processes = time.perf_counter(), distributed.local_world_size
    with torch.cuda.device(distributed.device):
        with only_collecting() as collected:
            run()
        # The same order in all processes, which look at the disk at different times.
        share = list(collected.items())[distributed.local_rank :: processes]
        missing = [kernel for key, kernel in share if not on_disk(key)]
        if missing:
            log("compiling kernels for this GPU, which later runs find in Triton's cache")
        with suppress(OSError):  # no memory for another process
            _compile_in_processes(missing, min((os.cpu_count() or 1) // processes, _MOST_PROCESSES))
        _load(kernel for _, kernel in share)  # compiles what is still missing
        first = distributed.rank - distributed.local_rank
        if count := sum(distributed.gather(len(missing))[first : first + processes]):
            log(f"compiled {count} kernels in {time.perf_counter() - start:.1f} s")
        _load(collected.values())  # the others', from the disk


def _load(kernels: Iterable[CollectedKernel]) -> None:
    """Load kernels on the current device, and compile those that are not on the disk, or their launchers.

    One after another: all launchers of Triton 3.6 are modules of one name, and of two that threads import at the same
    time one can get the other's function, which then refuses its kernel's arguments.
    """
    for kernel in kernels:
        _ = kernel.result().run


def _compile_in_processes(kernels: Sequence[CollectedKernel], processes: int) -> None:
    """Have forked processes compile kernels, as far as they get, so that Triton's cache on disk has them.

    Triton reads a kernel's source in Python, whose lock the threads of one process share. A process that is forked has
    all imports and the kernels that were collected. It must not use the GPU, and compiling does not. Whatever happens
    to it, this process compiles what is missing afterwards, or raises what is wrong.
    """
    if "fork" not in multiprocessing.get_all_start_methods() or min(processes, len(kernels)) < 2:
        return
    context = multiprocessing.get_context("fork")
    taken = context.Value("i", 0)

    def work() -> None:
        for number in STOP_SIGNALS:  # this program's main process handles these
            signal.signal(number, signal.SIG_IGN)
        gc.disable()  # what the GPU has is not this process's to free
        while True:
            with taken.get_lock():
                position = taken.value
                taken.value += 1
            if position >= len(kernels):
                return
            with suppress(Exception):
                compile_launcher(kernels[position].result())

    children = [context.Process(target=work, daemon=True) for _ in range(min(processes, len(kernels)))]
    deadline = time.monotonic() + _PATIENCE
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(max(deadline - time.monotonic(), 0))
    finally:
        for child in children:
            if child.pid is not None:
                child.kill()
                child.join()
