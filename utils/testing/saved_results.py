"""Pictures that another method has made of a set's images, found by the ways methods name them."""

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np

from datasets.discovery.listing import list_images
from utils.common.errors import UserError, some
from utils.images.codecs import read_image
from utils.testing.inputs import InputSet

_FOLDERS = 5  # of an image's path, the last ones, from which methods make names
_Name = tuple[str, ...]  # of a picture, the components of its path without its ending


class SavedResults:
    """A folder of restored pictures.

    A picture is an image's if its path is the image's with any of its folders left out, with any ending: as folders, or
    joined by `_` or `-`; also in a folder called like the set. `SEQUENCE/blur/NNNNNN.png` may be
    `SEQUENCE/NNNNNN.jpg`, `SEQUENCE_blur_NNNNNN.png`, `SET/SEQUENCE-NNNNNN.png`, `NNNNNN.png`. A name that fits several
    images of the set is none of theirs, unless it is the one by which results name an image.

    Args:
        folder: where the pictures lie.

    Raises:
        UserError: no such folder.
    """

    batch_pixels = 0  # they are read singly, see `utils.inference.restorer.Restorer`

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"--from_results {folder} is no folder; expected the pictures that a method saved")
        self.folder = folder

    def files(self, inputs: InputSet) -> list[Path]:
        """Return the pictures of a set's images, in their order.

        Raises:
            UserError: pictures are missing, or an image has several.
        """
        owners = _owners(inputs)
        found: dict[int, list[Path]] = defaultdict(list)
        others: list[str] = []
        for path in list_images(self.folder):
            name = path.with_suffix("").parts
            inside = name[1:] if name[0] == inputs.name else ()
            image = owners.get(name, owners.get(inside))
            if image is None:
                others.append(str(path))
            else:
                found[image].append(self.folder / path)
        stems = inputs.stems[: inputs.count]
        for i, stem in enumerate(stems):
            if len(found[i]) > 1:
                raise UserError(f"--from_results: {stem} could be any of {some(found[i])}; keep one of them")
        if missing := [stem for i, stem in enumerate(stems) if not found[i]]:
            left = f"; of none, or of several of them: {some(others, 3)}" if others else ""
            raise UserError(
                f"--from_results {self.folder}: {len(missing)} of {inputs.count} pictures are missing "
                f"({some(missing, 3)}){left}. Expected them under the names of the test images, as "
                f"SEQUENCE/NNNNNN.png or SEQUENCE_NNNNNN.png, also in {inputs.name}/"
            )
        return [found[i][0] for i in range(inputs.count)]


def _owners(inputs: InputSet) -> dict[_Name, int]:
    """Return which image of a set each name is of that is of one alone."""
    root, blurry = inputs.images.root, inputs.images.blurry
    names = [Path(stem).parts for stem in inputs.stems]
    ways = [
        _ways(name) | (_ways((*path.relative_to(root).parts[:-1], name[-1])) if path.is_relative_to(root) else set())
        for name, path in zip(names, blurry, strict=True)
    ]
    counts = Counter(way for each in ways for way in each)
    owners = {way: i for i, each in enumerate(ways) for way in each if counts[way] == 1}
    return owners | {name: i for i, name in enumerate(names)}


def _ways(name: _Name) -> set[_Name]:
    """Return an image's name with any of its folders left out, as folders and joined."""
    folders = name[:-1][-_FOLDERS:]
    kept = [(*each, name[-1]) for count in range(len(folders) + 1) for each in combinations(folders, count)]
    return {*kept, *((separator.join(each),) for each in kept for separator in "_-")}


def read_result(file: Path) -> np.ndarray:
    """Return a saved picture as a network's output: H×W×3 float32 in [0, 1]."""
    return read_image(file).astype(np.float32) / np.float32(255.0)
