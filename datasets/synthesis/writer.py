"""Writing synthesised pairs in GoPro's layout: from photographs, and from videos as GoPro's own were made."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.discovery.layout_table import GAMMA_DIR, SHARP_DIR
from datasets.discovery.listing import list_images
from utils.common.errors import UserError, some
from utils.common.files import atomic_write
from utils.images.codecs import UnreadableError, read_image, write_png
from utils.video import check_pyav, is_video

SIDES = ("blur", GAMMA_DIR, SHARP_DIR)
_SETTINGS = "settings.json"
_GAMMA = 2.2
_SLOW = 100  # frames a second: below, what moves makes visible steps

Pictures = tuple[np.ndarray, np.ndarray, np.ndarray]  # of `SIDES`, H×W×3 uint8


class PairFolder:
    """A folder of sequences, `SEQUENCE/{blur,blur_gamma,sharp}/NNNNNN.png`, each with the settings it was made with.

    Args:
        root: the split's folder.
        resume: leave pairs that are complete as they are.
        overwrite: replace existing files.
    """

    def __init__(self, root: Path, resume: bool, overwrite: bool) -> None:
        self.root, self._resume, self._overwrite = root, resume, overwrite
        self.written = 0
        self._settings: dict[str, int | list[int] | str] = {}

    def begin(self, sequence: str, settings: dict[str, int | list[int] | str]) -> None:
        """Set the settings of the following pairs.

        Raises:
            UserError: an existing sequence to continue was made with others.
        """
        self._settings, path = settings, self.root / sequence / _SETTINGS
        if not self._resume or not path.exists():
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"--resume: {path} cannot be read ({error}); give --overwrite") from error
        if before != settings:
            raise UserError(
                f"--resume: {path.parent} was made with {before}, not with {settings}; give the same, another OUT_DIR, "
                "or --overwrite"
            )

    def check_no_overwrite(self, sequences: Sequence[str]) -> None:
        """Raise UserError where sequences have files already unless `resume` or `overwrite` is set."""
        there = [name for name in sequences if (self.root / name).exists()]
        if there and not self._resume and not self._overwrite:
            raise UserError(
                f"{self.root} already holds {some(there)}; give --resume to continue, --overwrite to replace it, or "
                "another OUT_DIR"
            )

    def wants(self, sequence: str, number: int) -> bool:
        """Return whether a pair is to be made."""
        return not (self._resume and all(path.exists() for path in self._paths(sequence, number)))

    def write(self, sequence: str, number: int, pictures: Pictures) -> None:
        """Write the pictures of a pair, and with a sequence's first one its settings."""
        path = self.root / sequence / _SETTINGS
        if self._overwrite or not path.exists():
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(self._settings), encoding="utf-8")
        for path, picture in zip(self._paths(sequence, number), pictures, strict=True):
            write_png(path, picture)
        self.written += 1

    def _paths(self, sequence: str, number: int) -> list[Path]:
        return [self.root / sequence / side / f"{number:06}.png" for side in SIDES]


def seed_of(*parts: object) -> int:
    """Return a seed of 63 bits that follows from the parts' text."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def from_photographs(
    source: Path,
    folder: PairFolder,
    synthesise: Callable[[np.ndarray, int], Pictures],
    smallest: int,
    count: int,
    seed: int,
    long_side: int,
    blur: Sequence[str] = (),
) -> list[str]:
    """Write pairs made of each photograph below a folder, as a sequence; return a message for each skipped file.

    Args:
        source: the photographs' folder.
        folder: where the pairs go.
        synthesise: makes a pair of an H×W×3 uint8 photograph and a seed.
        smallest: px, the shorter side that it needs.
        count: pairs of each photograph.
        seed: of all that is random; a photograph's own follow from it, its name and the pair's number.
        long_side: px: larger photographs are reduced to it by area.
        blur: changes of the blur's settings, which the pairs of a sequence share.

    Raises:
        UserError: no photographs there, or pairs of theirs already; a file cannot be written.
    """
    if not source.is_dir():
        raise UserError(
            f"{source} {'is a file' if source.exists() else 'does not exist'}; expected a folder of photographs"
        )
    files = list_images(source)
    if not files:
        raise UserError(f"{source} holds no photographs; expected PNG, JPEG, TIFF or others at any depth")
    sequences = _sequence_names(files)
    folder.check_no_overwrite(sequences)
    problems = []
    for file, sequence in tqdm(list(zip(files, sequences, strict=True)), desc=str(source), dynamic_ncols=True):
        changes = {"blur": " ".join(blur)} if blur else {}
        folder.begin(sequence, {"long_side": long_side, "seed": seed, **changes})
        numbers = [number for number in range(count) if folder.wants(sequence, number)]
        if not numbers:
            continue
        try:
            photograph = reduce(read_image(source / file), long_side)
            if min(photograph.shape[:2]) < smallest:
                raise UnreadableError(
                    f"{source / file} is too small; expected {smallest} px or more on its shorter side"
                )
        except UnreadableError as error:
            problems.append(str(error))
            continue
        for number in numbers:
            folder.write(sequence, number, synthesise(photograph, seed_of(seed, sequence, number)))
    return problems


def _sequence_names(files: Sequence[Path]) -> list[str]:
    """Return each file's path as the name of one folder, without its suffix where that stays unique."""
    names = ["_".join(file.with_suffix("").parts) for file in files]
    full = ["_".join(file.parts) for file in files]
    names = [whole if names.count(name) > 1 else name for name, whole in zip(names, full, strict=True)]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"several photographs would be called {some(twice)}; rename all but one of each")
    return names


