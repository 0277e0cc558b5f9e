"""Shared memory: data loading processes hand their batches over in it, and Docker's default is 64 MiB."""

import math
import shutil
from pathlib import Path

from datasets.patches import PREFETCHED
from utils.common.errors import UserError, format_bytes

SHARED_MEMORY = Path("/dev/shm")


def check_shared_memory(
    batch_bytes: int, batches: int, num_workers: int, processes: int = 1, folder: Path = SHARED_MEMORY
) -> None:
    """Refuse to start workers that could fill the shared memory: one that finds it full ends the run, at any time.

    Args:
        batch_bytes: size of a batch.
        batches: number of them in an epoch.
        num_workers: data loading processes of each process.
        processes: of this run on this machine.
        folder: where shared memory is mounted; without such a folder nothing is checked.

    Raises:
        UserError: it has less free space than the batches that can be there at once.
    """
    if not folder.is_dir():
        return

    def needed(workers: int) -> int:
        # Besides those that wait there is the one that the main process takes.
        return processes * batch_bytes * (min(PREFETCHED * workers, batches) + 1) if workers else 0

    free = shutil.disk_usage(folder).free
    if needed(num_workers) > free:
        fitting = max(workers for workers in range(num_workers) if needed(workers) <= free)
        raise UserError(
            f"{folder} has {format_bytes(free)} free, and {num_workers * processes} data loading processes keep up to "
            f"{format_bytes(needed(num_workers))} of batches there; start docker with --shm-size "
            f"{math.ceil(needed(num_workers) / 2**30)}g, or give --num_workers {fitting}"
        )
