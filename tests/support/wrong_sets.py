"""Folders of real pairs with something wrong in them."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from tests.support.samples import SAMPLES, load, save

FIRST, SECOND = (
    tuple(SAMPLES / "train" / "GOPR0372_07_00" / side / f"{number}.png" for side in ("blur", "sharp"))
    for number in ("000047", "000099")
)
OTHER_SHARP = SAMPLES / "test" / "GOPR0881_11_01" / "sharp" / "000203.png"


def put(folder: Path, name: str, blurry: Path | None, sharp: Path | None) -> None:
    """Copy files as the pair `name` of a sequence's folder."""
    for side, file in (("blur", blurry), ("sharp", sharp)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        if file:
            shutil.copy(file, folder / side / f"{name}.png")


def damage(path: Path) -> None:
    """Change one byte of the pixels' data; the header stays as it is."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def moved_camera(sharp: Path, gamma: float) -> np.ndarray:
    """Return the average of a picture moving sideways: with gamma 1 as GoPro's blur, with 2.2 as its blur_gamma."""
    frames = [np.roll(load(sharp), shift, axis=1) / 255.0 for shift in range(-6, 7)]
    return np.rint(255.0 * np.mean([frame**gamma for frame in frames], axis=0) ** (1 / gamma)).astype(np.uint8)


def everything_wrong(root: Path) -> dict[str, str]:
    """Make a folder with every kind of problem; return a regular expression for each line expected."""
    folder = root / "train" / "GOPR0372_07_00"
    blur, sharp = folder / "blur", folder / "sharp"
    for name in ("01", "02", "03", "06"):
        put(folder, name, *FIRST)
    damage(blur / "02.png")
    truncate(sharp / "03.png")
    put(folder, "04", FIRST[0], None)
    put(folder, "05", None, FIRST[1])
    damage(sharp / "05.png")
    save(sharp / "06.png", load(FIRST[1])[:, :600])
    save(blur / "07.png", size=(20, 7))
    save(sharp / "07.png", size=(20, 7))
    put(folder, "08", *SECOND)
    cv2.imwrite(str(sharp / "08.png"), cv2.imread(str(sharp / "08.png")).astype(np.uint16) * 257)
    put(folder, "09", SECOND[1], SECOND[1])
    put(folder, "10", SECOND[0], OTHER_SHARP)
    put(folder, "11", *FIRST)
    (blur / "11.png").write_bytes(b"no picture")
    put(root / "train" / "GOPR0001_00_00", "01", *reversed(FIRST))
    put(root / "train" / "GOPR0001_00_00", "02", *reversed(SECOND))
    for i, pair in enumerate((FIRST, SECOND)):
        put(root / "train" / "GOPR0002_00_00", f"0{i}", None, pair[1])
        save(root / "train" / "GOPR0002_00_00" / "blur" / f"0{i}.png", moved_camera(pair[1], 2.2))
    return {
        "damaged": r"GOPR0372_07_00/blur/02\.png is damaged or incomplete .*replace or remove it",
        "truncated": r"sharp/03\.png is damaged or incomplete .*replace or remove it",
        "no sharp": r"GOPR0372_07_00/blur/04\.png has no partner in sharp/; complete the download",
        "no blurry": r"GOPR0372_07_00/sharp/05\.png has no partner in blur/; complete the download",
        "damaged and alone": r"sharp/05\.png is damaged or incomplete",
        "unequal": r"blur/06\.png is 640×384 px but its partner .*sharp/06\.png is 600×384",
        "small": r"blur/07\.png is 20×7 px, the smallest side the networks take is 8",
        "small partner": r"sharp/07\.png is 20×7 px",
        "16 bits": r"sharp/08\.png has 16 bits per channel; convert it",
        "equal": r"blur/09\.png and its partner .*sharp/09\.png are the same picture; expected a blurry and a sharp",
        "other scene": r"blur/10\.png and its partner .*sharp/10\.png do not show the same scene.*PSNR \d+\.\d dB",
        "no image": r"blur/11\.png cannot be read as an image",
        "swapped": r"GOPR0001_00_00/blur: the blurry side is sharper than the sharp one .*swap the two sides",
        "variant": r"GOPR0002_00_00/blur: expected GoPro's blur and found, .* its blur_gamma",
    }
