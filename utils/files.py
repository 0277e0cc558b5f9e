"""Files that are either complete or absent, whatever happens while they are written."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; flush it to disk and give it its name once the block has ended well.

    Raises:
        UserError: the file cannot be written (no permission, disk full, a folder of that name); an old one is kept.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; what was there is kept") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path, flag: str) -> None:
    """Make a folder and try to write in it, so that a long run does not fail at its first result.

    Raises:
        UserError: it cannot be made or written in; `flag` names the argument to change.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder} cannot be written in: {error.strerror or error}") from error


def save_tensors(content: Any, path: Path) -> None:
    """Write what `torch.load(weights_only=True)` reads: dicts and lists of tensors, numbers and text.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:  # how PyTorch reports a full disk
        raise OSError(str(error)) from error


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
