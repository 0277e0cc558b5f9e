"""Kernels that compile in a moment, compiled as a run compiles them, for a GPU that is not here.

python -c "from tests.support.small_kernels import *; compile_all(LOG, (1, 2, 3))"    # also in several processes
"""

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import torch
import triton
import triton.language as tl
from triton import knobs

from models.ops.common.launch import launcher
from tests.support.compile_kernels import AbsentGPU
from utils.runtime.distributed import DistributedContext, init_distributed
from utils.runtime.kernels import compile_kernels
from utils.runtime.program_end import user_errors_end_the_program

BROKEN = 1000


@triton.jit
def add_kernel(x, number: tl.constexpr):
    tl.static_assert(number < 1000)
    tl.store(x, tl.load(x) + number)


class LoadingGPU(AbsentGPU):
    """Takes kernels, too.

    Args:
        log: file that gets a line for each.
    """

    def __init__(self, log: Path) -> None:
        super().__init__(80)
        self.log, self.utils = log, self

    def launcher_cls(self, src: object, metadata: object) -> str:
        write(self.log, "launcher", threading.current_thread() is threading.main_thread())
        return "launcher"

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 2**20}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[object, object, int, int, int]:
        write(self.log, "loaded", hashlib.sha256(binary).hexdigest())
        return "module", "function", 0, 0, 1024


def write(log: Path, *words: object) -> None:
    with log.open("a") as file:  # a short line is written at once, whatever other processes write
        file.write(" ".join(map(str, (*words, os.getpid()))) + "\n")


def compile_all(
    log: str, numbers: Sequence[int], processors: int = 8, before: Callable[[DistributedContext], None] = bool
) -> None:
    """Compile a kernel for each number, in this process or, where there are several, in all of them.

    Args:
        log: file that gets a line for each kernel that was compiled, that was loaded, and of what a run logs.
        numbers: `BROKEN` makes an error.
        processors: of this machine.
        before: is called first.
    """

    def listen(*, src: object, cache_hit: bool, **_: object) -> None:
        if not cache_hit:
            write(Path(log), "compiled", src.constants[(1,)])

    def run() -> None:
        for number in (*numbers, *numbers):
            launcher(add_kernel, (1,))(torch.empty(1, device="meta"), number)

    triton.runtime.driver.set_active(LoadingGPU(Path(log)))
    knobs.compilation.listener = listen
    with (
        mock.patch("os.cpu_count", return_value=processors),
        mock.patch("torch.cuda.device", contextlib.nullcontext),
        mock.patch("torch.cuda.current_device", return_value=0),
        mock.patch("torch.cuda.set_device"),
        user_errors_end_the_program(),
        init_distributed("cpu") as distributed,
    ):
        before(distributed)
        compile_kernels(run, distributed, lambda line: write(Path(log), f"log-{distributed.rank}", line))
        sys.stdout.flush()
