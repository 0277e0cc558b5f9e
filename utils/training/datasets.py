"""The image sets of a training run: found, looked over, and kept apart from what the run writes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import ImageSet, find_images, parse_source, quick_check
from utils.common.errors import UserError
from utils.images.codecs import inspect_image
from utils.metrics.numpy_metrics import MIN_SCORED_SIDE

_TIMES = re.compile(r"(?:(\d+)\*)?(.*)", re.DOTALL)


def find_training_sets(sources: Sequence[str], split: str, blur_dir: str, flag: str) -> list[ImageSet]:
    """Return the image sets that a flag names, one that is written N*[KIND=]PATH N times, and print what was found.

    Args:
        sources: the flag's arguments.
        split: "train" or "test".
        blur_dir: name of the blurry folders beside sharp/.
        flag: for errors.

    Raises:
        UserError: a folder that cannot be used, or one named twice.
    """
    image_sets: list[ImageSet] = []
    for source in sources:
        match = _TIMES.fullmatch(source)
        assert match is not None  # it matches any text
        times, text = match.groups()
        kind, root = parse_source(text)
        if any(root.resolve() == image_set.root.resolve() for image_set in image_sets):
            raise UserError(f"{flag} names {root} twice")
        image_set = find_images(root, split, kind, blur_dir)
        print(image_set.describe())
        for line in quick_check(image_set):
            print(f"  {line}")
        image_sets += [image_set] * int(times or 1)
    return image_sets


def check_scorable(image_set: ImageSet) -> None:
    """Refuse a set for --valset_dir that has no ground truth, or images too small for the metrics.

    Raises:
        UserError: it is one.
    """
    if image_set.sharp is None:
        raise UserError(f"--valset_dir {image_set.root} has no sharp images to validate against")
    for path in image_set.blurry:
        info = inspect_image(path)
        if min(info.height, info.width) < MIN_SCORED_SIDE:
            raise UserError(
                f"--valset_dir: {path} is {info.width}×{info.height} px; SSIM needs at least "
                f"{MIN_SCORED_SIDE}×{MIN_SCORED_SIDE}"
            )


def check_outputs_outside_inputs(image_sets: Sequence[ImageSet], outputs: Mapping[str, Path | None]) -> None:
    """Refuse to write where a set of images at any depth would take what is written for images.

    Args:
        image_sets: what is read.
        outputs: folders that are written, by their flags.

    Raises:
        UserError: a folder lies inside one of the sets.
    """
    for flag, folder in outputs.items():
        for image_set in image_sets:
            if folder and image_set.sharp is None and folder.resolve().is_relative_to(image_set.root.resolve()):
                raise UserError(f"{flag} {folder} lies inside {image_set.root}, whose images are read at any depth")
