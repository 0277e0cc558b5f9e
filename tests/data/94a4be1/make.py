"""Make the museum: what commit 94a4be1 writes, as small as can be. README.md beside this file says what is in it.

    git worktree add ../aspdc-94a4be1 94a4be1 && cd ../aspdc-94a4be1
    python ../aspdc/tests/data/94a4be1/make.py /tmp/museum

It runs the commit's code in this process, on one thread of the CPU. tests/test_museum.py uses some of its functions on
the code of today; these import nothing of the repository's but what they are given.
"""

import argparse
import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch

SCRIPTS = ("DR_training", "D_testing")
SECONDARY = (
    "utils.benchmark",
    "utils.export",
    "utils.halve",
    "utils.profile_model",
    "datasets.blur_statistics",
    "datasets.blur_synthesis",
    "datasets.check",
)
FILES = {"reblur": "ReBlurringNet.pth", "deblur": "DeblurringNet_NF.pth", "finetune": "DeblurringNet_FT.pth"}
VARIANTS = {"plain": (), "averaged": ("--ema_decay", "0.9")}
VALIDATED = ("--valset_dir", "paired=data/pairs", "--val_every", "1")  # a further run, of deblur alone
MIDDLE = {"reblur": 3, "deblur": 3, "finetune": 4}  # the step of the state that is kept, in the middle of an epoch
PAIRS = {"a": (64, 48), "b": (72, 40), "c": (48, 56)}  # width, height in px; unequal, so that each is restored alone
CPUS = 64  # on which the defaults of flags are taken


def training_arguments(stage, variant, *more):
    """Return what a stage's run was started with, in the museum as the working directory."""
    sets = ["paired=data/pairs", *(["unpaired=data/photos"] if stage == "finetune" else [])]
    return [
        *("--stage", stage, "--trainset_dir", *sets, "--output_dir", variant, "--log_dir", f"log_{variant}"),
        *("--width", "2", "--patch_size", "24", "--batch_size", "2", "--n_epochs", "3", "--n_steps", "2"),
        *(
            "--lr",
            "1e-3",
            "--clip_grad",
            "1",
            "--num_workers",
            "0",
            "--device",
            "cpu",
            *VARIANTS.get(variant, VALIDATED),
        ),
        *("--save_every", "1steps", "--keep", "20"),
        # Both variants of finetune begin with the same networks, so that the museum is smaller.
        *(("--reblurring_weights", "plain/ReBlurringNet.pth") if stage == "finetune" else ()),
        *(("--deblurring_weights", "plain/DeblurringNet_NF.pth") if stage == "finetune" else ()),
        *more,
    ]


def testing_arguments(save_dir, *more):
    """Return what a result folder's run was started with, in the museum as the working directory."""
    network = ("--weights", "plain/DeblurringNet_FT.pth")
    return [
        *("--testset_dir", "paired=data/pairs", "--save_dir", save_dir, *network, "--num_workers", "1"),
        *("--device", "cpu", *more),
    ]


def processor():
    """Return what the bits of a result depend on besides the code: the processor and the libraries that compute."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    first = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    names = ("vendor_id", "cpu family", "model", "model name")
    return {
        "cpu": " ".join(first[name] for name in names if name in first) or platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__.partition("+")[0],
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }


@contextmanager
def one_thread():
    """Let torch compute on one thread: sums are then added in one order, however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Found(BaseException):
    """Carries a parser out of the code that made it; no handler of errors or exits takes it."""


def parser_of(module):
    """Return the parser of a command: of its `parse_args`, or of its `main` where it has none."""

    def found(parser, *arguments, **named):
        raise _Found(parser)

    with (
        patch.object(argparse.ArgumentParser, "parse_known_args", found),
        patch.object(os, "cpu_count", lambda: CPUS),
        patch.object(sys, "argv", [module.__name__]),
    ):
        try:
            (module.parse_args if hasattr(module, "parse_args") else module.main)([])
        except _Found as carrier:
            return carrier.args[0]
    raise RuntimeError(f"{module.__name__} made no parser")


def flags_of(parser, root):
    """Return a parser's arguments by name: default, whether it is required, nargs, choices; paths from `root` on."""
    return {
        " ".join(action.option_strings) or action.dest: {
            "default": _plain(action.default, root),
            "required": action.required,
            "nargs": action.nargs,
            "choices": None if action.choices is None else [str(each) for each in action.choices],
        }
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    }


def _plain(value, root):
    if isinstance(value, list | tuple):
        return [_plain(each, root) for each in value]
    if isinstance(value, Path):
        return value.relative_to(root).as_posix() if value.is_relative_to(root) else value.as_posix()
    return value if isinstance(value, bool | int | float | None) else str(value)


def cached_name(source):
    """Return the name under which the cache of 94a4be1 keeps the frame of a file: of its path, size and time."""
    status = source.stat()
    parts = str(source.absolute()), f"{status.st_size} {status.st_mtime_ns}"
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:24] for part in parts) + ".npy"


def frames():
    """Return the files of data/pairs, whose frames the cache holds."""
    return sorted(Path("data/pairs").rglob("*.png"))


def picture(path):
    """Return a picture as (1, 3, H, W) in [-1, 1], RGB."""
    values = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(values).permute(2, 0, 1)[None].float() / 127.5 - 1


def outputs(load_deblurring_net, load_reblurring_net, variant):
    """Return what the networks of a variant make of a part of one pair."""
    blurry, sharp = (picture(f"data/pairs/{side}/a.png")[..., :24, :32] for side in ("blur", "sharp"))
    with torch.no_grad():
        return {
            "reblur": load_reblurring_net(Path(variant, FILES["reblur"]))(blurry, sharp),
            "deblur": load_deblurring_net(Path(variant, FILES["deblur"]))(blurry),
            "finetune": load_deblurring_net(Path(variant, FILES["finetune"]))(blurry),
        }


