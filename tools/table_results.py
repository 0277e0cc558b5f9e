"""The results of runs of D_testing.py, read from their summaries: what methods have on sets, and what is comparable."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.table_forms import in_words
from utils.common.errors import UserError, counted
from utils.metrics.scorer import protocol
from utils.report.names import label_of, labelled, set_titles
from utils.testing.result_files import SUMMARY

# What a summary says of the method, the machine and the files. Its other settings are the protocol, new ones too.
_NO_PROTOCOL = (
    *("version", "networks", "from_results", "precision", "self_ensemble", "tile", "tile_overlap", "device", "torch"),
    *("testset_dir", "set_names", "metrics", "output_format", "quality", "suffix", "strip_metadata"),
    *("comparable_with", "problems", "sets"),
)
_SAME_INPUT = 1e-4  # of a score of the blurry images: by the CPU and by a GPU they differ by less


@dataclass(frozen=True)
class Scored:
    """What a method has on a set.

    Attributes:
        images: that were scored.
        images_in_set: that there are.
        output: means by metric, infinite ones as such.
        input: the same of the blurry images.
        protocol: settings that scores depend on, whatever the method.
        how: the set was scored, in words.
        kind: of the set.
        rounded: whether the images were read from files, and so have 8 bits.
    """

    images: int
    images_in_set: int
    output: dict[str, float]
    input: dict[str, float]
    protocol: dict[str, Any]
    how: str
    kind: str = ""
    rounded: bool = False

    @property
    def count(self) -> str:
        """How many images were scored, as text."""
        return ("" if self.images == self.images_in_set else f"{self.images:,} of ") + counted(
            self.images_in_set, "image"
        )

    def differences(self, other: "Scored") -> list[str]:
        """Return how this was scored otherwise than another result on the set."""
        found = [] if self.images == other.images else [f"{self.count}, not {other.count}"]
        for name in dict.fromkeys((*other.protocol, *self.protocol)):
            here, there = self.protocol.get(name), other.protocol.get(name)
            if here != there:
                found.append(f"{in_words(name, here)}, not {in_words(name, there)}")
        if not found:
            for name in (each for each in other.input if each in self.input):
                if not math.isclose(self.input[name], other.input[name], rel_tol=_SAME_INPUT):
                    values = f"{self.input[name]:.4f}, not {other.input[name]:.4f}"
                    return [f"other images: {label_of(name)} of the input {values}"]
        return found


class Runs:
    """The results of runs, and what stands in their summaries besides.

    Attributes:
        scored: by set and method; a data set that is known by the name of papers, whatever its folder is called.
        comparable_with: published numbers that a metric is comparable with.
        unscored: sets and videos without scores.
    """

    def __init__(self) -> None:
        self.scored: dict[str, dict[str, Scored]] = {}
        self.comparable_with: dict[str, str] = {}
        self.unscored: list[str] = []
        self._made: dict[str, tuple[Any, str, Path]] = {}  # by method: by what, the name that was given, the summary

    def add(self, text: str) -> None:
        """Add a run, given as [NAME=]PATH.

        Raises:
            UserError: it is none, or a method of its name has results on one of its sets, or is another one.
        """
        name, separator, path = text.partition("=")
        if not separator or os.sep in name:
            name, path = "", text
        file = Path(path) / SUMMARY if Path(path).is_dir() else Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self._add(name, file, content)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file} is no summary of a run ({error!r}); expected the --save_dir of D_testing.py, or the "
                f"{SUMMARY} in it"
            ) from error

    def _add(self, name: str, file: Path, content: dict[str, Any]) -> None:
        networks = content.get("networks", {})
        label = name or file.resolve().parent.name
        notes = [content["precision"]] if content.get("precision", "fp32") != "fp32" else []
        notes += ["self-ensemble"] if content.get("self_ensemble") else []
        settings = {key: value for key, value in content.items() if key not in _NO_PROTOCOL and value is not None}
        self.comparable_with = {**content["comparable_with"], **self.comparable_with}
        if not content["sets"]:
            self.unscored.append(f"{label}: a run without finished sets")
        titles = set_titles({key: summary.get("kind", "") for key, summary in content["sets"].items()})
        for key, summary in content["sets"].items():
            network, _, set_name = titles[key].partition("/") if len(networks) > 1 else ("", "", titles[key])
            method = f"{name} {network}".strip() if network else label
            method += f" ({', '.join(notes)})" if notes else ""
            if "output" not in summary:
                self.unscored.append(f"{method}: {set_name}")
                continue
            self._check_same_method(method, name, file, _made_by(content, network))
            of_set = self.scored.setdefault(set_name, {})
            if method in of_set:
                raise UserError(f"{method} has two results on {set_name}; call one of the runs NAME={file.parent}")
            output, inputs = _means(summary["output"]), _means(summary["input"])
            how = labelled(summary.get("protocol", protocol((), 0)))  # earlier versions, which had no other, wrote none
            kind, rounded = summary.get("kind", ""), bool(content.get("from_results"))
            of_set[method] = Scored(
                summary["images"], summary["images_in_set"], output, inputs, settings, how, kind, rounded
            )

    def _check_same_method(self, method: str, name: str, file: Path, made_by: Any) -> None:
        """Raise `UserError` where a method that the user gave no name to is not the one that has its row."""
        others, given, first = self._made.setdefault(method, (made_by, name, file))
        if made_by != others and not (name and given):
            raise UserError(
                f"{method} is one method in {first}, and another one in {file}; give both runs names, as NAME={file}: "
                "two names, or the same one if they belong in one row"
            )


def _made_by(content: dict[str, Any], network: str) -> Any:
    """Return what tells a method from others: of a network its weights and how they are read, else a folder."""
    networks = content.get("networks", {})
    settings = networks[network] if network else next(iter(networks.values()), {})
    return content.get("from_results") or (settings.get("weights_sha256"), settings.get("modulation"))


def _means(summary: dict[str, float | None]) -> dict[str, float]:
    """Return means with those that are infinite, which JSON has no number for."""
    return {metric: math.inf if value is None else value for metric, value in summary.items()}
