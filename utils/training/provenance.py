"""The provenance of a result: command, versions, commit, data; which of it a resumed run must match."""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from datasets import ImageSet
from models import ReblurringNet
from utils.common.errors import counted
from utils.common.files import file_digest
from utils.common.version import __version__
from utils.runtime.distributed import DistributedContext
from utils.training.stage import Stage

_ROOT = Path(__file__).resolve().parents[2]
_PATHS = (
    *("trainset_dir", "valset_dir", "cache_dir", "output_dir", "log_dir"),
    *("reblurring_weights", "deblurring_weights"),
)
_WITHOUT_EFFECT = ("stage", "val_every", "save_every", "keep", "max_bad_steps", "num_workers", "eager")
_DIGITS = 12  # of a SHA-256 in messages
# Names in states: of the frozen network, and of digests of files.
_FROZEN, _OF_FILE = "reblurring_weights", " SHA-256"


def provenance(
    arguments: Mapping[str, Any], image_sets: Sequence[ImageSet], distributed: DistributedContext, deform_op: str
) -> dict[str, Any]:
    """Return all that is needed to repeat a run; of each image set the count, and the SHA-256 of the list of images."""
    on_cuda = distributed.device.type == "cuda"
    return {
        "command": sys.argv,
        "arguments": dict(arguments),
        "versions": {
            "aspdc": __version__,
            "commit": git_commit(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),  # imported it takes a second
            "numpy": np.__version__,
            "cuda": torch.version.cuda if on_cuda else None,
            "cudnn": torch.backends.cudnn.version() if on_cuda else None,
        },
        "device": torch.cuda.get_device_name(distributed.device)
        if on_cuda
        else f"cpu, {torch.get_num_threads()} threads",
        "processes": distributed.world_size,
        "deform_op": deform_op,
        "data": [
            {
                "root": str(image_set.root),
                "kind": image_set.kind,
                "layout": image_set.layout,
                "images": len(image_set),
                "paired": image_set.paired,
                "list_sha256": list_digest([image_set]),
                "notes": list(image_set.notes),
            }
            for image_set in image_sets
        ],
    }


class ResumeSettings(NamedTuple):
    """What a resumed run compares with the stopped one, each by name.

    Attributes:
        must_match: what must be unchanged.
        may_change: what may have changed; changes are listed.
        flag_defaults: also what an earlier version, which did not have a flag, did.
        meaning_of_none: of flags whose default is None, for that list.
    """

    must_match: dict[str, Any]
    may_change: dict[str, str]
    flag_defaults: Mapping[str, str] = MappingProxyType({})
    meaning_of_none: Mapping[str, str] = MappingProxyType({})


def resume_settings(
    stage: Stage,
    arguments: Mapping[str, Any],
    flag_defaults: Mapping[str, Any],
    weights: Mapping[str, Path],
    image_sets: Sequence[ImageSet],
    distributed: DistributedContext,
) -> ResumeSettings:
    """Return what a resumed run compares with the stopped one.

    Args:
        stage: what is trained.
        arguments: of the command line.
        flag_defaults: their defaults.
        weights: files of the networks that the stage reads.
        image_sets: the training data.
        distributed: the processes that share the run.
    """
    digests = {name: file_digest(path) for name, path in weights.items()}
    must_match = {"stage": stage.name, "architecture": stage.network.arguments, "data": frame_list(image_sets)}
    others = [each for each in stage.modules() if isinstance(each, ReblurringNet) and each is not stage.network]
    for frozen in others:  # at most one, which is part of the loss
        must_match[_FROZEN] = tensors_digest(frozen)
    may_change = {name: str(value) for name, value in arguments.items() if name not in ("resume", "overwrite")}
    may_change |= {"processes": str(distributed.world_size)}
    if distributed.device.type == "cpu":  # how sums are divided among them changes the last bits
        may_change["threads"] = str(torch.get_num_threads())
    may_change |= {f"{name}{_OF_FILE}": each for name, each in digests.items()}
    usual = {name: str(value) for name, value in flag_defaults.items()}
    none = {"lr": str(stage.lr), "max_steps": "no limit", "clip_grad": "no limit"}
    return ResumeSettings(must_match, may_change, flag_defaults=usual, meaning_of_none=none)


