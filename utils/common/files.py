"""Files that are either complete or absent, even if writing is interrupted."""

import errno
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from utils.common.errors import UserError, format_bytes

# Several machines may share a folder, and so may containers of one machine, which number their processes by themselves.
_NUMBERS = Path("/proc/self/ns/pid")
_NUMBERED_BY = f"{platform.node()} {_NUMBERS.readlink() if _NUMBERS.is_symlink() else ''}"
_HOST = f"{zlib.crc32(_NUMBERED_BY.encode()):08x}"
_TEMPORARY = re.compile(r"\..+\.(\d+)-([0-9a-f]{8})\.tmp(\.[^.]*)?", re.DOTALL)
_STEM_BYTES = 100  # of a temporary name, which is to be no longer than the longest that a file system takes
_ABANDONED = 24 * 3600  # s
LOCK = ".aspdc.lock"


def _temporary(path: Path) -> Path:
    """Return where a file is written until it is complete; its name contains the process that writes it."""
    stem = os.fsencode(path.stem)
    if len(stem) > _STEM_BYTES:
        stem = hashlib.sha256(stem).hexdigest().encode()
    return path.with_name(f".{os.fsdecode(stem)}.{os.getpid()}-{_HOST}.tmp{path.suffix}")


def remove_stale(folders: Iterable[Path], below: Iterable[Path] = (), locked: Iterable[Path] = ()) -> None:
    """Delete incomplete files of processes that ended; call this before writing.

    Files of other machines' processes, which cannot be checked, are deleted after a day.

    Args:
        folders: folders to search, which need not exist.
        below: folders to search with all their subfolders.
        locked: folders in which nothing but runs writes, and this one holds the lock: all of theirs have ended.
    """
    found = [(path, False) for folder in folders for path in folder.glob(".*.tmp*")]
    found += [(path, False) for folder in below for path in folder.rglob(".*.tmp*")]
    found += [(path, True) for folder in locked for path in folder.glob(".*.tmp*")]
    for path, ended in found:
        if match := _TEMPORARY.fullmatch(path.name):
            with suppress(OSError):
                gone = ended or (match[2] == _HOST and not _runs(int(match[1])))
                if gone or time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()


def _runs(process: int) -> bool:
    """Return whether another process runs."""
    if process == os.getpid():
        return False
    if os.name != "posix":  # where the call below would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def exists(path: Path) -> bool:
    """Return whether a file exists; False if its name is too long for the disk."""
    return os.path.exists(path)  # noqa: PTH110 (Path.exists raises an error for it)


def name_too_long(error: UserError) -> bool:
    """Return whether `atomic_write` failed because the file name is too long for the disk."""
    return getattr(error.__cause__, "errno", None) == errno.ENAMETOOLONG


def write_problem(error: OSError, folder: Path, advice: str = "make room") -> str:
    """Return why a file cannot be written to a folder: if the disk is full, with its free space and advice."""
    if error.errno != errno.ENOSPC:
        return error.strerror or str(error)
    return f"no space left on the disk ({format_bytes(shutil.disk_usage(folder).free)} free); {advice}"


@contextmanager
def atomic_write(path: Path, advice: str = "make room", kept: str = "An existing file is unchanged") -> Iterator[Path]:
    """Yield a temporary path next to `path`; flush it to disk and rename it to `path` once the block succeeds.

    Args:
        path: the file to write.
        advice: what to do if the disk is full, for the message.
        kept: what a failure leaves intact, for the message.

    Raises:
        UserError: the file cannot be written (no permission, full disk, a folder of that name); an old one is kept.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()  # before the free space is measured
        raise UserError(f"{path} cannot be written: {write_problem(error, path.parent, advice)}. {kept}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path, flag: str) -> None:
    """Create a folder and test that it is writable, so that a long run does not fail at its first result.

    Raises:
        UserError: it cannot be created or written to; `flag` names the argument to change.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder} cannot be written in: {error.strerror or error}") from error


@contextmanager
def lock_output_dir(folder: Path, flag: str) -> Iterator[None]:
    """Create and lock a folder for the duration of the block; if it is empty afterwards, remove it.

    What is locked is the file `.aspdc.lock` in it, which names this process, and is removed at the end. The system
    releases the lock if the process dies; the file that is left then is in nobody's way. Disks that machines share
    (NFS) know such locks, too. Windows does not: there no run is kept out.

    Raises:
        UserError: it cannot be made or written in, or another run is in it; `flag` names the argument to change.
    """
    made = not exists(folder)
    check_writable(folder, flag)
    try:
        with _locked(folder / LOCK, flag):
            yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _locked(path: Path, flag: str) -> Iterator[None]:
    if os.name != "posix":
        yield
        return
    file = _open_locked(path, flag)
    try:
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
        os.fsync(file)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the lock is released: afterwards another run may have it
        os.close(file)


def _open_locked(path: Path, flag: str) -> int:
    import fcntl  # which Windows lacks

    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Not flock: workers inherit that, and hold it for five seconds after this process was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                print(f"{flag} {path.parent}: the disk has no file locks ({error.strerror}); start no other run there")
                return file
            holder = os.pread(file, 1000, 0).decode(errors="replace")
            os.close(file)
            raise UserError(
                f"another run{holder and f' ({holder})'} is writing into {flag} {path.parent}; wait until it ends, or "
                "give another folder"
            ) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # of a run that ended meanwhile, and removed it


def save_tensors(content: Any, path: Path) -> None:
    """Write what `torch.load(weights_only=True)` reads: dicts and lists of tensors, numbers and text.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # PyTorch replaces the file's own error, such as a full disk
        raise error.__context__ if isinstance(error.__context__, OSError) else OSError(str(error)) from error


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
