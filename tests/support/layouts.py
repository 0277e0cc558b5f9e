"""What is found in a folder, with paths relative to it, and HIDE's layout."""

from collections.abc import Iterable
from pathlib import Path

from datasets import ImageSet, find_images

HIDE = ("train/{1,2}.png", "test/test-close-ups/3.png", "test/test-long-shot/4.png", "GT/{1,2,3,4}.png")


def relative(paths: Iterable[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def found(root: Path, split: str = "test", **options) -> tuple[ImageSet, list[tuple[str, str | None, str]]]:
    """Return the set and its pairs as (blurry, sharp, name), paths relative to `root`."""
    images = find_images(root, split, **options)
    sharp = relative(images.sharp, root) if images.paired else [None] * len(images)
    return images, list(zip(relative(images.blurry, root), sharp, images.names, strict=True))
