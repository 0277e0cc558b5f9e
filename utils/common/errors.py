"""Errors for the user rather than defects of the program, exit statuses, and parts of messages."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

USAGE_STATUS = 2
HUNG_UP_STATUS = 129  # what a shell reports after SIGHUP
INTERRUPTED_STATUS = 130  # after Ctrl-C
PIPE_CLOSED_STATUS = 141  # after SIGPIPE
TERMINATED_STATUS = 143  # and after SIGTERM


class UserError(Exception):
    """An error that the user can fix: the message contains what was expected, what was found, and what to do."""


class SystemLacksError(UserError):
    """A file could not be opened or read for a reason that is the system's, not the file's."""


_SYSTEM_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)


def blame_system(error: Exception, path: Path) -> None:
    """Raise a `SystemLacksError` for an error in reading a file if the file is not to blame for it.

    Such as too many open files, or a network's disk that does not answer: whoever skips files that are damaged should
    not skip them.
    """
    if isinstance(error, OSError) and error.errno in _SYSTEM_LACKS:
        raise SystemLacksError(
            f"{path} cannot be read: {error.strerror}. The file is not to blame; start again when the system can"
        ) from error


class Terminated(BaseException):
    """The program was asked to end by SIGTERM."""


class HungUp(Terminated):
    """The program was asked to end by SIGHUP."""


def message_of(error: Exception) -> str:
    """Return the message alone: a DataLoader's worker writes its traceback in front of it."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def some(names: Sequence[object], limit: int = 5, separator: str = ", ") -> str:
    """Return the first names of a list as text, with the number of the others."""
    shown = separator.join(map(str, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun as text, such as "1 image" and "2,103 images"; the plural if it is not noun + s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def relative_names(paths: Sequence[Path | str]) -> tuple[str, list[str]]:
    """Return the folder that some files have in common, and their paths relative to it."""
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100 (keeps links, removes "..")
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
    return folder, [os.path.relpath(path, folder) for path in absolute]


def format_bytes(count: float) -> str:
    """Return an amount of memory as text: in GiB, below 0.1 GiB in MiB, below 1 MiB in KiB."""
    if count >= 0.1 * 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"
