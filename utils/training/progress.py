"""The progress of a training stage, and when to save its state."""

import argparse
import math
import re
import time
from dataclasses import dataclass, field
from typing import Any

from utils.common.arguments import MOST

_IN_FILES = {"samples_seen": "position"}
_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(min|epochs?|steps?)")


@dataclass
class Progress:
    """The progress of a stage.

    Attributes:
        step: number of optimizer steps.
        epoch: number of completed epochs.
        samples_seen: number of frames used in the current epoch.
        validated: the step after which the network was last validated.
        best_psnr: of all validations, in dB.
    """

    step: int = 0
    epoch: int = 0
    samples_seen: int = 0
    validated: int = 0
    best_psnr: float = -math.inf

    def to_file(self) -> dict[str, int | float]:
        """Return what a state file holds, under the names of the file format."""
        return {_IN_FILES.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def from_file(cls, content: dict[str, Any]) -> "Progress":
        """Return the progress that `to_file` wrote."""
        in_code = {name: ours for ours, name in _IN_FILES.items()}
        return cls(**{in_code.get(name, name): value for name, value in content.items()})

    def advance(self, used: int, frames: int) -> None:
        """Count a step on `used` frames of an epoch's `frames`."""
        self.step += 1
        self.samples_seen += used
        if self.samples_seen == frames:
            self.epoch, self.samples_seen = self.epoch + 1, 0

    def validation_due(self, every: int, last_step: int) -> bool:
        """Return whether to validate now: every `every` epochs, and once at the end."""
        ended = self.samples_seen == 0 and self.epoch % every == 0
        return 0 < self.step != self.validated and (ended or self.step >= last_step)

    def last_step(self, frames: int, batch_size: int, epochs: int, max_steps: int | None) -> int:
        """Return the last step of a number of epochs of `frames` frames, at most `max_steps`; it may be long past."""
        rest_of_this_epoch = math.ceil((frames - self.samples_seen) / batch_size)
        left = rest_of_this_epoch + (epochs - self.epoch - 1) * math.ceil(frames / batch_size)
        last = max(self.step + left, 0)  # batches may have been larger before
        return last if max_steps is None else min(last, max_steps)


@dataclass
class SaveEvery:
    """The interval of saved states, in minutes, epochs or steps.

    Args:
        amount: their number.
        unit: "min", "epoch" or "step".
    """

    amount: float
    unit: str
    _last: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}"

    @classmethod
    def parse(cls, text: str) -> "SaveEvery":
        """Parse `10min`, `2epochs` or `500steps`.

        Raises:
            ArgumentTypeError: the text has another form.
        """
        match = _EVERY.fullmatch(text.strip())
        amount = float(match[1]) if match else 0.0
        if match is None or not 0 < amount <= MOST or (match[2] != "min" and not amount.is_integer()):
            raise argparse.ArgumentTypeError(
                "expected a number above 0 and a unit such as 10min, 2epochs or 500steps, of epochs and steps a whole "
                f"one, got {text!r}"
            )
        return cls(amount, match[2].removesuffix("s"))

    def due(self, progress: Progress) -> bool:
        """Return, after a step or an epoch, whether to save a state."""
        if self.unit == "min":
            if time.monotonic() - self._last < 60 * self.amount:
                return False
            self._last = time.monotonic()
            return True
        if self.unit == "epoch":
            return progress.samples_seen == 0 and progress.epoch % self.amount == 0
        return progress.step % self.amount == 0
