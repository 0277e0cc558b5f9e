"""Network files, ours or in the authors' released format: what is in them, and how they are read.

Like the rest of this package it needs nothing outside, so that other projects can load it under a name of their own.
"""

import pickle
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .deblurring_net import DeblurringNet
from .reblurring_net import ReblurringNet
from .released_names import DEBLURRING_KEY, REBLURRING_KEY, from_released
from .state_dicts import find_state_dict, without_prefixes

STAGE_FILES = {"reblur": "ReBlurringNet.pth", "deblur": "DeblurringNet_NF.pth", "finetune": "DeblurringNet_FT.pth"}
BUNDLED = Path(__file__).resolve().parents[1] / "final_model" / STAGE_FILES["deblur"]
EXPORTED = "ASPDC deblurring network"  # in the metadata of exported files
_KEYS = {DeblurringNet: DEBLURRING_KEY, ReblurringNet: REBLURRING_KEY}
_WHAT = {DEBLURRING_KEY: "deblurring", REBLURRING_KEY: "reblurring"}
_LOADERS = {DEBLURRING_KEY: "load_deblurring_net", REBLURRING_KEY: "load_reblurring_net"}

Network = TypeVar("Network", DeblurringNet, ReblurringNet)


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message contains its name, the reason and what to do."""


@dataclass(frozen=True)
class _Checkpoint:
    """A file's content under our names, and the arguments of the network, recorded or derived."""

    state: dict[str, Tensor]
    arguments: dict[str, Any]
    version: str


def network_file(network: DeblurringNet | ReblurringNet, stage: str, epoch: int, version: str) -> dict[str, Any]:
    """Return the content of a network's file: its weights with all that `load_*` needs.

    Args:
        network: either network, on any device.
        stage: the training stage that made the weights.
        epoch: how many of its epochs were completed.
        version: of the program that writes it.
    """
    # Copies: a view would be saved with all of the memory that it is a view of.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    arguments = dict(network.arguments)
    return {"version": version, "stage": stage, "epoch": epoch, "arguments": arguments, _KEYS[type(network)]: state}


def check_finite(path: Path, state: dict[str, Tensor]) -> None:
    """Raise `CheckpointError` rather than let weights that are not finite be written to `path`."""
    if broken := _not_finite(state):
        raise CheckpointError(f"{path} was not written: {len(broken)} tensors are not finite ({_listed(broken)})")


def _listed(names: list[str]) -> str:
    return textwrap.shorten(", ".join(names), 120, placeholder=" ...")


def _not_finite(state: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]


def load_deblurring_net(
    path: Path | str,
    device: torch.device | str = "cpu",
    modulation: str = "auto",
    deform_op: str = "auto",
    log: Callable[[str], None] = print,
) -> DeblurringNet:
    """Return the deblurring network of a checkpoint in eval mode.

    Args:
        path: a checkpoint of ours or in the released format, or any file with a state dict whose names and shapes fit:
            by itself, in `params_ema`, `params`, `state_dict` or `model`, behind `module.`, or as safetensors.
        device: where to put the network.
        modulation: reading of module 0; "auto" is what the file was trained for: as recorded in ours, "released" where
            the names are the authors'. "aligned" or "released" override it.
        deform_op: back end, see `DeblurringNet`.
        log: gets a line where the file does not say itself how it is to be read.

    Raises:
        CheckpointError: no such file, or one that does not hold this network.
    """
    checkpoint = _read(Path(path), DEBLURRING_KEY, modulation, log)
    return _build(DeblurringNet, Path(path), checkpoint, checkpoint.arguments | {"deform_op": deform_op}).to(device)


def load_reblurring_net(
    path: Path | str,
    device: torch.device | str = "cpu",
    deform_op: str = "auto",
    log: Callable[[str], None] = print,
) -> ReblurringNet:
    """Return the reblurring network of a checkpoint in eval mode; see `load_deblurring_net`.

    Args:
        path: the file.
        device: where to put the network.
        deform_op: back end, see `ReblurringNet`.
        log: gets a line where the file does not say itself how it is to be read.

    Raises:
        CheckpointError: no such file, or one that does not hold this network.
    """
    checkpoint = _read(Path(path), REBLURRING_KEY, "auto", log)
    return _build(ReblurringNet, Path(path), checkpoint, checkpoint.arguments | {"deform_op": deform_op}).to(device)


