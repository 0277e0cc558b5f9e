"""Print the scores of several runs of D_testing.py side by side, as Markdown and as LaTeX.

python -m tools.table results                                           # the sets and networks of one run
python -m tools.table ours=results NAFNet=scores_nafnet --metrics psnr,ssim
python -m tools.table ours=results_gopro ours=results_hide others       # runs of one name share a row

The best value of each column is bold. A result that was scored otherwise than the others of its set, on other images or
by another protocol, is marked and not compared.
"""

import argparse
from collections.abc import Sequence

from tools.table_forms import Cell, Column, Table, in_words, latex, markdown
from tools.table_results import Runs, Scored
from utils.common.arguments import ArgumentParser
from utils.common.errors import UserError, some
from utils.metrics.aligned_metrics import ALIGNED
from utils.metrics.scorer import KNOWN, OF_FLOATS, PRINTED, printed_metrics
from utils.report.names import label_of
from utils.report.page import form_of
from utils.runtime.program_end import user_errors_end_the_program

_INPUT = "blurry input"  # its row
_SHARE = "aligned"  # no score: the share of images that could be aligned


def make_table(runs: Runs, metrics: Sequence[str] = ()) -> Table:
    """Return the table of methods, sets and metrics.

    Args:
        runs: all of them.
        metrics: their names; none for those of each set that papers print.

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
    captions, shares, used, protocols = [], [], {}, {}
    for set_name, of_set in runs.scored.items():
        compared, *others = _groups(of_set)
        best = of_set[compared[0]]
        shown = _metrics_of(of_set, best.kind, metrics)
        if not shown:
            continue
        marks = {}
        for group in others:
            note = f"{set_name}: {'; '.join(of_set[group[0]].differences(best))}"
            marks |= dict.fromkeys(group, table.mark(note))
        captions.append(f"{set_name} ({best.count}; {best.how})")
        protocols |= best.protocol
        shares += _unaligned(set_name, of_set, best) if set(ALIGNED) & set(shown) else []
        of_floats = marks
        if rounded := _rounded(of_set, compared, shown):
            names = ", ".join(label_of(metric) for metric in shown if metric in OF_FLOATS)
            note = f"{set_name}: {names} of images that were read from files, rounded to 8 bits"
            of_floats = marks | dict.fromkeys(rounded, table.mark(note))
        for metric in shown:
            values = {method: each.output[metric] for method, each in of_set.items() if metric in each.output}
            used[metric] = runs.comparable_with.get(metric, "nothing that is known")
            inputs = [each[metric] for each in (of_set[method].input for method in compared) if metric in each]
            values.update((_INPUT, value) for value in inputs[:1])
            apart = of_floats if metric in OF_FLOATS else marks
            rivals = [method for method in compared if method not in apart]
            table.columns.append(_column(set_name, metric, values, rivals, apart))
    used.pop(_SHARE, None)
    table.omitted = [] if metrics else [metric for metric in known if metric not in (*used, _SHARE)]
    table.caption = [
        f"Means over the images of {', '.join(captions)}.",
        *(f"{label_of(metric)} is comparable with {what}." for metric, what in used.items()),
        *shares,
        f"Settings: {', '.join(in_words(*each) for each in protocols.items())}." if protocols else "",
        "Marked results were scored otherwise and are not compared." if table.notes else "",
    ]
    return table


def _metrics_of(of_set: dict[str, Scored], kind: str, asked: Sequence[str]) -> list[str]:
    """Return the metrics of a set's columns: those asked for, else those that papers print, else all."""
    found = dict.fromkeys(name for each in of_set.values() for name in each.output)
    wanted = (asked,) if asked else (printed_metrics(kind), PRINTED, [name for name in found if name != _SHARE])
    return next(filter(None, ([name for name in each if name in found] for each in wanted)), [])


def _rounded(of_set: dict[str, Scored], compared: Sequence[str], shown: Sequence[str]) -> list[str]:
    """Return the compared methods whose metrics of floats are those of 8 bits, where others have them of floats."""
    having = [method for method in compared if of_set[method].output.keys() & OF_FLOATS & set(shown)]
    rounded = [method for method in having if of_set[method].rounded]
    return rounded if len(rounded) < len(having) else []


def _unaligned(set_name: str, of_set: dict[str, Scored], best: Scored) -> list[str]:
    """Return a sentence on the images of a set that could not be aligned; none where all were."""
    all_shares = {_INPUT: best.input, **{method: each.output for method, each in of_set.items()}}
    shares = [f"{name} {each[_SHARE]:.2%}" for name, each in all_shares.items() if each.get(_SHARE, 1) < 1]
    return [f"Of {set_name} could be aligned: {', '.join(shares)}; the rest is scored unaligned."] if shares else []


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
    best = (min(rivals) if lower else max(rivals)) if len(rivals) > 1 and metric != _SHARE else None
    cells = {
        method: Cell(f"{value:.{digits}f}", value == best and method in compared, marks.get(method, ""))
        for method, value in rounded.items()
    }
    return Column(set_name, label_of(metric), lower, cells)


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
        help="columns, separated by commas, in this order (default: PSNR and SSIM, of RealBlur the aligned ones)",
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print the table of the runs."""
    runs = Runs()
    for text in args.results:
        runs.add(text)
    table = make_table(runs, args.metrics)
    print(f"{markdown(table)}\n\n{latex(table)}")
    if table.omitted:
        print(f"\nnot in the table, for --metrics: {', '.join(table.omitted)}")
    if runs.unscored:
        print(f"\nnot in the table, without scores: {some(runs.unscored)}")


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())
