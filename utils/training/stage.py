"""The base class of the training stages in DR_training.py."""

from typing import NamedTuple

from torch import Tensor, nn

from models import DeblurringNet, ReblurringNet
from utils.runtime.device import Batch


class StepOutput(NamedTuple):
    """The output of a stage for a batch: the loss, its parts for the log, and the network's output, (N, 3, H, W)."""

    loss: Tensor
    parts: dict[str, Tensor]
    image: Tensor


class Stage(nn.Module):
    """A stage of training: the network it trains, the frozen one, if any, and its loss.

    Attributes:
        name: its file is STAGE_FILES[name].
        lr: default learning rate; the paper gives finetune's only.
        parts: names of the loss's parts.
        network: which is trained.
    """

    name: str
    lr = 1e-4
    parts: tuple[str, ...]
    network: DeblurringNet | ReblurringNet

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of a batch: `blurry` and `sharp`, (N, 3, H, W) in [-1, 1], and `has_sharp`, (N,)."""
        raise NotImplementedError
