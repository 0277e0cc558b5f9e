"""Ctrl-C and SIGTERM as requests that a loop checks between two steps, not as exceptions."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from utils.common.errors import Terminated

_ONE_SIGNAL = 1.0  # s
_RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


class Interruption:
    """The signal that asked the loop to stop: None, SIGINT (Ctrl-C) or SIGTERM (a cluster takes the machine back)."""

    requested: signal.Signals | None = None
    since: float = 0.0

    def end(self) -> None:
        """Raise the exception of the received signal; SIGTERM's if another rank received it."""
        raise _RAISED[self.requested or signal.SIGTERM]


@contextmanager
def interruption(message: str = "") -> Iterator[Interruption]:
    """Yield what the first signal sets; one that comes a second or more later ends the program at once.

    The first one may arrive twice: from the terminal or cluster, and from torchrun. Processes started meanwhile (data
    loading workers) ignore these signals.

    Args:
        message: printed to stderr at the first signal.
    """
    state = Interruption()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield state
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if state.requested is None:
            state.requested, state.since = signal.Signals(number), time.monotonic()
            if message:
                os.write(2, f"\n{message}\n".encode())  # the stream itself may be in the middle of a line
        elif time.monotonic() - state.since >= _ONE_SIGNAL:
            state.end()

    before = {number: signal.signal(number, handle) for number in _RAISED}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, as Ctrl-C raises KeyboardInterrupt: no temporary file stays behind."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
