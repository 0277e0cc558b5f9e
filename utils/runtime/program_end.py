"""How a program ends: with one message and a status, not with a traceback, where the user can put it right."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

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


@contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Turn a `UserError` or `CheckpointError` into one message without a traceback, and status 2.

    Ctrl-C becomes status 130, SIGTERM 143. So it is with what may not be opened, and, with status 141, where nobody
    reads the output any more. File names that are no UTF-8 are printed with escapes, to stdout as to stderr; a closed
    stderr takes what is printed and drops it.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 until the end of the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except (UserError, CheckpointError) as error:
        _end(f"error: {message_of(error)}", USAGE_STATUS)
    except PermissionError as error:  # raised even by a look whether a file is there
        if error.filename is None:
            raise
        _end(f"error: {error.filename} cannot be opened: {error.strerror}", USAGE_STATUS)
    except BrokenPipeError:
        _end("error: what read the output has ended; let it read all, or write into a file", PIPE_CLOSED_STATUS)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED_STATUS)
    except Terminated:
        _end("terminated", TERMINATED_STATUS)
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
