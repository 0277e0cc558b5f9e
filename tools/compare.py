"""Compare what this tree computes with what an earlier commit did, bit by bit: a regression test for refactoring.

    python -m tools.compare 94a4be1                                        # on the CPU: a minute on two cores
    python -m tools.compare HEAD --device cuda --only reblur tiled --keep both

The commit is cloned into a temporary folder. Both trees, this one with its uncommitted changes, run the same commands
by the same interpreter on parts of the bundled samples: training of the three stages with a stop and a resume, folders
restored and scored, one of them stopped by SIGTERM and resumed, and refusals. Weights, states, pictures, tables, logged
curves, statuses and error messages are compared; a line for each reports that it is equal, or what differs and by
how much. The status is 0 when all are equal, 1 when something differs, 2 when they cannot be compared. Only the command
lines of the scripts are used, so that the trees may have any layout inside.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.common.arguments import ArgumentParser, whole
from utils.common.errors import USAGE_STATUS, UserError
from utils.common.files import check_writable
from utils.runtime.device import pick_device
from utils.runtime.program_end import user_errors_end_the_program

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, NETWORK = ROOT / "samples" / "GOPRO", ROOT / "final_model" / "DeblurringNet_NF.pth"

# Not compared: seconds, the paths of logs (which contain the time) and of states, versions, commits, and digests of
# files that record these; generators that are not seeded, since nothing draws from them; pages, texts and PDFs, which
# are for readers.
IGNORED_NAMES = re.compile(
    r"seconds\w*|time/.*|log|states|versions?|command|.*(sha|SHA-)256|reblurring_weights|python|numpy"
)
IGNORED_FILES = re.compile(
    r".*\.(html|pdf|txt|sha256)|(thumbnail|preview)-.*|statuses.json|curves.png"
)  # the figure of log.csv has a time in its title
IGNORED_IN_FOLDERS = re.compile(r"_\d{8}-\d{6}(-\d+)?$")  # the time in the name of a log's

_SHOWN, _LETTERS = 5, 60  # differences of one thing; of a value


class Command(NamedTuple):
    """A script with its arguments, which both trees run, each in its own folder."""

    name: str
    text: str
    status: int = 0  # with which it should end
    stop_at: str = ""  # once a file matches, SIGTERM is sent
    after: tuple[str, ...] = ()  # the commands whose results it reads


def commands(steps: int, device: str, folder: Path) -> list[Command]:
    """Return what is run on a folder of inputs, in an order in which each command finds what it needs."""
    inputs, network = (shlex.quote(str(path)) for path in (folder, NETWORK))
    train = (
        f"DR_training.py --device {device} --deterministic --output_dir nets --log_dir log --width 2 --patch_size 32 "
        "--batch_size 2 --num_workers 0 --n_steps 3 --save_every 7steps --keep 9 --stage"
    )
    deblur = f"{train} deblur --trainset_dir 2*{inputs}/GOPRO sharp={inputs}/photographs --ema_decay 0.9 --clip_grad 1"
    test = f"D_testing.py --device {device} --num_workers 2 --weights {network}"
    many = f"{test} --testset_dir {inputs}/many --save_dir stopped"
    # fmt: off
    return [
        Command("reblur", f"{train} reblur --trainset_dir {inputs}/GOPRO --valset_dir {inputs}/pairs --val_every 5 "
                f"--cache_dir cache --max_steps {steps}"),
        Command("deblur", f"{deblur} --max_steps {steps // 2 + 1}"),
        Command("deblur_resumed", f"{deblur} --max_steps {steps} --resume auto", after=("deblur",)),
        Command("finetune", f"{train} finetune --trainset_dir {inputs}/GOPRO unpaired={inputs}/photographs "
                f"--accumulate 2 --max_steps {steps}", after=("reblur", "deblur")),
        Command("restored", f"{test} nets/DeblurringNet_FT.pth --testset_dir {inputs}/GOPRO "
                f"--testset_dir {inputs}/pairs --figures --save_dir restored", after=("finetune",)),
        Command("tiled", f"{test} --testset_dir {inputs}/GOPRO --tile 128 --tile_overlap 32 --self_ensemble "
                "--precision bf16 --save_dir tiled"),
        Command("stopped", many, 143, "stopped/many/[0-9]*.png"),
        Command("stopped_resumed", f"{many} --resume", after=("stopped",)),
        Command("refused", f"{test} nets/nowhere.pth --testset_dir {inputs}/pairs --save_dir refused", 2),
        Command("refused_training", f"{train} finetune --trainset_dir {inputs}/nowhere", 2),
    ]
    # fmt: on


def with_needed(chosen: Sequence[str], available: Sequence[Command]) -> list[Command]:
    """Return the chosen commands and those whose results they read, in the order of the available ones."""
    needed = set(chosen)
    for command in reversed(available):
        if command.name in needed:
            needed.update(command.after)
    return [command for command in available if command.name in needed]


def make_inputs(folder: Path) -> None:
    """Write parts of the bundled samples: pairs in two layouts, photographs, many small pictures."""
    pictures: dict[str, Image.Image] = {}
    image: Image.Image | None = None
    for source in sorted(SAMPLES.rglob("*.png")):
        image, scene = Image.open(source).convert("RGB"), source.relative_to(SAMPLES)
        pictures[f"GOPRO/{scene}"] = image.crop((200, 100, 336, 220))
        pictures[f"pairs/{scene.parent.name}/{scene.name}"] = image.crop((80, 200, 176, 272))
        if scene.parent.name == "sharp":
            pictures[f"photographs/{scene.stem}.jpg"] = image.crop((100, 40, 292, 168))
    assert image is not None
    for i in range(16):  # neighbours of unequal size, so that they are not batched
        part = image.crop((20 * i, 10 * i, 20 * i + 112 + 8 * (i % 3), 10 * i + 80))
        pictures[f"many/{i:02}.{'jpg' if i % 4 == 1 else 'png'}"] = part.convert(("RGB", "RGB", "L", "RGBA")[i % 4])
    for name, image in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)


def run_tree(tree: Path, folder: Path, chosen: list[Command]) -> None:
    """Run commands by a tree's scripts in a new folder, which keeps their output and statuses, too."""
    folder.mkdir(parents=True)
    statuses: dict[str, int] = {}
    # On one thread sums are added in one order. What a tree lacks must not be imported from another one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    for command in chosen:
        script, *arguments = shlex.split(command.text)
        run = [sys.executable, str(tree / script), *arguments]
        with (folder / f"{command.name}.txt").open("w") as output:
            process = subprocess.Popen(run, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
            while command.stop_at and process.poll() is None and not any(folder.glob(command.stop_at)):
                time.sleep(0.01)
            if command.stop_at:
                process.send_signal(signal.SIGTERM)
            statuses[command.name] = process.wait()
        print(f"{folder.name} {command.name}: status {statuses[command.name]}", file=sys.stderr, flush=True)
    (folder / "statuses.json").write_text(json.dumps(statuses))


def outputs_of(folder: Path) -> dict[str, Path]:
    """Return the files that are compared by name; TensorBoard's events are one thing, named by their folder."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = [IGNORED_IN_FOLDERS.sub("", part) for part in path.relative_to(folder).parent.parts]
        if path.name.startswith("events."):
            found["/".join([*parts, "events"])] = path.parent
        elif not IGNORED_FILES.fullmatch(path.name):
            found["/".join([*parts, path.name])] = path
    return found


def read(path: Path) -> Any:
    """Return what a file, or a folder of events, holds as dicts, lists, arrays, numbers and text."""
    if path.is_dir():
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0}).Reload()
        scalars = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        tags = events.Tags()["images"]
        return scalars | {tag: [_digest(each.encoded_image_string) for each in events.Images(tag)] for tag in tags}
    if path.suffix == ".pth":
        return torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()))
    pixels = {".png": lambda: np.array(Image.open(path)), ".npy": lambda: np.load(path)}.get(path.suffix, dict)
    return {"file": _digest(path.read_bytes()), "values": pixels()}


def _digest(content: bytes) -> str:
    return f"{len(content):,} bytes, {hashlib.sha256(content).hexdigest()[:12]}"


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield a line for each value that is not the same to the bit: where it is, and by how much it differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in (name for name in dict.fromkeys((*old, *new)) if not IGNORED_NAMES.fullmatch(str(name))):
            if name in old and name in new:
                yield from differences(old[name], new[name], f"{where} {name}".lstrip())
            else:
                yield f"{where} {name}: only in the {'old' if name in old else 'new'} one".lstrip()
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        if len(old) != len(new):
            yield f"{where}: {len(old)} entries -> {len(new)}"
        for i, pair in enumerate(zip(old, new, strict=False), start=1):
            yield from differences(*pair, f"{where} {i}".lstrip())
    elif all(isinstance(each, torch.Tensor | np.ndarray) for each in (old, new)):
        before, now = (torch.as_tensor(each).clone(memory_format=torch.contiguous_format) for each in (old, new))
        if (before.dtype, before.shape) != (now.dtype, now.shape):
            yield f"{where}: {before.dtype} {tuple(before.shape)} -> {now.dtype} {tuple(now.shape)}"
            return
        bits = [each.flatten().view(torch.uint8).reshape(-1, each.element_size()) for each in (before, now)]
        if count := int((bits[0] != bits[1]).any(dim=1).sum()):
            largest = (now.double() - before.double()).abs().max()
            yield f"{where}: {count:,} of {now.numel():,} values by up to {largest:.3g}"
    elif type(old) is not type(new) or repr(old) != repr(new):  # repr distinguishes -0.0 from 0.0, and has one NaN
        by = f" ({new - old:+.3g})" if all(isinstance(each, int | float) for each in (old, new)) else ""
        yield f"{where}: {repr(old)[:_LETTERS]} -> {repr(new)[:_LETTERS]}{by}"


def compare(old: Path, new: Path, expected: dict[str, int]) -> int:
    """Print a line for each output of two trees and each status, and return how many differ."""
    before, now = (json.loads((folder / "statuses.json").read_text()) for folder in (old, new))
    found: dict[str, list[str]] = {}
    for name, status in expected.items():
        ends = [_last_line(folder / f"{name}.txt") for folder in (old, new)]
        wrong = {before[name], now[name]} != {status}  # also where both trees failed
        found[f"status of {name}"] = [f"{before[name]} -> {now[name]}, not {status}: {ends[1]}"] * wrong
        if status == USAGE_STATUS:
            found[f"message of {name}"] = list(differences(ends[0], ends[1], "last line"))
    left, right = outputs_of(old), outputs_of(new)
    for name in sorted(left.keys() | right.keys()):
        found[name] = [f"only in the {'old' if name in left else 'new'} one"]
        if name in left and name in right:
            try:
                found[name] = list(differences(read(left[name]), read(right[name])))
            except Exception as error:  # a tree may write unreadable files
                found[name] = [f"cannot be read: {error!r}"]
    for name, lines in found.items():
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        print("\n    ".join([f"DIFFERS {name}", *lines[:_SHOWN], *more]) if lines else f"equal   {name}")
    count = sum(map(bool, found.values()))
    print(f"{count} of {len(found)} differ" if count else f"all {len(found)} are equal")
    return count


def _last_line(path: Path) -> str:
    return (path.read_text(errors="replace").splitlines() or [""])[-1]


def clone(commit: str, folder: Path) -> None:
    """Check a commit of this repository out into a new folder; raise CalledProcessError if that fails."""
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    name = run(["git", "-C", ROOT, "rev-parse", "--verify", f"{commit}^{{commit}}"]).stdout.strip()
    run(["git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, folder])
    run(["git", "-C", folder, "checkout", "--quiet", "--detach", name])  # a branch of ours has another name there


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = ArgumentParser(__doc__, prog="python -m tools.compare")
    names = [command.name for command in commands(1, "cpu", Path())]
    add = parser.add_argument
    add("commit", metavar="COMMIT", help="a hash, tag or branch of this repository")
    add("--device", default="cpu", help="device of both: cpu, cuda, cuda:1, ...")
    add("--steps", type=whole(1), default=20, help="training steps of each stage")
    add(
        "--only",
        nargs="+",
        choices=names,
        metavar="NAME",
        default=names,
        help=f"commands to run, with those that they need, of {', '.join(names)} (default: all)",
    )
    add("--keep", type=Path, metavar="FOLDER", help="new folder in which to keep both outputs (default: delete them)")
    args = parser.parse_args(argv)
    if args.keep and args.keep.exists():
        parser.error("--keep should be a folder that does not exist yet")
    return args


def main(args: argparse.Namespace) -> int:
    """Clone, run both trees in parallel, compare; return the exit status.

    Raises:
        UserError: no such commit or device, or --keep cannot be written.
    """
    pick_device(args.device)
    if args.keep:
        check_writable(args.keep, "--keep")
    with tempfile.TemporaryDirectory() as temporary:
        tree, outputs = Path(temporary, "tree"), (args.keep or Path(temporary, "outputs")).resolve()
        try:
            clone(args.commit, tree)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().partition("\n")[0]
            raise UserError(f"{args.commit} cannot be taken from {ROOT}: {reason}") from error
        make_inputs(outputs / "inputs")  # one folder for both: names of cached frames are made of whole paths
        chosen = with_needed(args.only, commands(args.steps, args.device, outputs / "inputs"))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run_tree, (tree, ROOT), (outputs / "old", outputs / "new"), (chosen, chosen)))
        return min(1, compare(outputs / "old", outputs / "new", {each.name: each.status for each in chosen}))


if __name__ == "__main__":
    with user_errors_end_the_program():
        sys.exit(main(parse_args()))
