"""Steps whose loss or gradient is not finite: counted, reported with their files, and ending the run if too many."""

import math
from collections.abc import Sequence

from utils.common.errors import UserError, relative_names, some

_FILES_SHOWN = 48


class NonFiniteGuard:
    """Counts steps that were skipped because they were not finite.

    Attributes:
        consecutive: number without a finite step in between.

    Args:
        limit: consecutive skipped steps that end the run.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.consecutive = 0

    @property
    def has_recent_nonfinite_step(self) -> bool:
        """Whether the weights may have diverged, and should not replace saved ones yet."""
        return self.consecutive > 0

    def is_bad(self, losses: dict[str, float], norm: float) -> bool:
        """Count a step, and return whether a loss or the norm of its gradient is not finite."""
        bad = not all(map(math.isfinite, [*losses.values(), norm]))
        self.consecutive = self.consecutive + 1 if bad else 0
        return bad

    def report(self, step: int, losses: dict[str, float], norm: float, names: Sequence[str]) -> str:
        """Return a message on a skipped step.

        Args:
            step: its number.
            losses: by name.
            norm: of the gradient.
            names: the files of its batch.

        Raises:
            UserError: there were too many in a row.
        """
        what = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        folder, files = relative_names(names)
        listed = some(files, _FILES_SHOWN, "\n  ")
        where = f"step {step:,}: loss {what}, gradient norm {norm:g}; its images, in {folder}:\n  {listed}"
        if self.consecutive >= self.limit:
            raise UserError(
                f"the loss or gradient was not finite in {self.consecutive} consecutive steps. Lower --lr, give "
                "--clip_grad, or look for broken images with `python -m tools.check_data`. The weights and states on "
                f"disk are from before these steps. The last of them, {where}"
            )
        return f"skipped {where}"
