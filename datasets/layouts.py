"""Finding images on disk: which layout a folder has, which files it holds, and which sharp file belongs to which.

Pairs are matched by the components of their paths below the given folder: never by replacing text in a whole path and
never by sort order.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from datasets.checks import check_files, compare_with_published_count
from utils.errors import UserError, some
from utils.images import SUFFIXES

KINDS = ("gopro", "hide", "rwbi", "paired", "unpaired")
SPLITS = ("train", "test")
_GT = "GT"
_HIDE_FOLDERS = {"train", "test", "test-close-ups", "test-long-shot"}
_LAYOUTS = """\
  {train,test}/SEQUENCE/{blur,sharp}/*          GoPro (GOPRO_Large)
  {train,test}/{blur,sharp}/SEQUENCE/*          GoPro
  {train,test}/{blur,sharp}/*                   GoPro
  {train,test}/{input,target}/*                 GoPro, HIDE
  train/*, test/test-*/*, sharp in GT/          HIDE
  blur/ + sharp/ or input/ + target/            any pairs
  images at any depth                           RWBI, any unpaired images"""


class DatasetError(UserError):
    """A folder of images that cannot be used as it is; the message names the files."""


@dataclass(frozen=True)
class ImageSet:
    """The images of one folder.

    Attributes:
        kind: one of `KINDS`.
        root: the folder as given.
        layout: where the files were found, for the log.
        blurry: the images to restore, sorted.
        sharp: their partners in the same order, or None without ground truth.
        names: a relative path for each image, unique in the set and free of the layout's own folder names.
        notes: what the user should know: conversions, counts that differ from the published ones.
    """

    kind: str
    root: Path
    layout: str
    blurry: tuple[Path, ...]
    sharp: tuple[Path, ...] | None
    names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def paired(self) -> bool:
        """Whether there is ground truth."""
        return self.sharp is not None

    def __len__(self) -> int:
        return len(self.blurry)

    def describe(self) -> str:
        """Return what was found, and every note, for the log."""
        what = "pairs" if self.paired else "images without ground truth"
        return "\n  ".join([f"{self.root}: {self.kind}, {len(self):,} {what} ({self.layout})", *self.notes])


def parse_source(text: str) -> tuple[str | None, Path]:
    """Split the command line's `kind=path` or bare path; the kind of a bare path is None.

    Raises:
        DatasetError: an unknown kind.
    """
    kind, separator, path = text.partition("=")
    if not separator or os.sep in kind:
        return None, Path(text)
    if kind not in KINDS:
        raise DatasetError(f"{text}: unknown kind {kind!r}, expected one of {', '.join(KINDS)} (kind=path)")
    return kind, Path(path)


def find_images(root: Path, split: str, kind: str | None = None, blur_dir: str = "blur") -> ImageSet:
    """Find the images of one split of a data set, paired with their ground truth where there is any.

    Args:
        root: the folder that holds train/ and test/, one of these two, or a plain folder.
        split: "train" or "test": which of the two is used where the folder holds them.
        kind: one of `KINDS`, or None to recognise it.
        blur_dir: name of the folders with blurry images that stand beside sharp/; GoPro also has blur_gamma.

    Raises:
        DatasetError: no such folder, no images, another layout, files without partner, pairs of unequal size, files
            that cannot be read or do not have 8 bits a channel.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DatasetError(f"{root} {found}; expected the folder of a data set")
    base = _split_folder(root, split) if kind not in ("rwbi", "unpaired") else root
    files = _list_images(base)
    hide_gt = _find_gt(root)
    if kind in ("rwbi", "unpaired"):
        found = _unpaired(base, files)
    elif hide_gt is not None and kind in (None, "hide"):
        found = _hide(base, files, hide_gt)
    else:
        found = _paired(base, files, split, blur_dir)
    if found is None and kind is None:
        _refuse_one_sided(base, files, blur_dir)
        found = _unpaired(base, files)
    if found is None:
        raise _unknown(base, files, kind)
    kind = kind or _recognise(root, found)
    notes = [*check_files(found.blurry, found.sharp), *compare_with_published_count(kind, split, len(found.blurry))]
    return ImageSet(kind, root, found.layout, found.blurry, found.sharp, found.names, tuple(notes))


@dataclass(frozen=True)
class _Found:
    layout: str
    blurry: tuple[Path, ...]
    sharp: tuple[Path, ...] | None
    names: tuple[str, ...]
    is_hide: bool = False


def _split_folder(root: Path, split: str) -> Path:
    if (root / split).is_dir():
        return root / split
    others = [name for name in SPLITS if name != split and (root / name).is_dir()]
    if others:
        raise DatasetError(f"{root} holds {others[0]}/ but no {split}/, which is needed here")
    return root


