"""What metrics and data sets are called in tables, on the page and on the console: as papers write them."""

import re
from collections import Counter
from collections.abc import Mapping

from datasets.discovery.benchmarks import BENCHMARKS
from utils.metrics.scorer import KNOWN

_EXPOSURES = re.compile(r"(\d+)ms[-_ ]?(\d+)ms")  # of BSD's three sets


def label_of(metric: str) -> str:
    """Return a metric's name as people write it; one that is not known stays as it is."""
    return KNOWN[metric].label if metric in KNOWN else metric


def labelled(text: str) -> str:
    """Return a text with its metrics as people write them."""
    return re.sub(r"\b[a-z]+(_[a-z]+)?\b", lambda found: label_of(found[0]), text)


def set_titles(kinds: Mapping[str, str]) -> dict[str, str]:
    """Return what the sets of a run are called: a data set as papers do, whatever its folder is called.

    Several parts of a data set in one run keep their folders' names.

    Args:
        kinds: of the sets, by what results call them: NAME or NETWORK/NAME.

    Returns:
        TITLE or NETWORK/TITLE by the same.
    """
    titles = {}
    for key, kind in kinds.items():
        network, separator, name = key.rpartition("/")
        titles[key] = f"{network}{separator}{_title(name, kind)}"
    counts = Counter(titles.values())
    return {key: title if counts[title] == 1 else key for key, title in titles.items()}


def _title(name: str, kind: str) -> str:
    row = BENCHMARKS.get(kind)
    if row is None or not row.several:
        return row.title if row else name
    exposures = _EXPOSURES.search(name.lower())
    return f"{row.title} {exposures[1]}ms-{exposures[2]}ms" if exposures else name
