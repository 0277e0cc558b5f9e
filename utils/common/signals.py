"""Ctrl-C, SIGTERM and SIGHUP as requests that a loop checks between two steps, or as exceptions."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from utils.common.errors import HungUp, Terminated

_ONE_SIGNAL = 1.0  # s
_RAISED: dict[signal.Signals, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
if os.name == "posix":
    _RAISED[signal.SIGHUP] = HungUp
STOP_SIGNALS = tuple(_RAISED)  # what the main process handles


class Interruption:
    """The signal that asked the loop to stop, None before.

    SIGINT is Ctrl-C; SIGTERM, a cluster takes the machine back; SIGHUP, the terminal or the connection is gone.
    """

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
        _discard_lost_output(number)
        if state.requested is None:
            state.requested, state.since = signal.Signals(number), time.monotonic()
            if message:
                os.write(2, f"\n{message}\n".encode())  # the stream itself may be in the middle of a line
        elif time.monotonic() - state.since >= _ONE_SIGNAL:
            state.end()

    with _handled_by(handle, _RAISED):
        yield state


@contextmanager
def end_signals_as_exceptions() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise exceptions, as Ctrl-C raises KeyboardInterrupt: no temporary file stays behind."""

    def handle(number: int, frame: FrameType | None) -> None:
        _discard_lost_output(number)
        raise _RAISED[signal.Signals(number)]

    with _handled_by(handle, [number for number in _RAISED if number != signal.SIGINT]):
        yield


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None], numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Install a handler of signals, but not of SIGHUP where `nohup` made the program ignore it."""
    before = {
        number: signal.signal(number, handle)
        for number in numbers
        if signal.Signals(number).name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _discard_lost_output(number: int) -> None:
    """After SIGHUP let output go nowhere if the terminal is gone: writing would raise an error before all is saved."""
    if signal.Signals(number).name == "SIGHUP":
        for stream in (1, 2):
            try:
                os.write(stream, b"")
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
