"""Ctrl-C as a request that a loop answers between two steps, not as an exception anywhere."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether Ctrl-C was pressed."""

    requested = False


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Yield what the first Ctrl-C sets; the second one raises `KeyboardInterrupt` at once.

    Processes started meanwhile (the workers that read images) do not die of Ctrl-C either.
    """
    state = Interruption()
    if threading.current_thread() is not threading.main_thread():  # only the main thread hears signals
        yield state
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if state.requested:
            raise KeyboardInterrupt
        state.requested = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)
