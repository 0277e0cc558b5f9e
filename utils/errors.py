"""The one kind of error that is a message to the user rather than a defect of the program."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

USAGE_STATUS = 2


class UserError(Exception):
    """Something the user can put right: the message says what was expected, what was found, and what to do."""


@contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Print a `UserError` as one message without a traceback and exit with status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_STATUS)


def some(names: list[str], limit: int = 5) -> str:
    """Return the first names of a list as text, with the count of those left out."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
