"""Memory of the machine or the GPU: how much is free, peak usage, and errors for a lack of it."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_STATUS = "/proc/self/status"
_PEAK_RSS = "VmHWM:"
# Messages of PyTorch, oneDNN (which has no clearer one) and OpenCV for a lack of memory.
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "could not create a primitive", "Insufficient memory")


def keep_freed_memory() -> None:
    """Let the C library give freed memory to the next image rather than back to the system, where that is glibc.

    Otherwise each picture of 1280×720 that is read, restored and saved costs 2,400 page faults, for which all threads
    of a process wait for one lock. Blocks above 32 MiB, the most that glibc takes here, are given back as always.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # the last on Windows
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
    mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


def free_memory(device: torch.device) -> int:
    """Return how many bytes this process may still take on a device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return min(_limits_of_main_memory(), default=8 * 2**30)


def _limits_of_main_memory() -> Iterator[int]:
    """Yield what the machine, the process's limit and its control group leave."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
    if os.name == "posix":
        import resource

        limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], _lines("/proc/self/statm")
        if limit != resource.RLIM_INFINITY and used:
            yield limit - int(used[0].split()[0]) * resource.getpagesize()
    for folder, most, now in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = _lines(f"{folder}/{most}"), _lines(f"{folder}/{now}")
        if limit and used and limit[0].isdigit():
            yield int(limit[0]) - int(used[0])


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a lack of memory, on the GPU or the CPU, or a message to the user about one."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or isinstance(error.__cause__, MemoryError):
        return True
    return any(words in str(error) for words in _NO_MEMORY)


def reset_peak(device: torch.device) -> None:
    """Reset the peak to the current usage."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (reset := Path("/proc/self/clear_refs")).exists():
        reset.write_text("5")  # Linux: the peak of the resident memory starts again


def peak_bytes(device: torch.device) -> int | None:
    """Return the peak usage since `reset_peak`: by tensors on a GPU, else by the process (Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return next((int(line.split()[1]) * 1024 for line in _lines(_STATUS) if line.startswith(_PEAK_RSS)), None)
