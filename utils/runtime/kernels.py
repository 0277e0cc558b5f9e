"""Compilation of the GPU kernels: before the work, in parallel, once a machine."""

import os
import time
from collections.abc import Callable

import torch

from models.ops.common.launch import only_compiling
from utils.runtime.distributed import DistributedContext

_MOST_THREADS = 16


def compile_kernels(run: Callable[[], object], distributed: DistributedContext, log: Callable[[str], None]) -> None:
    """Compile the kernels that `run` launches, in one process of a machine; all have to call this.

    Where Triton's cache on disk has them already, this is a matter of half a second.

    Args:
        run: is called with undefined results, and must not change weights.
        distributed: the processes of the run.
        log: gets a line when a kernel has to be compiled, and one with their number and time.
    """
    if distributed.local_rank == 0:
        start, times = time.perf_counter(), []

        def compiled() -> None:
            times.append(time.perf_counter() - start)
            if len(times) == 1:
                log("compiling kernels for this GPU, which later runs find in Triton's cache")

        threads = min(os.cpu_count() or 1, _MOST_THREADS)
        with torch.cuda.device(distributed.device), only_compiling(threads, compiled):
            run()
        if times:
            log(f"compiled {len(times)} kernels in {time.perf_counter() - start:.1f} s")
    distributed.barrier()
