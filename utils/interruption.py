"""Ctrl-C and SIGTERM as requests that a loop answers between two steps, not as exceptions anywhere."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from utils.errors import Terminated

_RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


class Interruption:
    """Which signal asked the loop to stop: None, SIGINT (Ctrl-C) or SIGTERM (a cluster takes the machine back)."""

    requested: signal.Signals | None = None

    def end(self) -> None:
        """Raise what ends the program with the status of the signal that was received."""
        raise _RAISED[self.requested]


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Yield what the first signal sets; the second one ends the program at once.

    Processes started meanwhile (the workers that read images) do not die of these signals either.
    """
    state = Interruption()
    if threading.current_thread() is not threading.main_thread():  # only the main thread hears signals
        yield state
        return

    def handle(number: int, frame: FrameType | None) -> None:
        second = state.requested is not None
        state.requested = signal.Signals(number)
        if second:
            state.end()

    before = {number: signal.signal(number, handle) for number in _RAISED}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
