"""Decoded frames on disk as raw uint8, memory-mapped, so that a crop reads its own pixels and nothing else.

Each frame is one `.npy` file of its own, written completely or not at all. Its name holds the source's path, size and
time of change: an interrupted build continues, a changed source is decoded again, and several runs can
share a folder.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.common.errors import UserError, blame_system, counted, format_bytes
from utils.common.files import atomic_write, check_writable, remove_stale
from utils.images.codecs import UnreadableError, inspect_image, read_image

_SUFFIX = ".npy"


class FrameCache:
    """A folder of decoded frames.

    Args:
        folder: of the frames; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, sources: Sequence[Path], threads: int, skip_broken: bool = False) -> None:
        """Decode the sources that the cache does not hold as they are now, with a progress bar.

        Incomplete files of processes that ended are deleted; other runs may decode into the folder at the same time.

        Args:
            sources: image files.
            threads: how many are decoded at a time.
            skip_broken: skip sources that cannot be decoded, with a message for each, instead of raising.

        Raises:
            UserError: the disk is too small for what is missing, or a source cannot be read.
        """
        remove_stale((self.folder,))
        missing = list({path: source for source in sources if not (path := self._path(source)).exists()}.values())
        if not missing:
            return
        check_writable(self.folder, "--cache_dir")
        with ThreadPoolExecutor(threads) as pool:
            needed = sum(info.height * info.width * 3 for info in pool.map(inspect_image, missing))
            free = shutil.disk_usage(self.folder).free
            if needed > free:
                raise UserError(
                    f"--cache_dir {self.folder}: {counted(len(missing), 'frame')} need{'s' * (len(missing) == 1)} "
                    f"{format_bytes(needed)}, {format_bytes(free)} are free; make room, give a folder on another disk, "
                    "or omit --cache_dir"
                )
            outdated = self._outdated(missing)
            done = tqdm(
                pool.map(self._decode_or_log if skip_broken else self._decode, missing),
                desc=f"decoding into {self.folder}",
                total=len(missing),
                unit="frame",
                dynamic_ncols=True,
            )
            for path in done:
                for old in outdated.get(_key(path), ()) if path else ():
                    if old != path:  # another run may have written it in the meantime
                        old.unlink(missing_ok=True)

    def read(self, source: Path) -> np.ndarray:
        """Return a frame as H×W×3 uint8, mapped from disk: only the pixels that are used are read.

        Raises:
            UserError: the source could not be decoded, or changed since; or its file in the cache is damaged.
        """
        path = self._path(source)
        try:
            return np.load(path, mmap_mode="r")
        except FileNotFoundError as error:
            read_image(source)  # raises the reason for which it was not decoded
            raise UserError(
                f"{source} changed after it was decoded into {self.folder}; start again to decode it again"
            ) from error
        except (OSError, ValueError, EOFError) as error:
            blame_system(error, path)
            raise UserError(
                f"{path}, decoded from {source}, is damaged ({error}); delete it and start again"
            ) from error

    def _path(self, source: Path) -> Path:
        """Return the path of a source's frame: a hash of its path, then one of its size and time of change."""
        try:
            status = source.stat()
        except OSError as error:
            blame_system(error, source)
            raise UserError(f"{source} cannot be read: {error.strerror}") from error
        key = _digest(str(source.absolute()))
        return self.folder / f"{key}-{_digest(f'{status.st_size} {status.st_mtime_ns}')}{_SUFFIX}"

    def _outdated(self, missing: Sequence[Path]) -> dict[str, list[Path]]:
        """Return the outdated frames that the missing ones replace, by their key."""
        keys = {_key(self._path(source)) for source in missing}
        outdated: dict[str, list[Path]] = {}
        for path in self.folder.glob(f"*{_SUFFIX}"):
            if _key(path) in keys:
                outdated.setdefault(_key(path), []).append(path)
        return outdated

    def _decode(self, source: Path) -> Path:
        path = self._path(source)
        frame = read_image(source)
        with atomic_write(path) as temporary:
            np.save(temporary, frame)
        return path

    def _decode_or_log(self, source: Path) -> Path | None:
        try:
            return self._decode(source)
        except UnreadableError as error:
            tqdm.write(f"skipped: {error}")
            return None


def _key(path: Path) -> str:
    return path.name.partition("-")[0]


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:24]
