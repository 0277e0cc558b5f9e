"""The base class of the training stages in DR_training.py."""

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import DeblurringNet, ReblurringNet, cached_kernel_weights
from utils.runtime.precision import autocast

Batch = dict[str, Tensor]  # see `Stage.forward`


class StepOutput(NamedTuple):
    """The output of a stage for a batch.

    Attributes:
        loss: what is minimised.
        parts: of the loss, before their weights, for the log.
        image: the network's output, (N, 3, H, W).
    """

    loss: Tensor
    parts: dict[str, Tensor]
    image: Tensor


def _check_parts(stage: nn.Module, _: object, output: StepOutput) -> None:
    """Refuse parts of a loss that are not those that the stage names: they are logged by their position."""
    assert isinstance(stage, Stage)
    if tuple(output.parts) != stage.parts:
        raise ValueError(f"stage {stage.name} returned the parts {tuple(output.parts)}, its `parts` are {stage.parts}")


class Stage(nn.Module):
    """A stage of training: the network it trains, the frozen one, if any, and its loss.

    Attributes:
        name: its file is STAGE_FILES[name].
        lr: default learning rate; the paper gives finetune's only.
        parts: names of the loss's parts, in the order of `StepOutput.parts`.
        network: which is trained.
    """

    name: str
    lr = 1e-4
    parts: tuple[str, ...]
    network: DeblurringNet | ReblurringNet

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_hook(_check_parts)

    def frozen_weights_cached(self) -> AbstractContextManager[None]:
        """Return a scope in which the kernels' weights of networks that are not trained are built once."""
        return cached_kernel_weights(nn.ModuleList(each for each in self.children() if each is not self.network))

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of a batch: `blurry` and `sharp`, (N, 3, H, W) in [-1, 1], and `has_sharp`, (N,)."""
        raise NotImplementedError

    def dry_run(self, images: int, size: int, precision: str) -> None:
        """Compute the loss of a number of black squares of `size` px, and its gradients, for the kernels' sake."""
        device = next(self.parameters()).device
        black = torch.zeros(images, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        with autocast(precision, device):
            output = self({"blurry": black, "sharp": black, "has_sharp": black.new_ones(images)})
        output.loss.backward()
        self.zero_grad(set_to_none=True)