def _list_images(base: Path) -> list[Path]:
    """Return the images below a folder as sorted paths relative to it; hidden files and folders are passed over."""
    images = []
    for folder, folders, files in os.walk(base, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(folder).relative_to(base)
        images += [relative / name for name in files if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    return sorted(images)


def _with_folder(files: Iterable[Path], folder: str) -> list[Path]:
    return [file for file in files if folder in file.parts[:-1]]


def _partners(file: Path, old: str, new: str) -> list[Path]:
    """Return the paths that `file` becomes when one folder called `old` is replaced by `new`."""
    parts = file.parts
    return [Path(*parts[:i], new, *parts[i + 1 :]) for i, part in enumerate(parts[:-1]) if part == old]


def _paired(base: Path, files: list[Path], split: str, blur_dir: str) -> _Found | None:
    for blur_name, sharp_name in ((blur_dir, "sharp"), ("input", "target")):
        blurry, sharp = _with_folder(files, blur_name), _with_folder(files, sharp_name)
        if not blurry or not sharp:
            continue
        other = next(name for name in SPLITS if name != split)
        if _with_folder(blurry, other):
            raise DatasetError(f"{base} mixes {' and '.join(SPLITS)}: give the folder that directly holds {split}/")
        remaining, partners, alone = set(sharp), [], []
        for file in blurry:
            candidates = [path for path in _partners(file, blur_name, sharp_name) if path in remaining]
            if len(candidates) == 1:
                partners.append(candidates[0])
                remaining.discard(candidates[0])
            else:
                alone.append(file)
        _refuse_unpaired(base, alone, remaining, blur_name, sharp_name)
        both = f"{{{blur_name},{sharp_name}}}"
        layout = str(_partners(blurry[0], blur_name, both)[0].parent / f"*{blurry[0].suffix}")
        names = tuple(_without(file, blur_name) for file in blurry)
        return _Found(layout, _below(base, blurry), _below(base, partners), names)
    return None


def _without(file: Path, folder: str) -> str:
    return Path(*(part for part in file.parts[:-1] if part != folder), file.name).as_posix()


def _below(base: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(base / file for file in files)


def _refuse_unpaired(base: Path, alone: list[Path], left: Iterable[Path], blur_name: str, sharp_name: str) -> None:
    problems = [
        f"{len(names)} in {folder}/ without a partner in {partner}/ ({some(names)})"
        for folder, partner, names in (
            (blur_name, sharp_name, [str(file) for file in alone]),
            (sharp_name, blur_name, [str(file) for file in sorted(left)]),
        )
        if names
    ]
    if problems:
        raise DatasetError(
            f"{base}: {'; '.join(problems)}. Partners have the same path but for {blur_name}/ and {sharp_name}/; "
            "complete the download, or remove the files that stand alone"
        )


def _find_gt(root: Path) -> Path | None:
    """Return HIDE's folder of sharp images: in the given folder, or above it where that is one of HIDE's own."""
    for folder in (root, *root.resolve().parents[:2]):
        if (folder / _GT).is_dir():
            return folder / _GT
        if folder.name not in _HIDE_FOLDERS:
            return None
    return None


def _hide(base: Path, files: list[Path], gt: Path) -> _Found | None:
    blurry = [file for file in files if _GT not in file.parts[:-1]]
    if not blurry:
        return None
    sharp_names = {file.name for file in _list_images(gt)}
    alone = [str(file) for file in blurry if file.name not in sharp_names]
    if alone:
        raise DatasetError(
            f"{base}: {len(alone)} of {len(blurry)} images without a partner of the same name in {gt} ({some(alone)}); "
            "complete the download of GT"
        )
    names = tuple(file.as_posix() for file in blurry)
    sharp = tuple(gt / file.name for file in blurry)
    return _Found(f"{{{blurry[0].parent},GT}}/*{blurry[0].suffix}", _below(base, blurry), sharp, names, is_hide=True)


def _unpaired(base: Path, files: list[Path]) -> _Found | None:
    if not files:
        return None
    return _Found("images at any depth", _below(base, files), None, tuple(file.as_posix() for file in files))


def _refuse_one_sided(base: Path, files: list[Path], blur_dir: str) -> None:
    """Do not take one side of a paired set, or both sides in a heap, for unpaired images."""
    sides = {blur_dir, "blur", "blur_gamma", "sharp", "input", "target", _GT}
    found = sorted({part for file in files for part in file.parts[:-1]} & sides)
    if found:
        raise DatasetError(
            f"{base} holds {', '.join(f'{name}/' for name in found)} but not both sides of pairs: expected {blur_dir}/ "
            f"with sharp/, or input/ with target/. For images without ground truth write unpaired={base}"
        )


def _recognise(root: Path, found: _Found) -> str:
    """Name the data set by the folder's name and by GoPro's sequence names."""
    where = "/".join(root.absolute().parts[-2:]).lower()
    if found.sharp is None:
        return "rwbi" if "rwbi" in where else "unpaired"
    if found.is_hide or "hide" in where:
        return "hide"
    return "gopro" if "gopro" in where or found.names[0].startswith("GOPR") else "paired"


def _unknown(base: Path, files: list[Path], kind: str | None) -> DatasetError:
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in base.iterdir())
    images = f"{len(files)} images ({some([str(file) for file in files], 2)})" if files else "no images"
    wanted = f"{kind} images" if kind else "images"
    return DatasetError(
        f"{base} holds no {wanted} in a layout that is known. Found: {some(entries) or 'nothing'}; {images} "
        f"({', '.join(SUFFIXES)}). Looked for:\n{_LAYOUTS}"
    )
