"""A state's file, with that of its SHA-256: read only if both are whole, and hold what a state of ours does."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from models.checkpoint import CheckpointError, load_file
from utils.common.files import file_digest
from utils.training.progress import Progress

_CONTENT: Mapping[str, type | UnionType] = {
    "version": str,
    "progress": dict,
    "fixed": dict,
    "settings": dict,
    "validated_on": str,
    "log": str,
    "sums": dict,
    "network": dict,
    "average": dict | None,
    "optimizer": dict,
    "scaler": dict | None,
    "random": dict,
}
_PROGRESS: Mapping[str, type | UnionType] = dict.fromkeys(Progress().to_file(), int | float)
_RANDOM: Mapping[str, type | UnionType] = dict.fromkeys(("python", "numpy", "torch", "cuda"), object)
_OF_ADAM: Mapping[str, type | UnionType] = dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), object)
_FEW_STEPS = 1000
_FIXED = ("stage", "architecture", "data")
_DIGEST_BYTES = 100  # its 64 digits stand at the start of the file


def load_state(path: Path) -> dict[str, Any]:
    """Return a state's content after checking its SHA-256 and its keys.

    Raises:
        CheckpointError: it is missing, damaged, or no state of a run that this version can resume.
    """
    checksum = checksum_file(path)
    if path.is_file() and checksum.exists():
        try:
            with checksum.open("rb") as file:
                digest = file.read(_DIGEST_BYTES).split()[:1]
        except OSError as error:
            raise CheckpointError(f"{checksum}, the SHA-256 of a state, cannot be read: {error.strerror}") from error
        if digest != [file_digest(path).encode()]:
            raise CheckpointError(f"{path} is damaged: its SHA-256 differs from that in {checksum.name}")
    content = load_file(path)
    if not isinstance(content, dict) or not isinstance(content.get("progress"), dict):
        raise CheckpointError(f"{path} is not the state of a training run; expected a file step-*.pth")
    if problems := _problems(content):
        raise CheckpointError(f"{path} cannot be resumed by this version: {'; '.join(problems)}")
    return content


def checksum_file(path: Path) -> Path:
    """Return the file of a state's SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def remove_state(path: Path) -> None:
    """Delete a state and its SHA-256, whatever bears their names."""
    for each in (path, checksum_file(path)):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def _problems(content: dict[str, Any]) -> list[str]:
    if problems := _differences("", content, _CONTENT):
        return problems[:5]
    problems += _differences("progress.", content["progress"], _PROGRESS)
    problems += _differences("random.", content["random"], _RANDOM)
    fixed, weights, moments = content["fixed"], content["network"], content["optimizer"]
    problems += [f"fixed.{name} is missing" for name in _FIXED if name not in fixed]
    if not isinstance(fixed.get("data"), list):
        problems.append("fixed.data is no list")
    if problems:
        return problems[:5]
    counts = [value for name, value in content["progress"].items() if name != "best_psnr"]
    problems += ["progress has numbers that are no counts"] * any(not value >= 0 for value in counts)
    problems += ["settings are no texts"] * any(not isinstance(each, str) for each in content["settings"].values())
    problems += ["sums are no numbers"] * any(not isinstance(each, int | float) for each in content["sums"].values())
    for name, each in moments.items():
        problems += _differences(f"optimizer.{name}.", each if isinstance(each, dict) else {}, _OF_ADAM)
    few = content["progress"]["step"] < _FEW_STEPS  # all of which may have been skipped
    if not problems and len(moments) != len(weights) and (moments or not few):
        problems.append(f"the optimizer has moments of {len(moments)} tensors, the network has {len(weights)}")
    if not problems:
        shapes = zip((each["exp_avg"].shape for each in moments.values()), weights.values(), strict=False)
        problems += ["the optimizer's moments have other shapes"] * any(a != b.shape for a, b in shapes)
        problems += ["its weights are not finite"] * any(not each.isfinite().all() for each in weights.values())
    return problems[:5]


def _differences(prefix: str, content: dict[Any, Any], expected: Mapping[str, type | UnionType]) -> list[str]:
    return [
        *(f"{prefix}{name} is missing" for name in expected if name not in content),
        *(f"{prefix}{name} is unknown" for name in content if name not in expected),
        *(
            f"{prefix}{name} is of type {type(content[name]).__name__}"
            for name, kind in expected.items()
            if name in content and not isinstance(content[name], kind)
        ),
    ]
