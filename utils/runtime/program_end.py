"""How a program ends: with one line and a status, not with a traceback, where the user can do something about it."""

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
    INTERRUPTED_STATUS,
    PIPE_CLOSED_STATUS,
    TERMINATED_STATUS,
    USAGE_STATUS,
    Terminated,
    UserError,
    message_of,
)
from utils.common.memory import out_of_memory
from utils.runtime.distributed import is_lost_connection

_LOST_WORKER = re.compile(r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed by signal|exited unexpectedly)")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class End(NamedTuple):
    """A cause that can end a program.

    Attributes:
        cause: in words.
        matches: whether an exception is of this kind.
        line: what is printed to stderr.
        status: of the process.
        saved: whether training saves its state first, where the steps before were sound.
    """

    cause: str
    matches: Callable[[BaseException], bool]
    line: Callable[[BaseException], str]
    status: int
    saved: bool


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# The first that matches counts. What none matches is a defect of ours: a traceback and status 1, the state saved.
ENDS = (
    End("a lost rank", is_lost_connection,  # `init_distributed` makes a UserError of it, which says how to resume
        lambda error: f"error: a process of the run is gone ({_first_line(error)})", USAGE_STATUS, False),
    End("what the user can put right", lambda error: isinstance(error, UserError | CheckpointError),
        lambda error: f"error: {message_of(error)}", USAGE_STATUS, True),
    End("Ctrl-C", lambda error: isinstance(error, KeyboardInterrupt),
        lambda _: "interrupted", INTERRUPTED_STATUS, True),
    End("SIGTERM", lambda error: isinstance(error, Terminated),
        lambda _: "terminated", TERMINATED_STATUS, True),
    End("nobody reads the output", lambda error: isinstance(error, BrokenPipeError),
        lambda _: "error: what read the output has ended; let it read all, or write into a file",
        PIPE_CLOSED_STATUS, True),
    End("a file that may not be opened", lambda error: isinstance(error, PermissionError) and bool(error.filename),
        lambda error: f"error: {error.filename} cannot be opened: {error.strerror}", USAGE_STATUS, True),
    End("a full disk", lambda error: isinstance(error, OSError) and error.errno in _DISK_FULL,
        lambda error: f"error: {error.filename or 'a file'} cannot be written: {error.strerror}; make room",
        USAGE_STATUS, True),
    End("lack of memory", out_of_memory,
        lambda error: f"error: memory does not suffice ({_first_line(error)}); free memory, or ask for less at a time",
        USAGE_STATUS, True),
    End("a killed data worker", lambda error: bool(_LOST_WORKER.search(str(error))),
        lambda error: f"error: a process that reads images was killed ({_first_line(error)}); often memory does not "
                      "suffice: give a smaller --num_workers", USAGE_STATUS, True),
)  # fmt: skip


def end_of(error: BaseException) -> End | None:
    """Return the row of an exception, None for a defect of the program."""
    return next((end for end in ENDS if end.matches(error)), None)


@contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Turn what `ENDS` lists into one line on stderr and a status.

    File names that are no UTF-8 are printed with escapes, to stdout as to stderr; a closed stderr takes what is printed
    and drops it.
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
        _drop_what_nobody_reads()


def _end(text: str, status: int) -> NoReturn:
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr)
    sys.exit(status)


def _drop_what_nobody_reads() -> None:
    """Let Python's own flush at the end of the program succeed: it would put its status in place of ours."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except BrokenPipeError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