def known_by_tensors(found: Mapping[str, Any], settings: ResumeSettings) -> dict[str, Any]:
    """Return what a state says must match, in today's terms.

    States of earlier versions know the frozen network by its file: where that is the file of today, by its tensors.

    Args:
        found: of the state.
        settings: of this run.
    """
    wanted = settings.must_match
    if _FROZEN in wanted and found.get(_FROZEN) == settings.may_change[_FROZEN + _OF_FILE]:
        return {**found, _FROZEN: wanted[_FROZEN]}
    return dict(found)


def tensors_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's tensors, with their names, types and shapes, whatever file held them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def describe_changes(before: Mapping[str, str], settings: ResumeSettings) -> list[str]:
    """Return a line on the settings that a resumed run changes, if any: first those that alter the result, paths last.

    Args:
        before: the settings of the stopped run, by name.
        settings: those of this run.
    """

    def shown(name: str, value: str | None) -> str:
        if value in (None, "None"):
            meaning = settings.meaning_of_none.get(name)
            return f"{shown(name, meaning)} (default)" if meaning else "none"
        if name == "lr":
            return np.format_float_scientific(float(value), trim="-", exp_digits=1)
        return value[:_DIGITS] if name.endswith(_OF_FILE) else value

    def group_of(name: str) -> str:
        # Networks come from the state, and the tensors of a frozen one are those that it was trained with.
        without_effect = name in _WITHOUT_EFFECT or name.endswith(_OF_FILE)
        return "paths: " if name in _PATHS else "without effect on the result: " if without_effect else ""

    groups: dict[str, list[str]] = {"": [], "without effect on the result: ": [], "paths: ": []}
    for name, value in settings.may_change.items():
        earlier = before.get(name, settings.flag_defaults.get(name, value))  # earlier versions had fewer flags
        if earlier != value:
            groups[group_of(name)].append(f"{name} {shown(name, earlier)} -> {shown(name, value)}")
    listed = "; ".join(f"{group}{', '.join(changes)}" for group, changes in groups.items() if changes)
    return [f"changed since: {listed}"] if listed else []


def describe_run(
    arguments: Mapping[str, Any], frames: int, steps: int, lr: float, distributed: DistributedContext, deform_op: str
) -> list[str]:
    """Return the first line of a run's log, and one on a warm-up that the run does not reach the end of."""
    size = "{patch_size}×{patch_size}".format(**arguments)
    patches = counted(arguments["batch_size"], "patch", "patches")
    parts = [f"{counted(frames, 'frame')}, {counted(steps, 'step')} of {patches} of {size} px"]
    parts += [f"{distributed.world_size} processes"] if distributed.world_size > 1 else []
    parts += [f"{arguments['accumulate']} micro-batches"] if arguments["accumulate"] > 1 else []
    parts += [f"learning rate {lr:g}", f"{arguments['precision']} on {distributed.device}"]
    lines = [", ".join([*parts, f"deformable convolutions {deform_op}"])]
    if arguments["warmup_steps"] > steps:
        lines += [
            f"WARNING: the learning rate rises over {arguments['warmup_steps']:,} steps to {lr:g}, which a run of "
            f"{counted(steps, 'step')} does not reach; give fewer --warmup_steps"
        ]
    return lines


def git_commit() -> str | None:
    """Return the commit of this code, with "+ changes" if files differ from it; None outside a git repository."""
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(_ROOT), *command], capture_output=True, text=True, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + (" + changes" if changes.strip() else "")


def list_digest(image_sets: Sequence[ImageSet]) -> str:
    """Return the SHA-256 of the list of frames; it does not change if a folder is moved."""
    return hashlib.sha256("\n".join(frame_list(image_sets)).encode(errors="surrogateescape")).hexdigest()


def frame_list(image_sets: Sequence[ImageSet]) -> list[str]:
    """Return a line for each frame: kind of its set, whether it has ground truth, name within the set."""
    return [
        f"{image_set.kind} {'pair' if image_set.paired else 'image'} {name}"
        for image_set in image_sets
        for name in image_set.names
    ]
