"""Compare fine-tuned networks with their controls, picture by picture, with a bootstrap over pictures and seeds.

python -m tools.compare_finetuning OUT/results          # what recipes/finetune_control.sh scored

Prints for each weight of the reblurring term the mean difference to the control of the same seed, the interval that
holds 95 % of the means of resampled seeds and pictures, and on how many pictures it is higher. Differences of other
networks to the control come last, as of the one before. An interval that holds 0 is no evidence of a difference.
"""

import argparse
import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.common.arguments import ArgumentParser
from utils.common.errors import UserError, some
from utils.runtime.program_end import user_errors_end_the_program
from utils.testing.result_files import TABLE, read_table

RUN = re.compile(r"(lambda[\d.e-]+)-seed(\d+)_")  # as recipes/finetune_control.sh names folders
SAMPLES = 10_000  # resampled means
Scores = dict[str, float]  # by picture


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.compare_finetuning")
    add = parser.add_argument
    # fmt: off
    add("results", type=Path, metavar="RESULTS", help="--save_dir of a run of D_testing.py with all the networks")
    add("--metric", default="psnr", help="column of results.csv (default: psnr)")
    add("--control", default="lambda0", help="runs with which the others are compared (default: lambda0)")
    add("--sets", nargs="+", default=[], metavar="NAME", help="test sets that count (default: all)")
    # fmt: on
    return parser.parse_args(argv)


def read_scores(table: Path, metric: str, sets: list[str]) -> tuple[dict[str, dict[int, Scores]], dict[str, Scores]]:
    """Return the scores of each weight's runs by seed, and of other networks, from a results.csv.

    Raises:
        UserError: it cannot be read, or has no such metric or set.
    """
    runs: dict[str, dict[int, Scores]] = {}
    others: dict[str, Scores] = {}
    found: set[str] = set()
    try:
        for row in read_table(table):
            name = str(row["set"]).rpartition("/")[2]
            found.add(name)
            if sets and name not in sets:
                continue
            network = str(row["weights"])
            if match := RUN.match(network):
                scores = runs.setdefault(match[1], {}).setdefault(int(match[2]), {})
            else:
                scores = others.setdefault(network, {})
            key = f"{name}/{row['image']}"
            if key in scores:
                raise UserError(f"{table} has several networks of {network}'s run; score one of each")
            scores[key] = float(row[metric])
    except (OSError, LookupError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{table} is no table of scores with {metric} ({error!r}); give a --save_dir of D_testing.py"
        ) from error
    if unknown := [name for name in sets if name not in found]:
        raise UserError(f"--sets: {table} has no set {some(unknown)}; expected {some(sorted(found), 20) or 'none'}")
    return runs, others


def differences(scores: Mapping[int, Scores], control: Mapping[int, Scores]) -> np.ndarray:
    """Return scores minus the control's, (seeds, pictures), of the seeds that both have.

    Raises:
        UserError: they have no seed in common, or other pictures.
    """
    seeds = sorted(scores.keys() & control.keys())
    if not seeds or any(each[seed].keys() != control[seeds[0]].keys() for each in (scores, control) for seed in seeds):
        raise UserError("expected runs and their controls with the same seeds and pictures; score them in one run")
    pictures = sorted(control[seeds[0]])
    return np.array([[scores[seed][each] - control[seed][each] for each in pictures] for seed in seeds])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return what holds 95 % of the means of (seeds, pictures), both resampled with replacement."""
    generator = np.random.default_rng(0)
    seeds, pictures = values.shape
    rows = generator.integers(seeds, size=(SAMPLES, seeds, 1))
    columns = generator.integers(pictures, size=(SAMPLES, 1, pictures))
    low, high = np.quantile(values[rows, columns].mean(axis=(1, 2)), (0.025, 0.975))
    return float(low), float(high)


def main(args: argparse.Namespace) -> None:
    """Compare, and print."""
    runs, others = read_scores(args.results / TABLE, args.metric, args.sets)
    if args.control not in runs:
        raise UserError(f"{args.results} has no {args.control}; expected one of {', '.join(sorted(runs)) or 'no runs'}")
    control = runs.pop(args.control)
    runs |= {name: dict.fromkeys(control, scores) for name, scores in others.items()}
    print(f"{args.metric}, difference to {args.control} of the same seed")
    for name, scores in runs.items():
        values = differences(scores, control)
        low, high = interval(values)
        higher = np.count_nonzero(values.mean(0) > 0)
        print(
            f"{name:12} {values.shape[0]} seeds, {values.shape[1]} images: {values.mean():+.4f}, "
            f"95 % within {low:+.4f} to {high:+.4f}; higher on {higher}; by seed "
            + ", ".join(f"{each:+.4f}" for each in values.mean(1))
        )


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())
