"""The table of layouts: names of the folders that hold the two sides of pairs."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

SPLIT_NAMES = {"train": ("train",), "test": ("test", "val", "valid", "validation")}
SPLITS = tuple(SPLIT_NAMES)
SHARP_DIR, GAMMA_DIR = "sharp", "blur_gamma"
JPEG_DIRS = ("blur_jpeg", "blur_300")  # of REDS
GT_DIR, HIDE_TEST_DIRS = "GT", ("test-close-ups", "test-long-shot")


@dataclass(frozen=True)
class Layout:
    """A row: two folders at the same place of two paths that are equal otherwise.

    Names are in lower case, and found in any case and with a split in front: blur, Blur, train_blur.

    Attributes:
        blurry: name of the blurry side's folder.
        sharp: name of the sharp side's folder.
        sure: whether folders with these names hold pairs wherever both are found; if not, the user has to say so.
    """

    blurry: str
    sharp: str
    sure: bool = True


LAYOUTS = (  # the first row of which both sides are found is used
    Layout("blur", SHARP_DIR),  # GoPro, REDS, BSD
    Layout("input", "target"),  # other copies of GoPro and HIDE, as the next three
    Layout("inputs", "targets"),
    Layout("blur_crops", "sharp_crops"),
    Layout("input_crops", "target_crops"),
    Layout("input", "gt"),  # DVD
    Layout("input", "groundtruth"),
    Layout("blur", "gt"),  # RealBlur
    Layout("lq", "gt"),  # other copies of GoPro and REDS
    Layout("lq", "hq"),
    Layout("blurry", SHARP_DIR),
    Layout("blurry", "gt"),
    Layout("blurred", SHARP_DIR),
    Layout("blurred", "gt"),
    Layout("blur_jpeg", SHARP_DIR),  # REDS with JPEG
    Layout("blur_300", "sharp_300"),  # the part of it that published results are of
    Layout("traina", "trainb", sure=False),  # copies for CycleGAN
    Layout("testa", "testb", sure=False),
)
SHARP_NAMES = {*(layout.sharp for layout in LAYOUTS), "ground_truth", "hr"}
BLURRY_NAMES = {*(layout.blurry for layout in LAYOUTS), GAMMA_DIR}

Sides = tuple[str, str]  # names of the folders of blurry and of sharp images: --blur_dir and --sharp_dir
SIDES: Sides = ("blur", SHARP_DIR)


def layouts_for(sides: Sides, kind: str | None, split: str) -> list[Layout]:
    """Return the rows to try: of the default `sides` all, else theirs alone.

    Those that are not sure are tried only for kind "paired", and first those that a split's name begins. Of "reds_jpeg"
    are only the blurry images with JPEG.
    """
    if kind == "reds_jpeg" and sides == SIDES:
        return [each for each in LAYOUTS if each.blurry in JPEG_DIRS]
    if sides != SIDES:  # no others must take the place of those that were asked for
        return [Layout(_plain(sides[0]), _plain(sides[1]))]
    first = sorted(LAYOUTS, key=lambda each: not each.sure and not each.blurry.startswith(split))
    return [each for each in first if each.sure or kind == "paired"]


def known_pairs() -> str:
    """Return the names of the table's other pairs, for messages."""
    return ", ".join(f"{each.blurry}/ and {each.sharp}/" for each in LAYOUTS[1:] if each.sure)


@cache
def side_split(folder: str, side: str) -> str | None:
    """Return the split in front of a side's name, such as "train" of train_blur, or ""; None for another folder."""
    name = _plain(folder)
    if name == side:
        return ""
    split, _, rest = name.partition("_")
    return split if rest == side and any(split in names for names in SPLIT_NAMES.values()) else None


def names_a_side(folder: str, names: Iterable[str]) -> bool:
    """Return whether a folder's name is that of a side, alone or with a split in front."""
    return any(side_split(folder, name) is not None for name in names)


def names_the_sharp_side(folder: str) -> bool:
    """Return whether a folder's name is that of the sharp side, or has it as one of its words: train_sharp_bicubic."""
    return names_a_side(folder, SHARP_NAMES) or bool(set(_plain(folder).split("_")) & SHARP_NAMES)


def _plain(folder: str) -> str:
    return folder.lower().replace("-", "_")