def reduce(image: np.ndarray, long_side: int) -> np.ndarray:
    """Return an image whose longer side is at most `long_side` px, by the mean over areas."""
    scale = long_side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def from_video(source: Path, folder: PairFolder, frames: tuple[int, int], seed: int) -> list[str]:
    """Write pairs of averaged successive frames of a clip, as in GoPro; return a message for each skipped file.

    Windows follow one another without overlap, each of an odd number of frames drawn from the seed. The blurry side is
    their mean, `blur` of the values and `blur_gamma` of the values to the power 2.2; the sharp side is the middle
    frame, whose number, from 0, names the pair.

    Args:
        source: a video, or a folder of frames in the order of their names.
        folder: where the pairs go, in a sequence of the source's name.
        frames: fewest and most frames of a window.
        seed: of the windows' lengths.

    Raises:
        UserError: no frames there, too few, or pairs of this name already; a file cannot be written.
    """
    sequence = source.resolve().stem if is_video(source) else source.resolve().name
    folder.check_no_overwrite([sequence])
    folder.begin(sequence, {"frames": list(frames), "seed": seed})
    rng = np.random.default_rng(seed_of(seed, sequence))
    problems: list[str] = []
    window: list[np.ndarray] = []
    length, found = _odd(rng, frames), False
    for number, frame in enumerate(_frames(source)):
        if isinstance(frame, UnreadableError):
            problems.append(str(frame))
            window = []
            continue
        if window and frame.shape != window[0].shape:
            raise UserError(
                f"{source}: frame {number} has another size than the one before; expected one clip's frames"
            )
        window.append(frame)
        if len(window) == length:
            if folder.wants(sequence, number - length // 2):
                folder.write(sequence, number - length // 2, average_frames(window))
            window, length, found = [], _odd(rng, frames), True
    if not found:
        raise UserError(f"{source} has no {length} successive frames to average; expected a longer clip")
    return problems


def average_frames(window: Sequence[np.ndarray]) -> Pictures:
    """Return the mean of an odd number of H×W×3 uint8 frames, their mean under a gamma of 2.2, and the middle one."""
    powers = (np.arange(256) / 255.0) ** _GAMMA
    values, light = np.zeros(window[0].shape, np.uint32), np.zeros(window[0].shape)
    for frame in window:
        values += frame
        light += powers[frame]
    blur = np.rint(values / len(window)).astype(np.uint8)
    gamma = np.rint(255.0 * (light / len(window)) ** (1 / _GAMMA)).astype(np.uint8)
    return blur, gamma, window[len(window) // 2]


def _odd(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(rng.choice(np.arange(limits[0] | 1, limits[1] + 1, 2)))


def _frames(source: Path) -> Iterator[np.ndarray | UnreadableError]:
    """Yield the frames of a video or a folder, in place of one that cannot be read the reason."""
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"--from_video {source} does not exist; expected a video or a folder of frames")
        check_pyav(source)
        from utils.video.reader import VideoFile  # needs it

        video = VideoFile(source)
        if video.rate < _SLOW:
            print(f"{source}: {float(video.rate):.0f} frames a second; below {_SLOW}, fast motion leaves visible steps")
        for frame in tqdm(video, desc=str(source), total=video.count or None, unit="frame", dynamic_ncols=True):
            yield frame.pixels
        return
    for file in tqdm(list_images(source), desc=str(source), unit="frame", dynamic_ncols=True):
        try:
            yield read_image(source / file)
        except UnreadableError as error:
            yield error