def _crop(source, target, left, top, width, height):
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), cv2.imread(str(source))[top : top + height, left : left + width])


def _make_data(samples):
    scenes = ("test/GOPR0881_11_01/{}/000203.png", "train/GOPR0372_07_00/{}/000047.png")
    scenes = (*scenes, "train/GOPR0372_07_00/{}/000099.png")
    for (name, size), scene in zip(PAIRS.items(), scenes, strict=True):
        for side in ("blur", "sharp"):
            _crop(samples / scene.format(side), Path(f"data/pairs/{side}/{name}.png"), 300, 150, *size)
    for i, scene in enumerate(scenes[:2]):
        _crop(samples / scene.format("blur"), Path(f"data/photos/photo_{i}.png"), 80, 60, 40, 48)


def _train(training):
    for variant in VARIANTS:
        for stage in FILES:
            arguments = training_arguments(stage, variant)
            with patch.object(sys, "argv", ["DR_training.py", *arguments]):  # which its log records
                training.main(training.parse_args(arguments))
            for path in Path(variant, "states", stage).iterdir():
                if f"{MIDDLE[stage]:09}" not in path.name:
                    path.unlink()
    # A log as it was when the state was saved, and as it was at the end.
    (log,) = Path("log_plain").glob("deblur_*")
    for path in log.iterdir():
        if path.suffix not in (".csv", ".json", ".txt"):
            path.unlink()
    log.rename("log_deblur")
    for variant in VARIANTS:
        shutil.rmtree(f"log_{variant}")


def _more(training, checkpoint):
    """A run with validation, and a network with the released reading of module 0."""
    arguments = training_arguments("deblur", "validated")
    training.main(training.parse_args(arguments))
    for path in Path("validated/states/deblur").iterdir():
        if f"{MIDDLE['deblur']:09}" not in path.name:
            path.unlink()
    shutil.rmtree("log_validated")
    torch.manual_seed(0)
    network = checkpoint.DeblurringNet(2, "released")
    checkpoint.save_network(Path("released/DeblurringNet_NF.pth"), network, "deblur", 1)
    torch.save(released_output(checkpoint.load_deblurring_net), "released/output.pth")
    with tarfile.open("more.tar.xz", "w:xz", preset=9) as archive:
        for folder in ("validated", "released"):
            archive.add(folder)
            shutil.rmtree(folder)


def released_output(load_deblurring_net):
    """Return what the network with the released reading makes of a part of one pair."""
    with torch.no_grad():
        return load_deblurring_net(Path("released", FILES["deblur"]))(picture("data/pairs/blur/a.png")[..., :24, :32])


def _test(clone):
    run = "import sys; sys.path.insert(0, sys.argv[1]); import D_testing; from utils.results import Results"
    whole = "D_testing.main(D_testing.parse_args(sys.argv[2:]))"
    # The process is killed when the second picture is saved and the table has the first one's row alone.
    kill = (
        "import os; add = Results.add\n"
        "end = lambda self: (self.write(), os.kill(os.getpid(), 9))\n"
        "Results.add = lambda self, row: end(self) if self.rows else add(self, row)"
    )
    for save_dir, lines, status in (
        ("restored/whole", (run, whole), 0),
        ("restored/stopped", (run, kill, whole), -9),
    ):
        command = [sys.executable, "-c", "\n".join(lines), str(clone), *testing_arguments(save_dir)]
        ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
        assert ended == status, f"{save_dir} ended with {ended}, expected {status}"
        Path(save_dir, "report.html").unlink(missing_ok=True)
        shutil.rmtree(Path(save_dir, "report_files"), ignore_errors=True)
    assert Path("restored/stopped/unfinished.jsonl").exists()
    assert len(Path("restored/stopped/results.csv").read_text().splitlines()) == 2


def _write_json(path, content):
    Path(path).write_text(json.dumps(content, indent=1) + "\n")


def main(museum):
    """Make everything in a folder that does not exist yet; the working directory is a clone of the commit."""
    clone = Path.cwd()
    sys.path.insert(0, str(clone))
    museum.mkdir(parents=True)
    os.chdir(museum)
    training = importlib.import_module("DR_training")
    checkpoint = importlib.import_module("utils.checkpoint")
    cache = importlib.import_module("datasets").FrameCache(Path("frame_cache"))
    with one_thread():
        _make_data(clone / "samples" / "GOPRO")
        _train(training)
        loaders = checkpoint.load_deblurring_net, checkpoint.load_reblurring_net
        torch.save({variant: outputs(*loaders, variant) for variant in VARIANTS}, "outputs.pth")
        _more(training, checkpoint)
        _test(clone)
        cache.build(frames(), 1)
    assert {path.name for path in Path("frame_cache").iterdir()} == {cached_name(path) for path in frames()}
    os.environ["COLUMNS"] = "100"
    Path("help").mkdir()
    flags = {}
    for name in (*SCRIPTS, *SECONDARY):
        parser = parser_of(importlib.import_module(name))
        Path("help", f"{name}.txt").write_text(parser.format_help())
        flags[name] = flags_of(parser, clone)
    _write_json("flags.json", flags)
    _write_json("cached.json", {cached_name(path): path.as_posix() for path in frames()})
    _write_json("made.json", {"place": str(museum), **processor()})
    # Together, because what they share (the weights of both variants' states) is then stored once.
    with tarfile.open("training.tar.xz", "w:xz", preset=9) as archive:
        for variant in VARIANTS:
            archive.add(variant)
    for variant in VARIANTS:
        shutil.rmtree(variant)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
