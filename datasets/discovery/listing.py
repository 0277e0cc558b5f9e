"""The files below a folder of images."""

import os
from collections.abc import Iterable
from pathlib import Path

from utils.common.errors import UserError
from utils.images.codecs import SUFFIXES


class DatasetError(UserError):
    """A folder of images that cannot be used as it is; the message names the files."""


def list_images(base: Path) -> list[Path]:
    """Return the images among `list_files`."""
    return images_among(list_files(base))


def images_among(files: Iterable[Path]) -> list[Path]:
    """Return the files whose names are those of images."""
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def list_files(base: Path, unreadable_dirs: dict[Path, str] | None = None) -> list[Path]:
    """Return the files below a folder as sorted paths relative to it; hidden files and folders are skipped.

    Links to folders are followed, but into no folder twice on the way down.

    Args:
        base: the folder.
        unreadable_dirs: gets the folders that cannot be opened, relative to `base`, each with a message.

    Raises:
        DatasetError: a folder that cannot be opened, without `unreadable_dirs`.
    """

    def raise_unreadable(error: OSError) -> None:
        problem = f"{error.filename} cannot be opened: {error.strerror}"
        if unreadable_dirs is None or Path(error.filename) == base:
            raise DatasetError(problem) from error
        unreadable_dirs[Path(error.filename).relative_to(base)] = problem

    found = []
    for folder, folders, files in os.walk(base, followlinks=True, onerror=raise_unreadable):
        here = Path(folder)
        above = {here.resolve(), *here.resolve().parents}
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in above]
        relative = here.relative_to(base)
        for name in (name for name in files if name[0] != "."):
            # os.walk takes a link to a folder that it may not look at for a file.
            if Path(name).suffix.lower() not in SUFFIXES and (error := _denied(here / name)):
                raise_unreadable(error)
            else:
                found.append(relative / name)
    return sorted(found)


def _denied(path: Path) -> PermissionError | None:
    """Return the error of looking at a file if that is not allowed, else None, also of a link to nothing."""
    try:
        path.stat()
    except PermissionError as error:
        return error
    except OSError:
        pass
    return None
