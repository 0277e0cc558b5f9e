"""The small pictures of report.html: thumbnails, and JPEG previews of what browsers do not show."""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from utils.common.files import atomic_write
from utils.images.codecs import UnreadableError, inspect_image, readable
from utils.images.photographs import read_picture

_THUMBNAIL = (240, 240)  # px: twice the size at which the page shows it, for dense displays
_PREVIEW_QUALITY, _THUMBNAIL_QUALITY = 95, 80
_THREADS = min(16, os.cpu_count() or 1)  # Pillow decodes nearly all the time without Python's lock
_SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
_UPRIGHT_IN_BROWSERS = (".jpg", ".jpeg")  # EXIF orientation: Chromium follows it in others, but not in WebP


def make_files(
    folder: Path, pictures: Iterable[dict[str, Path]], small: Iterable[Path]
) -> dict[tuple[Callable[[Path], Image.Image], Path], Path | None]:
    """Make previews, and thumbnails of the pictures in `small`; return them by what made them and its picture.

    None stands for one that could not be made.
    """
    jobs: dict[tuple[Callable[[Path], Image.Image], Path], int] = {}
    jobs |= {(thumbnail, path): _THUMBNAIL_QUALITY for path in small}
    for each in pictures:
        jobs |= {(preview, path): _PREVIEW_QUALITY for path in each.values() if not _is_shown(path)}
    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(lambda job: _make_file(folder, job[0], job[1], jobs[job]), jobs)
        return dict(
            zip(jobs, tqdm(made, "report", len(jobs), delay=2, unit="picture", dynamic_ncols=True), strict=True)
        )


def _make_file(folder: Path, make: Callable[[Path], Image.Image], path: Path, quality: int) -> Path | None:
    # Pictures of several folders may share a name.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    target = folder / f"{make.__name__}-{digest}.jpg"
    try:
        if target.exists() and target.stat().st_mtime >= path.stat().st_mtime:
            return target
        with readable(path):
            image = make(path)
    except (UnreadableError, OSError):
        return None
    with atomic_write(target) as temporary:
        image.save(temporary, quality=quality, subsampling=0, icc_profile=image.info.get("icc_profile"))
    return target


def _is_shown(path: Path) -> bool:
    """Return whether browsers show a file upright."""
    suffix = path.suffix.lower()
    if suffix not in _SHOWN or suffix in _UPRIGHT_IN_BROWSERS:
        return suffix in _SHOWN
    try:
        return inspect_image(path, deep=True).orientation == 1
    except UnreadableError:
        return True  # a preview could not be made either


def thumbnail(path: Path) -> Image.Image:
    """Return a picture in small, upright."""
    with Image.open(path) as image:
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        colour = image.mode in ("RGB", "RGBA")
        image.thumbnail(_THUMBNAIL, reducing_gap=2.0)
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if not colour:  # a profile of grey or CMYK
        upright.info.pop("icc_profile", None)
    return upright


def preview(path: Path) -> Image.Image:
    """Return a picture in 8 bits, upright."""
    picture = read_picture(path)
    values = picture.pixels[..., 0] if picture.grey else picture.pixels
    image = Image.fromarray((values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values)
    if picture.metadata.profile:
        image.info["icc_profile"] = picture.metadata.profile
    return image
