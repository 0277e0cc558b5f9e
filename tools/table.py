"""Print the scores of several runs of D_testing.py side by side, as Markdown and as LaTeX.

python -m tools.table results                                           # the sets and networks of one run
python -m tools.table ours=results NAFNet=scores_nafnet --metrics psnr,ssim
python -m tools.table ours=results_gopro ours=results_hide others       # runs of one name share a row

The best value of each column is bold. A result that was scored otherwise than the others of its set, on other images or
by another protocol, is marked and not compared.
"""

import argparse
from collections.abc import Sequence
from string import ascii_lowercase

from tools.table_forms import Cell, Column, Table, in_words, latex, markdown
from tools.table_results import Runs, Scored
from utils.common.arguments import ArgumentParser
from utils.common.errors import UserError, some
from utils.metrics.scorer import KNOWN
from utils.report.names import LABELS
from utils.report.page import form_of
from utils.runtime.program_end import user_errors_end_the_program

_INPUT = "blurry input"  # its row


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
