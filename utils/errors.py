"""The one kind of error that is a message to the user rather than a defect of the program."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130  # what a shell reports after Ctrl-C
TERMINATED_STATUS = 143  # and after SIGTERM


class UserError(Exception):
    """Something the user can put right: the message says what was expected, what was found, and what to do."""


class Terminated(BaseException):
    """The program was asked to end by SIGTERM."""


@contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Turn a `UserError` into one message without a traceback and status 2, Ctrl-C into 130 and SIGTERM into 143.

    File names that are no UTF-8 are printed with escapes, to stdout as to stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        print(f"error: {message_of(error)}", file=sys.stderr)
        sys.exit(USAGE_STATUS)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)
    except Terminated:
        print("terminated", file=sys.stderr)
        sys.exit(TERMINATED_STATUS)


def message_of(error: UserError) -> str:
    """Return the message alone: a DataLoader's worker writes its traceback in front of it."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def some(names: Sequence[object], limit: int = 5) -> str:
    """Return the first names of a list as text, with the count of those left out."""
    shown = ", ".join(map(str, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
