"""DR_training.py on the bundled pairs with small networks, and what it leaves: networks, states, logs, curves."""

import shutil
import subprocess
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import DR_training
from models.checkpoint import load_file
from tests.support.networks import SMALL_WIDTH
from tests.support.samples import small_samples
from utils.training.checkpointing import CheckpointManager

STAGE = ("--stage", "deblur")
NETWORK = "DeblurringNet_NF.pth"


def arguments(folder: Path, *more: str, trainset: tuple[str, ...] = ()) -> list[str]:
    small = ["--width", str(SMALL_WIDTH), "--batch_size", "2", "--patch_size", "32", "--num_workers", "0"]
    paths = ["--output_dir", str(folder / "nets"), "--log_dir", str(folder / "log"), "--device", "cpu"]
    return ["--trainset_dir", *(trainset or [str(small_samples())]), *paths, *small, *more]


def train(folder: Path, *more: str, **options) -> Namespace:
    args = DR_training.parse_args(arguments(folder, *more, **options))
    DR_training.main(args)
    return args


def pairs(folder: Path) -> Path:
    data = folder / "pairs"
    if not data.exists():
        shutil.copytree(small_samples() / "train" / "GOPR0372_07_00", data)
        for side in ("blur", "sharp"):
            shutil.copy(data / side / "000047.png", data / side / "000048.png")
    return data


@contextmanager
def small_disk(folder: Path, size: int):
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
                             capture_output=True)  # fmt: skip
    if mounted.returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def weights(folder: Path, name: str = NETWORK) -> dict[str, torch.Tensor]:
    content = load_file(folder / "nets" / name)
    return content.get("deblurring_state_dict") or content["blurring_state_dict"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def states(folder: Path, stage: str = "deblur") -> list[Path]:
    """The states of a stage but for that of its beginning, newest first."""
    return [
        path
        for path in CheckpointManager(folder / "nets" / "states" / stage, 1).files()
        if "000000000" not in path.name
    ]


def log_lines(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((folder / "log").glob("*/log.txt")))


def curves(log_dir: Path, stage: str) -> EventAccumulator:
    (folder,) = log_dir.glob(f"{stage}_*")
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def values(log_dir: Path, stage: str, name: str) -> list[float]:
    return [event.value for event in curves(log_dir, stage).Scalars(name)]