def _read(path: Path, key: str, modulation: str, log: Callable[[str], None]) -> _Checkpoint:
    content = load_file(path)
    raw, notes = _state_in(path, content, key)
    if not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in raw.values()):
        raise CheckpointError(f"{path} was changed by hand: {key} holds something other than floating-point tensors")
    if broken := _not_finite(raw):
        raise CheckpointError(f"{path} holds weights that are not finite ({_listed(broken)}): its training diverged")
    plain, prefix = without_prefixes(raw)
    notes += [f"names without their {prefix}"] if prefix else []
    state = from_released(plain, key)
    if "arguments" in content:
        if not isinstance(content["arguments"], dict):
            raise CheckpointError(f"{path} was changed by hand: its arguments are no dict")
        arguments, version = dict(content["arguments"]), str(content.get("version"))
    else:
        arguments, version = {}, "unknown"
        if "head.0.weight" in state:
            arguments["width"] = len(state["head.0.weight"])
        if key == DEBLURRING_KEY:
            ours = state.keys() == plain.keys()
            arguments["modulation"] = "aligned" if ours else "released"
            if ours and modulation == "auto":
                notes.append("no record of its training: module 0 is read as aligned")
    if key == DEBLURRING_KEY and modulation != "auto":
        arguments["modulation"] = modulation
    if notes:
        log(f"{path}: {'; '.join(notes)}")
    return _Checkpoint(state, arguments, version)


def _state_in(path: Path, content: Any, key: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict for a network in a file's content, and a note on where it was, unless at its own place."""
    if isinstance(content, dict):
        if isinstance(content.get(key), dict):
            return content[key], []
        if other := next((known for known in _WHAT if isinstance(content.get(known), dict)), None):
            raise CheckpointError(
                f"{path} holds a {_WHAT[other]} network, expected a {_WHAT[key]} network; give the right file, or read "
                f"this one with {_LOADERS[other]}"
            )
    if (found := find_state_dict(content)) is None:
        listed = _listed(sorted(map(str, content))) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint of ASPDC: expected a dict with {DEBLURRING_KEY} or {REBLURRING_KEY}, or a "
            f"state dict, found {listed}"
        )
    state, place = found
    state = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}  # but for counters
    return state, [f"state dict in {place}" if place else "a state dict alone"]


def load_file(path: Path) -> Any:
    """Return a checkpoint file's content: tensors, numbers and text alone, never code.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, expected a checkpoint file such as {STAGE_FILES['finetune']}")
    if not path.exists():
        raise CheckpointError(_missing(path))
    if not path.is_file():  # a device may never end
        raise CheckpointError(f"{path} is a device or a pipe, expected a checkpoint file")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        if zipfile.is_zipfile(path) and (part := zipfile.ZipFile(path).testzip()):
            raise RuntimeError(f"checksum of {part}")  # PyTorch itself does not compare them
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or it holds Python objects other than tensors, numbers and text, which are "
            "never loaded because they could run code; give a file written by DR_training.py or by the authors"
        ) from error
    except PermissionError as error:
        raise CheckpointError(f"{path} may not be read: {error.strerror}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is truncated or damaged; copy, download or train it again "
            f"({str(error).partition(chr(10))[0]})"
        ) from error


def _load_safetensors(path: Path) -> dict[str, Any]:
    """Return the content that the file would have as a checkpoint: a state dict alone, if we did not export it."""
    from safetensors import SafetensorError, safe_open  # here: of the package, only these files need it

    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            metadata = file.metadata() or {}
        if metadata.get("network") != EXPORTED:
            return state
        arguments = {"width": int(metadata["width"]), "modulation": metadata["modulation"]}
        return {DEBLURRING_KEY: state, "arguments": arguments, "version": metadata["version"]}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is truncated or damaged; copy, download or export it again ({error})") from error


def _missing(path: Path) -> str:
    for stage, name in STAGE_FILES.items():
        if path.name == name:
            return (
                f"{path} does not exist. It holds the network that the {stage} stage trains: run "
                f"`python DR_training.py --stage {stage} --trainset_dir YOUR_DATA` to make it, or name another file: "
                "see final_model/README.md for the bundled ones and the authors'"
            )
    return f"{path} does not exist; expected a checkpoint such as {', '.join(STAGE_FILES.values())}"


def _build(kind: type[Network], path: Path, checkpoint: _Checkpoint, arguments: dict[str, Any]) -> Network:
    try:
        network = kind(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} was written by version {checkpoint.version} for a network that this version cannot build: {error}"
        ) from error
    expected = network.state_dict()
    problems = {
        "missing": [name for name in expected if name not in checkpoint.state],
        "not part of it": [name for name in checkpoint.state if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
            for name, tensor in checkpoint.state.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
    }
    listed = [f"{len(names)} {what} ({_listed(names)})" for what, names in problems.items() if names]
    if listed:
        raise CheckpointError(
            f"{path} does not fit the {_WHAT[_KEYS[kind]]} network: tensors {'; '.join(listed)}; "
            "it comes from another network or was changed by hand"
        )
    network.load_state_dict(checkpoint.state)
    return network.eval()
