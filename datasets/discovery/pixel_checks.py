"""Checks of pairs by their pixels: equal, unrelated or swapped sides, the wrong variant, input PSNR.

The limits lie between what was measured on 33 GoPro pairs and on the same pairs taken wrongly:

| measure of a pair | right | wrong |
|---|---|---|
| input PSNR | 20.6 to 27.3 dB | the next frame as partner: 14.6 to 18.2; another sequence: 7.2 to 12.4 |
| correlation at 80 px | 0.977 to 0.999 | the next frame: 0.70 to 0.97; another sequence: at most 0.38 |
| gradient energy, blurry / sharp | 0.12 to 0.51 | sides swapped: 1.96 to 8.1 |
| linear light | -0.03 to 0.10 | a `blur_gamma`: 1.03 |
| linear light, averaged frames | -0.29 to 0.27 | 0.41 to 1.78; the median 0.95 |

Linear light: GoPro's `blur` is an average of gamma-encoded frames, so both sides have one mean, and the blurry side is
darker in linear light by 1.1 to 5.8 %. `blur_gamma` is an average in linear light: there the linear means are equal.
Only one real `blur_gamma` pair was available; the last row compares 3 to 7 sharp frames, averaged in either light, with
the middle one, which is rougher than the set's own blur. Hence the median of a folder decides, and only in GoPro.
"""

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from datasets.discovery.benchmarks import published_count
from datasets.discovery.layout_table import GAMMA_DIR
from datasets.discovery.layouts import ImageSet
from datasets.discovery.pairing import Problem
from models.blocks import MIN_SIZE
from utils.common.errors import UserError, some
from utils.images.codecs import read_image
from utils.metrics.numpy_metrics import psnr

GOPRO_TEST_PSNR = (25.3, 26.0)  # dB, all 1,111 pairs; published as 25.64
GOPRO_PSNR = (18.0, 35.0)  # dB, mean of any part of GoPro
ANY_PSNR = (15.0, 45.0)  # dB, mean of any other set
SAME_SCENE_PSNR, SAME_SCENE_CORRELATION = 12.0, 0.7  # at least both
SWAPPED_ENERGY = 1.2  # the median of a set from here on
LINEAR_LIGHT = 0.5  # the median of a set from here on

_QUICK_PAIRS = 16
_THUMBNAIL = 80  # px, the longer side
_FLAT = 1.0  # grey levels: thumbnails that vary less have no correlation worth the name
_GAMMA = 2.2
_LEVELS = np.arange(256) / 255.0
_MIN_DIFFERENCE = 0.005  # of the two ratios of means, for their place between the variants to mean anything


@dataclass(frozen=True)
class PairContent:
    """What was measured of a pair.

    Attributes:
        blurry: the file.
        sharp: its partner.
        psnr: of the blurry against the sharp image in dB, infinite where they are equal.
        correlation: of the two as grey thumbnails; 1 where one of them is flat.
        energy: mean squared gradient of the blurry image over that of the sharp one, grey, at half size.
        linear_light: 0 where the means are equal as encoded, 1 where they are in linear light; NaN where it
            cannot be determined.
    """

    blurry: Path
    sharp: Path
    psnr: float
    correlation: float
    energy: float
    linear_light: float

    @property
    def equal(self) -> bool:
        """Whether both sides are the same picture."""
        return math.isinf(self.psnr)

    @property
    def related(self) -> bool:
        """Whether both sides show the same scene."""
        return self.psnr >= SAME_SCENE_PSNR and self.correlation >= SAME_SCENE_CORRELATION


def measurable(blurry: np.ndarray, sharp: np.ndarray) -> bool:
    """Whether two H×W×3 images are of one size that the networks can take."""
    return blurry.shape == sharp.shape and min(blurry.shape[:2]) >= MIN_SIZE


def measure_pair(blurry_path: Path, sharp_path: Path, blurry: np.ndarray, sharp: np.ndarray) -> PairContent:
    """Measure a decoded pair: two `measurable` uint8 images."""
    # Pillow and not OpenCV: its threads would not survive the fork of the data loader's workers.
    images = Image.fromarray(blurry), Image.fromarray(sharp)
    greys = [image.convert("L") for image in images]
    energies = [_gradient_energy(np.asarray(grey.reduce(2), np.float32)) for grey in greys]
    return PairContent(
        blurry_path,
        sharp_path,
        psnr(blurry, sharp),
        _correlation(*(_thumbnail(grey) for grey in greys)),
        (energies[0] + 1e-6) / (energies[1] + 1e-6),
        _linear_light(*images),
    )


def mean_psnr(pairs: Sequence[PairContent]) -> float | None:
    """Return the mean input PSNR in dB of the pairs whose sides differ; None without any."""
    values = [pair.psnr for pair in pairs if not pair.equal]
    return sum(values) / len(values) if values else None


def content_problems(pairs: Sequence[PairContent], image_set: ImageSet, by_folder: bool) -> list[Problem]:
    """Return what the measured pairs of a set show to be wrong.

    Args:
        pairs: all of the set, or some.
        image_set: the set.
        by_folder: check sides and variant of each folder, rather than of all pairs.
    """
    problems = []
    if equal := [pair for pair in pairs if pair.equal]:
        problems.append(_of_pairs(equal, len(pairs), "are the same picture; expected a blurry and a sharp one"))
    if unrelated := [pair for pair in pairs if not pair.related]:
        problems.append(_of_pairs(unrelated, len(pairs), "do not show the same scene; match the files again"))
    groups: dict[Path, list[PairContent]] = defaultdict(list)
    for pair in pairs:
        if pair.related and not pair.equal:
            groups[pair.blurry.parent if by_folder else image_set.root].append(pair)
    for folder, group in groups.items():
        problems += _swapped(folder, group)
        if image_set.kind == "gopro":
            problems += _variant(folder, group, image_set)
    return problems + _implausible_psnr(pairs, image_set)


