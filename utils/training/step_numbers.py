"""Losses and gradient norms of steps: read while the next step runs, so that the GPU does not wait for the host."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.runtime.distributed import DistributedContext
from utils.training.nonfinite_guard import NonFiniteGuard
from utils.training.run_log import Log

# Ranks wait for the slowest at each step: with one step, a rank that is 4 ms late in `reblur` would delay all.
_STEPS_LATE = 2


@dataclass(frozen=True)
class Step:
    """A step that was launched.

    Attributes:
        number: from 1.
        lr: learning rate.
        names: files of this rank's part of the batch.
        broken: what is wrong with frames that were replaced.
    """

    number: int
    lr: float
    names: Sequence[str]
    broken: Sequence[str]


class StepReader:
    """Reads losses and norms of steps, on CUDA some steps late, logs them, and counts problems.

    Every rank adds the same steps and gets the same results.

    Args:
        names: of the losses; the first is what is minimised.
        guard: counts steps that are not finite.
        distributed: the ranks.
    """

    def __init__(self, names: Sequence[str], guard: NonFiniteGuard, distributed: DistributedContext) -> None:
        self._names, self._guard, self._distributed = names, guard, distributed
        self._late = _STEPS_LATE if distributed.device.type == "cuda" else 0
        self._pending: deque[tuple[Step, Tensor, torch.cuda.Event | None]] = deque()
        self._skipped_images: set[str] = set()

    def notes(self, stop: bool, broken: Sequence[str]) -> Tensor:
        """Return what this rank tells the others with a step's losses: whether it was asked to stop, broken frames."""
        # Filled on the device: a copy from the host would wait for the GPU.
        values = (stop, len(broken))
        return torch.stack([torch.full((), float(each), device=self._distributed.device) for each in values])

    def add(self, step: Step, numbers: Tensor, log: Log) -> bool:
        """Add a step, and log those whose numbers can be read.

        Args:
            step: the launched step.
            numbers: means over all ranks of the losses and the notes, then the norm of the mean gradient, the same on
                every rank; they may be overwritten afterwards.
            log: gets the losses.

        Returns:
            whether any rank was asked to stop, in the steps that were read.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        read = None
        if numbers.is_cuda:
            numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
            read = torch.cuda.Event()
            read.record()
        self._pending.append((step, numbers, read))
        return self._read(self._late, log)

    def read_all(self, log: Log) -> bool:
        """Log all pending steps; all ranks must call this. Return as `add` does."""
        return self._read(0, log)

    def read_ahead(self, log: Log) -> bool:
        """Log pending steps up to the first one that needs communication between ranks.

        A single rank can call this, such as the one that saves a state, or one on which an error was raised.

        Returns:
            whether all steps are read, the last one finite.
        """
        while self._pending:
            _, numbers, read = self._pending[0]
            if read is not None:
                read.synchronize()
            *losses, stops, broken, norm = numbers.tolist()
            if stops or broken or not all(map(math.isfinite, (*losses, norm))):
                return False
            self._read(len(self._pending) - 1, log)
        return self.last_read_finite

    @property
    def last_read_finite(self) -> bool:
        """Whether the last step that was read is finite; if not, the weights may have diverged."""
        return not self._guard.has_recent_nonfinite_step

    @property
    def images_left_out(self) -> int:
        """Number of images that could not be read so far."""
        return len(self._skipped_images)

    def _read(self, left: int, log: Log) -> bool:
        stopping = False
        while len(self._pending) > left:
            step, numbers, read = self._pending.popleft()
            if read is not None:
                read.synchronize()
            *losses, stops, broken, norm = numbers.tolist()
            if broken:
                self._list_broken(step, log)
            self._log_step(step, dict(zip(self._names, losses, strict=True)), norm, log)
            stopping |= stops > 0
        return stopping

    def _log_step(self, step: Step, losses: dict[str, float], norm: float, log: Log) -> None:
        if self._guard.is_bad(losses, norm):
            files = [name for each in self._distributed.gather(step.names) for name in each]
            log.skipped(self._guard.report(step.number, losses, norm, files), step.lr)
        else:
            log.step(step.number, losses, norm, step.lr)

    def _list_broken(self, step: Step, log: Log) -> None:
        for text in (text for each in self._distributed.gather(step.broken) for text in each):
            if text not in self._skipped_images:
                self._skipped_images.add(text)
                log.line(f"skipped in every epoch: {text}")
