"""Pictures that another method has made of a set's images, found by the ways methods name them."""

from pathlib import Path

import numpy as np

from utils.common.errors import UserError, some
from utils.images.codecs import SUFFIXES, read_image
from utils.testing.inputs import InputSet


class SavedResults:
    """A folder of restored pictures.

    An image `SEQUENCE/NNNNNN.png` is looked for as `SET/SEQUENCE/NNNNNN`, `SEQUENCE/NNNNNN`, `SEQUENCE_NNNNNN`,
    `SEQUENCE-NNNNNN` and, where no two images of the set share it, `NNNNNN`, with any suffix, at the folder's top.

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
        stems = [Path(name).with_suffix("") for name in inputs.images.names]
        names = [stem.name for stem in stems]
        found, missing = [], []
        for stem in stems[: inputs.count]:
            joined = [separator.join(stem.parts) for separator in ("_", "-")]
            ways = [Path(inputs.name) / stem, stem, *map(Path, joined)]
            if names.count(stem.name) == 1:
                ways.append(Path(stem.name))
            candidates = list(dict.fromkeys(file for way in ways for file in self._with_suffix(way)))
            if len(candidates) > 1:
                raise UserError(f"--from_results: {stem} could be any of {some(candidates)}; keep one of them")
            found += candidates
            missing += [] if candidates else [str(stem)]
        if missing:
            raise UserError(
                f"--from_results {self.folder}: {len(missing)} of {inputs.count} pictures are missing "
                f"({some(missing, 3)}); expected them under the names of the test images, as "
                "SEQUENCE/NNNNNN.png or SEQUENCE_NNNNNN.png"
            )
        return found

    def _with_suffix(self, way: Path) -> list[Path]:
        parent = self.folder / way.parent
        if not parent.is_dir():
            return []
        return [file for suffix in SUFFIXES if (file := parent / f"{way.name}{suffix}").is_file()]


def read_result(file: Path) -> np.ndarray:
    """Return a saved picture as a network's output: H×W×3 float32 in [0, 1]."""
    return read_image(file).astype(np.float32) / np.float32(255.0)
