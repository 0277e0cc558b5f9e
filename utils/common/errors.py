"""The one kind of error that is a message to the user rather than a defect of the program."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130  # what a shell reports after Ctrl-C
PIPE_CLOSED_STATUS = 141  # after SIGPIPE
TERMINATED_STATUS = 143  # and after SIGTERM


class UserError(Exception):
    """Something the user can put right: the message says what was expected, what was found, and what to do."""


class Terminated(BaseException):
    """The program was asked to end by SIGTERM."""


@contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Turn a `UserError` into one message without a traceback and status 2, Ctrl-C into 130 and SIGTERM into 143.

    So it is with what may not be opened, and, with status 141, where nobody reads the output any more. File names that
    are no UTF-8 are printed with escapes, to stdout as to stderr; a closed stderr takes what is printed and drops it.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 until the end of the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except UserError as error:
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


def message_of(error: UserError) -> str:
    """Return the message alone: a DataLoader's worker writes its traceback in front of it."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def some(names: Sequence[object], limit: int = 5) -> str:
    """Return the first names of a list as text, with the count of those left out."""
    shown = ", ".join(map(str, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
