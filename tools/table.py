"""Print the scores of several runs of D_testing.py side by side, as Markdown and as LaTeX.

python -m tools.table results                                           # the sets and networks of one run
python -m tools.table ours=results NAFNet=scores_nafnet --metrics psnr,ssim
python -m tools.table ours=results_gopro ours=results_hide others       # runs of one name share a row

The best value of each column is bold. A result that was scored otherwise than the others of its set, on other images or
by another protocol, is marked and not compared.
"""

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from datasets.discovery.benchmarks import BENCHMARKS
from tools.table_forms import Cell, Column, Table, in_words, latex, markdown
from utils.common.arguments import ArgumentParser
from utils.common.errors import UserError, counted, some
from utils.metrics.scorer import KNOWN, protocol
from utils.report.page import LABELS, form_of
from utils.runtime.program_end import user_errors_end_the_program
from utils.testing.result_files import SUMMARY

# What a summary says of the method, the machine and the files. Its other settings are the protocol, new ones too.
_NO_PROTOCOL = (
    *("version", "networks", "from_results", "precision", "self_ensemble", "tile", "tile_overlap", "device", "torch"),
    *("testset_dir", "set_names", "metrics", "output_format", "quality", "suffix", "strip_metadata"),
    *("comparable_with", "problems", "sets"),
)
_SAME_INPUT = 1e-4  # of a score of the blurry images: by the CPU and by a GPU they differ by less
_INPUT = "blurry input"  # its row


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
    """

    images: int
    images_in_set: int
    output: dict[str, float]
    input: dict[str, float]
    protocol: dict[str, Any]
    how: str

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
                    return [f"other images: {name} of the input {self.input[name]:.4f}, not {other.input[name]:.4f}"]
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

    def add(self, text: str) -> None:
        """Add a run, given as [NAME=]PATH.

        Raises:
            UserError: it is none, or a method of its name has results on one of its sets.
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
        keys = {key: key.partition("/") if len(networks) > 1 else ("", "", key) for key in content["sets"]}
        kinds = Counter({keys[key][2]: each.get("kind") for key, each in content["sets"].items()}.values())
        for key, summary in content["sets"].items():
            network, _, set_name = keys[key]
            kind = summary.get("kind", "")
            known = BENCHMARKS.get(kind)
            if known and not known.several and kinds[kind] == 1:
                set_name = known.title
            method = f"{name} {network}".strip() if network else label
            method += f" ({', '.join(notes)})" if notes else ""
            if "output" not in summary:
                self.unscored.append(f"{method}: {set_name}")
                continue
            of_set = self.scored.setdefault(set_name, {})
            if method in of_set:
                raise UserError(f"{method} has two results on {set_name}; call one of the runs NAME={file.parent}")
            output, inputs = _means(summary["output"]), _means(summary["input"])
            how = summary.get("protocol", protocol((), 0))  # earlier versions, which had no other, wrote none
            of_set[method] = Scored(summary["images"], summary["images_in_set"], output, inputs, settings, how)


def _means(summary: dict[str, float | None]) -> dict[str, float]:
    """Return means with those that are infinite, which JSON has no number for."""
    return {metric: math.inf if value is None else value for metric, value in summary.items()}


def make_table(runs: Runs, metrics: Sequence[str] = ()) -> Table:
    """Return the table of methods, sets and metrics.

    Args:
        runs: all of them.
        metrics: their names; none for all that there are.

    Raises:
        UserError: nothing was scored, or a metric is in no run.
    """
    known = dict.fromkeys(name for of_set in runs.scored.values() for each in of_set.values() for name in each.output)
    if unknown := [name for name in metrics if name not in known]:
        raise UserError(f"no run has the metric {unknown[0]}; there are {some(list(known), 20) or 'none'}")
    if not known:
        raise UserError("none of these runs scored images: expected sets with ground truth")
    methods = list(dict.fromkeys(method for of_set in runs.scored.values() for method in of_set))
    table = Table([_INPUT, *methods])
    captions, used, protocols = [], {}, {}
    for set_name, of_set in runs.scored.items():
        if not any(metric in each.output for metric in metrics or known for each in of_set.values()):
            continue
        compared, *others = _groups(of_set)
        best = of_set[compared[0]]
        marks = {}
        for group in others:
            number, letter = divmod(len(table.notes), len(ascii_lowercase))
            mark = ascii_lowercase[letter] * (number + 1)
            marks |= dict.fromkeys(group, mark)
            table.notes[mark] = f"{set_name}: {'; '.join(of_set[group[0]].differences(best))}"
        captions.append(f"{set_name} ({best.count}; {best.how})")
        protocols |= best.protocol
        for metric in metrics or known:
            values = {method: each.output[metric] for method, each in of_set.items() if metric in each.output}
            if values:
                used[metric] = runs.comparable_with.get(metric, "nothing that is known")
                inputs = [each[metric] for each in (of_set[method].input for method in compared) if metric in each]
                values.update((_INPUT, value) for value in inputs[:1])
                table.columns.append(_column(set_name, metric, values, compared, marks))
    table.caption = [
        f"Means over the images of {', '.join(captions)}.",
        *(f"{LABELS.get(metric, metric)} is comparable with {what}." for metric, what in used.items()),
        f"Settings: {', '.join(in_words(*each) for each in protocols.items())}." if protocols else "",
        "Marked results were scored otherwise and are not compared." if table.notes else "",
    ]
    return table


def _groups(of_set: dict[str, Scored]) -> list[list[str]]:
    """Return the methods that were scored alike; those that are compared first: most methods, then most images."""
    groups: list[list[str]] = []
    for method, scored in of_set.items():
        fitting = [group for group in groups if not scored.differences(of_set[group[0]])]
        if fitting:
            fitting[0].append(method)
        else:
            groups.append([method])
    return sorted(groups, key=lambda group: (len(group), of_set[group[0]].images), reverse=True)


def _column(
    set_name: str, metric: str, values: dict[str, float], compared: Sequence[str], marks: dict[str, str]
) -> Column:
    lower, (digits, _) = metric in KNOWN and KNOWN[metric].lower_is_better, form_of(metric)
    rounded = {method: round(value, digits) for method, value in values.items()}
    rivals = [rounded[method] for method in compared if method in rounded]
    best = (min(rivals) if lower else max(rivals)) if len(rivals) > 1 else None
    cells = {
        method: Cell(f"{value:.{digits}f}", value == best and method in compared, marks.get(method, ""))
        for method, value in rounded.items()
    }
    return Column(set_name, LABELS.get(metric, metric), lower, cells)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.table")
    parser.add_argument(
        "results", nargs="+", metavar="[NAME=]PATH", help="folders that D_testing.py wrote, or their summary.json"
    )
    parser.add_argument(
        "--metrics",
        type=lambda text: tuple(filter(None, (part.strip() for part in text.split(",")))),
        default=(),
        metavar="NAMES",
        help="columns, separated by commas, in this order (default: all metrics of the runs)",
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print the table of the runs."""
    runs = Runs()
    for text in args.results:
        runs.add(text)
    table = make_table(runs, args.metrics)
    print(f"{markdown(table)}\n\n{latex(table)}")
    if runs.unscored:
        print(f"\nnot in the table, without scores: {some(runs.unscored)}")


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())
