"""Score a network on held-out pairs, and append what it is and what it gave to the history of its training.

python -m tools.training_history HISTORY deblur NF.pth --valset_dir VAL/reds_003 VAL/gopro --run OUT/deblur-1 --lr 1e-4

Prints the PSNR of every picture. The history is a table, a row a slice: PSNR of the input and of the output by set and
over all, and the worst picture, the one that gained least. A reblurring network's output is R(blurry, sharp), and is
scored against the blurry image.
"""

import argparse
import csv
import re
from datetime import date
from pathlib import Path
from statistics import fmean

from datasets import find_images
from models.checkpoint import load_deblurring_net, load_reblurring_net
from utils.common.arguments import ArgumentParser, whole
from utils.common.errors import UserError
from utils.common.files import atomic_write
from utils.inference.evaluation import JoinedInputs, decode, restore, score_both
from utils.metrics.scorer import Scorer
from utils.runtime.device import pick_device
from utils.runtime.precision import PRECISIONS
from utils.runtime.program_end import user_errors_end_the_program
from utils.training.checkpointing import CheckpointManager, states_folder
from utils.training.provenance import git_commit

COLUMNS = ("date", "stage", "slice", "steps", "steps_in_all", "lr", "data", "commit", "psnr_input", "psnr")

Row = dict[str, str]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.training_history")
    add = parser.add_argument
    # fmt: off
    add("history", type=Path, metavar="HISTORY", help="CSV table to append to; created if it does not exist")
    add("stage", choices=("deblur", "reblur"), help="stage that trained the network")
    add("network", type=Path, help="checkpoint of the network")
    add("--valset_dir", type=Path, nargs="+", required=True, help="folders of pairs, each a set of its own")
    add("--run", type=Path,
        help="--output_dir of the run whose newest state has the number of steps (default: --steps)")
    add("--steps", type=whole(0), default=0, help="training steps of the network; not needed with --run")
    add("--name", default="", help="name of this part of the training (default: empty)")
    add("--lr", default="", help="learning rate of this part of the training (default: empty)")
    add("--data", default="", help="notes on its training data (default: empty)")
    add("--commit", default="", help="commit of the code that trained it (default: that of this code)")
    add("--precision", choices=PRECISIONS, default="fp32", help="number format of convolutions and matrix products")
    add("--device", default="auto",
        help="auto, cpu, cuda, cuda:1, ... (default: auto, which is CUDA if available, else the CPU)")
    # fmt: on
    args = parser.parse_args(argv)
    names = [folder.resolve().name for folder in args.valset_dir]
    if len(set(names)) < len(names):
        parser.error("--valset_dir: the folders' names, which name the sets in the table, should differ")
    return args


def read_rows(table: Path) -> list[Row]:
    """Return a history's rows.

    Raises:
        UserError: it cannot be read, or is no history.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if bad := next((i for i, row in enumerate(rows, 2) if None in row or not row["steps_in_all"].isdigit()), None):
            raise UserError(
                f"{table}, row {bad}: expected a number of steps_in_all and a value per column; correct the row"
            )
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise UserError(f"{table} is no history of training ({error!r}); give another file") from error
    return rows


def steps_of(run: Path, stage: str) -> int:
    """Return the step of a run's newest state.

    Raises:
        UserError: there is none.
    """
    found = CheckpointManager(states_folder(run, stage), keep=1).newest()
    if found is None:
        raise UserError(f"{run} holds no state of stage {stage}: expected the --output_dir of its run")
    return found[1]["progress"]["step"]


def scores(args: argparse.Namespace) -> Row:
    """Return the columns of a row with PSNR."""
    device = pick_device(args.device)
    reblurs = args.stage == "reblur"
    load = load_reblurring_net if reblurs else load_deblurring_net
    network = JoinedInputs(load(args.network, device)) if reblurs else load(args.network, device)
    scorer = Scorer(("psnr",), device)
    row: Row = {}
    every: dict[str, tuple[float, float]] = {}
    for folder in args.valset_dir:
        image_set = find_images(folder, "test", "paired")
        pairs = []
        for i, path in enumerate(image_set.blurry):
            pair = decode(image_set, i)
            output = restore(network, pair.both if reblurs else pair.blurry.pixels, device, args.precision)
            before, after = score_both(scorer, pair, output, str(path), reblurs)
            pairs.append((before["psnr"], after["psnr"]))
        every |= {f"{folder.name}/{Path(name).stem}": pair for name, pair in zip(image_set.names, pairs, strict=True)}
        row |= {f"{folder.name}{kind}": _mean(pairs, i) for i, kind in enumerate(("_input", ""))}
    for name, pair in every.items():
        print(f"{name}: {pair[0]:.2f} -> {pair[1]:.2f} dB")
    worst = min(every, key=lambda name: every[name][1] - every[name][0])
    over_all = {"psnr_input": _mean(list(every.values()), 0), "psnr": _mean(list(every.values()), 1)}
    return over_all | row | {"worst": worst, "worst_gain": f"{every[worst][1] - every[worst][0]:+.3f}"}


def _mean(pairs: list[tuple[float, float]], which: int) -> str:
    return f"{fmean(pair[which] for pair in pairs):.3f}"


def main(args: argparse.Namespace) -> None:
    """Score the network and append a row.

    Raises:
        UserError: a network, a set, a run or the table cannot be read.
    """
    rows = read_rows(args.history) if args.history.exists() else []
    before = [int(row["steps_in_all"]) for row in rows if row["stage"] == args.stage]
    steps = steps_of(args.run, args.stage) if args.run else args.steps
    row = {
        "date": f"{date.today()}",
        "stage": args.stage,
        "slice": args.name,
        "steps": str(steps),
        "steps_in_all": str(steps + (before[-1] if before else 0)),
        "lr": args.lr,
        "data": args.data.strip(),
        "commit": args.commit or re.sub(r"(?<=^\w{10})\w+", "", git_commit() or ""),
        **scores(args),
    }
    rows.append(row)
    columns = dict.fromkeys([*COLUMNS, *(name for each in rows for name in each if name[:5] != "worst")])
    with atomic_write(args.history) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "worst", "worst_gain"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(", ".join(f"{name} {value}" for name, value in row.items() if value))


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())
