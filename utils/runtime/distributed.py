"""Distributed training and testing: one process per GPU, started by torchrun; without torchrun a single process."""

import builtins
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from models.checkpoint import CheckpointError
from utils.common.errors import USAGE_STATUS, Terminated, UserError, message_of
from utils.runtime.device import pick_device
from utils.runtime.flat_parameters import FlatParameters, Gathering
from utils.runtime.gradients import GradientMean

_FAILURE = "aspdc/failure"  # the store's key under which the first rank to fail leaves its message
_PROCESS = "aspdc/process"  # with a rank behind it: the number of its process, nothing once it has left the run
_POLL = 0.5  # s
# Other ranks may wait while one validates, saves or decodes images.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class DistributedContext:
    """This process among those of the run.

    Attributes:
        device: of this process.
        rank: its number, from 0.
        world_size: number of processes.
        local_rank: its number on this node.
        local_world_size: number of processes on this node.
        is_distributed: whether torchrun started it, even a single one.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    is_distributed: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def gradient_mean(self, flat: FlatParameters) -> Gathering:
        """Return what makes a scope after which the parameters' gradient, and given numbers, are means of all ranks."""
        return GradientMean(flat, self.world_size) if self.is_distributed else flat.gathered

    def any(self, value: bool) -> bool:
        """Return whether it is true on any rank; all of them must call this."""
        return builtins.any(self.gather(value))

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of the ranks; all of them must call this."""
        if not self.is_distributed:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all ranks call this."""
        self.gather(None)


@contextmanager
def init_distributed(device: str, resume_flag: str = "--resume auto") -> Iterator[DistributedContext]:
    """Yield the context of this process; if one process fails, the others end.

    Args:
        device: value of `--device`; "auto" and "cuda" assign one GPU of the node to each process.
        resume_flag: the flag that resumes a run, for the message.

    Raises:
        UserError: the device cannot be used, or there are fewer GPUs than processes.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield DistributedContext(pick_device(device))
        return
    local_rank, node_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    store, rank, world_size = next(rendezvous("env://", timeout=_PATIENCE))

    def lost(reason: str) -> UserError:
        return UserError(f"a process of the run was lost; {resume_flag} continues from the last saved state ({reason})")

    if rank > 0:
        sys.stdout = open(os.devnull, "w", errors="replace")  # noqa: SIM115, PTH123 (every line once, by rank 0; errors go to stderr)
    try:
        chosen = _device_of(device, local_rank, node_size)
        on_cuda = chosen.type == "cuda"
        if on_cuda:
            torch.cuda.set_device(chosen)
        with _watching(store, rank, range(rank - local_rank, rank - local_rank + node_size), lost):
            dist.init_process_group(
                "nccl" if on_cuda else "gloo",
                store=PrefixStore("aspdc/group", store),
                rank=rank,
                world_size=world_size,
                timeout=_PATIENCE,
                device_id=chosen if on_cuda else None,
            )
            yield DistributedContext(chosen, rank, world_size, local_rank, node_size, is_distributed=True)
        dist.destroy_process_group()
    except (KeyboardInterrupt, Terminated):  # every rank receives the signal
        raise
    except BaseException as error:
        if is_lost_connection(error):
            end = lost(str(error).partition("\n")[0])
            _publish_failure(store, rank, end)
            raise end from None
        _publish_failure(store, rank, error)
        raise


def _device_of(name: str, local_rank: int, node_size: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if torch.cuda.device_count() < node_size:
            raise UserError(
                f"torchrun started {node_size} processes on a node with {torch.cuda.device_count()} GPUs; give "
                f"--nproc_per_node {max(torch.cuda.device_count(), 1)}, or --device cpu"
            )
        name = f"cuda:{local_rank}"
    elif name != "cpu" and node_size > 1:
        raise UserError(f"--device {name} is one device for {node_size} processes; omit --device")
    return pick_device(name)


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error means that another rank was lost."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def _publish_failure(store: Store, rank: int, error: BaseException) -> None:
    """Publish this rank's message for the others, unless another rank failed before."""
    with suppress(Exception):  # the store is gone with the first node
        if store.add(f"{_FAILURE}s", 1) == 1:
            text = (
                message_of(error)
                if isinstance(error, UserError | CheckpointError)
                else f"{type(error).__name__}: {error}"
            )
            store.set(_FAILURE, f"{rank} {text}".encode(errors="backslashreplace").decode())
        elif isinstance(error, UserError | CheckpointError):
            os._exit(USAGE_STATUS)


@contextmanager
def _watching(store: Store, rank: int, node: range, lost: Callable[[str], UserError]) -> Iterator[None]:
    """End this process when another fails or is killed: the main thread may wait for it inside NCCL forever.

    Args:
        store: of the run.
        rank: of this process.
        node: the ranks of this node, whose processes are seen to exist.
        lost: makes the message about one that was killed.
    """
    store.set(f"{_PROCESS}{rank}", str(os.getpid()))
    ended = threading.Event()
    others = [other for other in node if other != rank and os.name == "posix"]
    watch = threading.Thread(target=_watch, args=(store, rank, others, lost, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        with suppress(Exception):  # the store is gone with the first node
            store.set(f"{_PROCESS}{rank}", "")
        watch.join()  # a thread that is inside the store when Python ends aborts the process (status -6)


def _watch(
    store: Store, rank: int, others: list[int], lost: Callable[[str], UserError], ended: threading.Event
) -> None:
    while not ended.wait(_POLL):
        line = None
        try:
            gone = next((other for other in others if _was_killed(store, other)), None)
            if store.check([_FAILURE]):
                first, _, text = store.get(_FAILURE).decode().partition(" ")
                line = f"rank {rank} ends because rank {first} failed: {text}"
            elif gone is not None:
                end = lost(f"rank {gone} was killed")
                _publish_failure(store, rank, end)
                line = f"error: {end}"
        except Exception:  # the store ends with the first node; torchrun ends the rest
            return
        if line and not ended.is_set():
            print(line, file=sys.stderr, flush=True)
            os._exit(USAGE_STATUS)


def _was_killed(store: Store, rank: int) -> bool:
    """Return whether the process of a rank of this node ended, but did not leave the run."""
    key = f"{_PROCESS}{rank}"
    if not store.check([key]) or not (process := store.get(key)):
        return False
    with suppress(ProcessLookupError):
        os.kill(int(process), 0)
        return False
    return bool(store.get(key))  # it may have left just now
