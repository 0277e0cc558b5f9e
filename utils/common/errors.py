"""Errors that are messages to the user rather than defects of the program, and the statuses they end it with."""

from collections.abc import Sequence

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130  # what a shell reports after Ctrl-C
PIPE_CLOSED_STATUS = 141  # after SIGPIPE
TERMINATED_STATUS = 143  # and after SIGTERM


class UserError(Exception):
    """Something the user can put right: the message says what was expected, what was found, and what to do."""


class Terminated(BaseException):
    """The program was asked to end by SIGTERM."""


def message_of(error: Exception) -> str:
    """Return the message alone: a DataLoader's worker writes its traceback in front of it."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def some(names: Sequence[object], limit: int = 5) -> str:
    """Return the first names of a list as text, with the count of those left out."""
    shown = ", ".join(map(str, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
