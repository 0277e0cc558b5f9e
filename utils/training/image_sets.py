"""The image sets of a training run: found, checked, and separate from what the run writes."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets import ImageSet, Sides, find_images, parse_source, quick_check
from utils.common.errors import UserError, some
from utils.images.codecs import inspect_image
from utils.metrics.numpy_metrics import MIN_SCORED_SIDE

_TIMES = re.compile(r"(?:([-+\w.]*)\*)?(.*)")
_MOST_TIMES, _MOST_FRAMES = 1000, 5_000_000  # each frame's name stands in the states as often as it is used


def find_training_sets(
    sources: Sequence[str], split: str, sides: Sides, flag: str, most_times: int = 1
) -> list[ImageSet]:
    """Return the image sets of a flag, N times for N*[KIND=]PATH, and print what was found.

    Args:
        sources: the flag's arguments.
        split: "train" or "test".
        sides: names of the folders of blurry and of sharp images, see `layouts_for`.
        flag: for errors.
        most_times: the largest N.

    Raises:
        UserError: a folder that cannot be used, or one named twice; a wrong N.
    """
    image_sets: list[ImageSet] = []
    for source in sources:
        times, text = _times_of(source, flag, most_times)
        kind, root = parse_source(text)
        if any(root.resolve() == image_set.root.resolve() for image_set in image_sets):
            raise UserError(f"{flag} names {root} twice")
        image_set = find_images(root, split, kind, sides)
        print(image_set.describe())
        for line in quick_check(image_set):
            print(f"  {line}")
        image_sets += [image_set] * times
        if (frames := sum(map(len, image_sets))) > _MOST_FRAMES:
            raise UserError(f"{flag}: {frames:,} frames an epoch; expected at most {_MOST_FRAMES:,}, with a smaller N")
    return image_sets


def _times_of(source: str, flag: str, most: int) -> tuple[int, str]:
    """Return N and [KIND=]PATH of N*[KIND=]PATH.

    Raises:
        UserError: N is not from 1 to `most`.
    """
    match = _TIMES.fullmatch(source)
    if match is None or match[1] is None:
        return 1, source
    if not re.fullmatch(f"[1-9][0-9]{{,{len(str(most)) - 1}}}", match[1]) or int(match[1]) > most:
        expected = f"N*PATH with N from 1 to {most}" if most > 1 else "a path; repeating frames is for training"
        raise UserError(f"{flag} {source}: expected {expected}; for a path with a * write ./{source}")
    return int(match[1]), match[2]


def find_data(
    trainset_dir: Sequence[str], valset_dir: Sequence[str], sides: Sides, blur: Sequence[str], stages: Sequence[str]
) -> tuple[list[ImageSet], list[ImageSet]]:
    """Return the sets to train some stages on and to validate on; see the flags of DR_training.py of these names.

    Prints what was found, and warnings of training without sharp images, and of validation on what is trained on.

    Raises:
        UserError: one cannot be used, or a stage has no sharp images.
    """
    image_sets = find_training_sets(trainset_dir, "train", sides, "--trainset_dir", _MOST_TIMES)
    validation_sets = find_training_sets(valset_dir, "test", sides, "--valset_dir")
    if blur and not any(image_set.synthetic for image_set in image_sets):
        raise UserError("--blur applies to sharp=PATH sets, and --trainset_dir has none; add one, or omit --blur")
    if list(stages) != ["finetune"] and not any(image_set.paired for image_set in image_sets):
        named = stages[0] if len(stages) == 1 else "all"
        raise UserError(f"--stage {named} needs sharp images, and no set of --trainset_dir has any; add some")
    if not any(image_set.paired for image_set in image_sets):
        print(
            "WARNING: no set of --trainset_dir has sharp images, and the reblurring consistency loss alone prefers a "
            "network that leaves its input as it is (docs/results.md): add pairs"
        )
    for image_set in validation_sets:
        check_scorable(image_set)
    validated = _blurry_files(validation_sets)
    if validated and (both := validated & _blurry_files(sets_of(stages[-1], image_sets))):
        print(
            f"WARNING: {len(both):,} of {len(validated):,} images of --valset_dir are trained on, too, and the "
            "best network is the one that knows these best; hold some out"
        )
    return image_sets, validation_sets


def warn_of_small_frames(image_sets: Sequence[ImageSet], patch_size: int) -> None:
    """Print a warning with the number of training frames that do not hold a patch, if there are any."""
    files = list(dict.fromkeys(path for image_set in image_sets for path in image_set.blurry))
    with ThreadPoolExecutor() as pool:
        infos = pool.map(inspect_image, files)
    small = [str(file) for file, info in zip(files, infos, strict=True) if min(info.height, info.width) < patch_size]
    if small:
        print(
            f"WARNING: {len(small):,} of {len(files):,} frames are smaller than a patch of {patch_size}×{patch_size} "
            f"px and are continued by their mirror images: {some(small, 2)}; a smaller --patch_size avoids it"
        )


def _blurry_files(image_sets: Sequence[ImageSet]) -> set[Path]:
    """Return what their blurry images are behind all links, once each: a set may stand there many times."""
    return {path.resolve() for path in {path for image_set in image_sets for path in image_set.blurry}}


def sets_of(stage: str, image_sets: Sequence[ImageSet]) -> list[ImageSet]:
    """Return the sets that a stage trains on: those without ground truth only in finetune."""
    return [image_set for image_set in image_sets if image_set.paired or stage == "finetune"]


def check_scorable(image_set: ImageSet) -> None:
    """Refuse a set for --valset_dir that has no ground truth, or images too small for the metrics.

    Raises:
        UserError: it has none, or has such images.
    """
    if image_set.synthetic:
        raise UserError(
            f"--valset_dir sharp={image_set.root}: sharp= photographs have no blurry partners; make pairs with "
            "`python -m tools.synthesize_blur`"
        )
    if image_set.sharp is None:
        raise UserError(f"--valset_dir {image_set.root} has no sharp images to validate against; give pairs")
    for path in image_set.blurry:
        info = inspect_image(path)
        if min(info.height, info.width) < MIN_SCORED_SIDE:
            raise UserError(
                f"--valset_dir: {path} is {info.width}×{info.height} px; SSIM needs at least "
                f"{MIN_SCORED_SIDE}×{MIN_SCORED_SIDE}"
            )


def check_outputs_outside_inputs(
    image_sets: Sequence[ImageSet], output_dir: Path, log_dir: Path, cache_dir: Path | None
) -> None:
    """Refuse to write into a set of images without ground truth, which would include the written images.

    Raises:
        UserError: a folder lies inside one of the sets.
    """
    for flag, folder in {"--output_dir": output_dir, "--log_dir": log_dir, "--cache_dir": cache_dir}.items():
        for image_set in image_sets:
            if folder and image_set.sharp is None and folder.resolve().is_relative_to(image_set.root.resolve()):
                raise UserError(f"{flag} {folder} is inside {image_set.root}, whose images are read at any depth")
