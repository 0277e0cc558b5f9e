"""Which data set a folder holds, by the names that its authors gave to folders and files."""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.discovery.layout_table import GT_DIR, HIDE_TEST_DIRS
from datasets.discovery.pairing import Match

WITHOUT_PARTNERS = ("rwbi", "unpaired", "sharp")
_BY_NAME = {  # of the last two folders, or of a list and its folder, in lower case; the first that fits
    "gopro": r"gopro",
    "hide": r"(^|/)hide([-_ ]?(dataset|data|deblur|train|test))?($|/)",
    "realblur_j": r"realblur[-_]j",
    "realblur_r": r"realblur[-_]r",
    "rsblur": r"rsblur",
    "reds": r"(?<![a-z])reds(?![a-z])",
    "bsd": r"bsd_\dms",
    "dvd": r"deepvideodeblurring|quantitative_datasets",
}
KINDS = tuple(dict.fromkeys(("gopro", "hide", "rwbi", "paired", "unpaired", "sharp", *_BY_NAME)))
_GOPRO_SEQUENCE, _HIDE_FILE = re.compile(r"GOPR\d{4}_"), "fromGOPR"


def recognise(root: Path, match: Match) -> str:
    """Return which of `KINDS` the images of a folder, or of a list of pairs, are.

    Args:
        root: the folder or the list, as the user gave it.
        match: its images.
    """
    where = "/".join(root.resolve().parts[-2:]).lower()
    if match.sharp is None:
        return "rwbi" if "rwbi" in where else "unpaired"
    if match.sides == (GT_DIR,) and match.sharp and _is_hide(match.sharp[0].parents[1], match.names):
        return "hide"
    if named := kind_named(where):
        return named
    parts = (*root.resolve().parts, *(part for name in match.names[:1] for part in Path(name).parts))
    return "gopro" if any(map(_GOPRO_SEQUENCE.match, parts)) else "paired"


def kind_named(text: str) -> str | None:
    """Return which of `KINDS` the name of a folder or a list, in lower case, is that of; None of none."""
    return next((kind for kind, pattern in _BY_NAME.items() if re.search(pattern, text)), None)


def _is_hide(folder: Path, names: Sequence[str]) -> bool:
    """Return whether the folder that holds GT/ has HIDE's test folders, or its images have HIDE's names."""
    in_test = any((folder / "test" / name).is_dir() for name in HIDE_TEST_DIRS)
    return in_test or all(_HIDE_FILE in name for name in names)