def quick_check(image_set: ImageSet) -> list[str]:
    """Look at no more than 16 pairs spread evenly over a set; return a warning for each thing that seems wrong.

    Swapped or equal sides, partners of another scene, GoPro's other variant, an input PSNR that cannot be. Takes about
    a second at 1280×720 on two cores. Files that cannot be read are skipped: the error is raised when they are used.
    """
    if image_set.sharp is None or not len(image_set):
        return []
    chosen = np.linspace(0, len(image_set) - 1, min(_QUICK_PAIRS, len(image_set))).round().astype(int)
    with ThreadPoolExecutor(min(_QUICK_PAIRS, os.cpu_count() or 1)) as pool:
        measured = pool.map(
            _measure_if_possible, *([side[i] for i in chosen] for side in (image_set.blurry, image_set.sharp))
        )
        pairs = [pair for pair in measured if pair]
    return [f"WARNING: {problem.summary}" for problem in content_problems(pairs, image_set, by_folder=False)]


def _measure_if_possible(blurry_path: Path, sharp_path: Path) -> PairContent | None:
    try:
        blurry, sharp = read_image(blurry_path), read_image(sharp_path)
    except UserError:
        return None
    return measure_pair(blurry_path, sharp_path, blurry, sharp) if measurable(blurry, sharp) else None


def _of_pairs(wrong: list[PairContent], count: int, what: str) -> Problem:
    files = some([pair.blurry for pair in wrong], 3)
    each = tuple(
        f"{pair.blurry} and its partner {pair.sharp} {what}"
        + ("" if pair.equal else f" (PSNR {pair.psnr:.1f} dB, correlation {pair.correlation:.2f})")
        for pair in wrong
    )
    return Problem(f"{len(wrong)} of {count} pairs {what}: {files}", each)


def _swapped(folder: Path, pairs: list[PairContent]) -> list[Problem]:
    energy = median(pair.energy for pair in pairs)
    if energy < SWAPPED_ENERGY:
        return []
    text = (
        f"{folder}: the blurry side is sharper than the sharp one ({energy:.1f} times its gradient energy, expected "
        f"less than 1; median of {len(pairs)} pairs); swap the two sides"
    )
    return [Problem(text)]


def _variant(folder: Path, pairs: list[PairContent], image_set: ImageSet) -> list[Problem]:
    named_gamma = GAMMA_DIR in image_set.blurry[0].parts[len(image_set.root.parts) :]
    measured = [pair.linear_light for pair in pairs if not math.isnan(pair.linear_light)]
    if not measured or (median(measured) >= LINEAR_LIGHT) == named_gamma:
        return []
    expected, found = (GAMMA_DIR, "blur") if named_gamma else ("blur", GAMMA_DIR)
    text = (
        f"{folder}: expected GoPro's {expected} and found, by the brightness of {len(measured)} pairs, its {found}; "
        "replace them, the published numbers are for blur"
    )
    return [Problem(text)]


def _implausible_psnr(pairs: Sequence[PairContent], image_set: ImageSet) -> list[Problem]:
    mean = mean_psnr(pairs)
    limits, which = (GOPRO_PSNR, "part of GoPro") if image_set.kind == "gopro" else (ANY_PSNR, "set of pairs")
    all_of_them = len(pairs) == len(image_set) == published_count("gopro", "test")
    if image_set.kind == "gopro" and all_of_them and GAMMA_DIR not in image_set.layout:
        limits, which = GOPRO_TEST_PSNR, "full GoPro test set, published as 25.64"
    if mean is None or limits[0] <= mean <= limits[1]:
        return []
    count = sum(not pair.equal for pair in pairs)
    text = (
        f"{image_set.root}: the input PSNR is {mean:.2f} dB (mean of {count:,} pairs), expected {limits[0]} to "
        f"{limits[1]} for a {which}; look for a wrong folder, partners shifted by a frame, processed images"
    )
    return [Problem(text)]


def _gradient_energy(grey: np.ndarray) -> float:
    return sum(float(np.square(np.diff(grey, axis=axis)).mean()) for axis in (0, 1))


def _thumbnail(grey: Image.Image) -> np.ndarray:
    scale = min(1.0, _THUMBNAIL / max(grey.size))
    width, height = (max(1, round(side * scale)) for side in grey.size)
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.float64)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if min(a.std(), b.std()) < _FLAT:
        return 1.0
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))


def _linear_light(blurry: Image.Image, sharp: Image.Image) -> float:
    """Return where, between equal means as encoded (0) and equal means in linear light (1), a pair stands."""
    a, b = (np.reshape(image.histogram(), (3, 256)).sum(axis=0) for image in (blurry, sharp))
    if not a[1:].any() or not b[1:].any():  # black
        return math.nan
    encoded = math.log((a @ _LEVELS) / (b @ _LEVELS))
    linear = math.log((a @ _LEVELS**_GAMMA) / (b @ _LEVELS**_GAMMA))
    return encoded / (encoded - linear) if abs(encoded - linear) >= _MIN_DIFFERENCE else math.nan
