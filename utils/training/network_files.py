"""The network files that training writes: the last network of a stage, and the best one."""

from pathlib import Path

from models import DeblurringNet, ReblurringNet
from models.checkpoint import check_finite, network_file
from utils.common.files import atomic_write, save_tensors
from utils.common.version import __version__


def save_network(path: Path, network: DeblurringNet | ReblurringNet, stage: str, epoch: int) -> None:
    """Write a network's file, complete or not at all.

    Args:
        path: the file to write; an existing one is replaced.
        network: either network, on any device.
        stage: the training stage.
        epoch: its number of completed epochs.

    Raises:
        CheckpointError: weights are not finite; an old file is kept.
        UserError: the file cannot be written; an old file is kept.
    """
    check_finite(path, network.state_dict())
    with atomic_write(path) as temporary:
        save_tensors(network_file(network, stage, epoch, __version__), temporary)


def best_file(output: Path) -> Path:
    """Return the file of the network with the best validation, next to that of the last one."""
    return output.with_name(f"{output.stem}_best{output.suffix}")
