"""How a program ends: with a message and an exit status instead of a traceback, if the user can fix the cause."""

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn

from models.checkpoint import CheckpointError
from utils.common.errors import (
    HUNG_UP_STATUS,
    INTERRUPTED_STATUS,
    PIPE_CLOSED_STATUS,
    TERMINATED_STATUS,
    USAGE_STATUS,
    HungUp,
    Terminated,
    UserError,
    message_of,
)
from utils.common.memory import out_of_memory
from utils.runtime.distributed import is_lost_connection

_LOST_WORKER = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed by signal|exited unexpectedly)")
_SHARED_MEMORY_FULL = re.compile(
    r"unable to allocate shared memory|workers are out of shared memory|unable to write to file </torch_"  # torch 2.4
)
_UNUSABLE_PATH = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class End(NamedTuple):
    """A cause that ends a program.

    Attributes:
        cause: its name.
        matches: whether an exception has this cause.
        line: the message on stderr.
        status: exit status.
        saved: whether training first saves its state, if the previous step is finite.
    """

    cause: str
    matches: Callable[[BaseException], bool]
    line: Callable[[BaseException], str]
    status: int
    saved: bool


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# The first match counts. Anything else is a defect of the program: traceback, status 1, state saved.
ENDS = (
    End("a lost rank", is_lost_connection,  # `init_distributed` makes a UserError of it, with the flag to resume
        lambda error: f"error: a process of the run was lost ({_first_line(error)})", USAGE_STATUS, False),
    End("a user error", lambda error: isinstance(error, UserError | CheckpointError),
        lambda error: f"error: {message_of(error)}", USAGE_STATUS, True),
    End("Ctrl-C", lambda error: isinstance(error, KeyboardInterrupt),
        lambda _: "interrupted", INTERRUPTED_STATUS, True),
    End("SIGHUP", lambda error: isinstance(error, HungUp),
        lambda _: "hung up", HUNG_UP_STATUS, True),
    End("SIGTERM", lambda error: isinstance(error, Terminated),
        lambda _: "terminated", TERMINATED_STATUS, True),
    End("a closed pipe", lambda error: isinstance(error, BrokenPipeError),
        lambda _: "error: the reader of the output has ended; let it read to the end, or use a file",
        PIPE_CLOSED_STATUS, True),
    End("a path that cannot be used", lambda error: isinstance(error, OSError) and error.errno in _UNUSABLE_PATH
        and bool(error.filename),
        lambda error: f"error: {error.filename} cannot be opened: {error.strerror}", USAGE_STATUS, True),
    End("a full disk", lambda error: isinstance(error, OSError) and error.errno in _DISK_FULL,
        lambda error: f"error: {error.filename or 'a file'} cannot be written: {error.strerror}; make room",
        USAGE_STATUS, True),
    End("full shared memory", lambda error: bool(_SHARED_MEMORY_FULL.search(str(error))),
        lambda _: "error: /dev/shm is full, in which data loading processes hand their batches over: start docker with "
                  "a larger --shm-size, or give a smaller --num_workers (0 needs none of it)", USAGE_STATUS, True),
    End("lack of memory", out_of_memory,
        lambda error: f"error: not enough memory ({_first_line(error)}); free some, or reduce batch, tile or patch",
        USAGE_STATUS, True),
    End("a killed data worker", lambda error: bool(_LOST_WORKER.search(str(error))),
        lambda error: f"error: a data loading process was killed ({_first_line(error)}), often for lack of "
                      "memory: give a smaller --num_workers", USAGE_STATUS, True),
)  # fmt: skip


def end_of(error: BaseException) -> End | None:
    """Return the row of an exception, None for a defect of the program."""
    return next((end for end in ENDS if end.matches(error)), None)


@contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Turn the exceptions in `ENDS` into a message on stderr and an exit status.

    File names that are not UTF-8 are printed with escapes; output to a closed stderr is discarded.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 until the end of the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if (end := end_of(error)) is None:
            raise
        _end(end.line(error), end.status)
    finally:
        _discard_unread_output()


def _end(text: str, status: int) -> NoReturn:
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr)
    sys.exit(status)


def _discard_unread_output() -> None:
    """Make Python's final flush succeed, which would otherwise replace the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except BrokenPipeError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
