"""What changes in training: the weights, their average, the optimizer, the scale of the loss."""

import inspect
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from models.ops.common.streams import parameter_gradients_aside
from utils.runtime.flat_parameters import FlatParameters, Gathering

_MOMENTS = ("exp_avg", "exp_avg_sq")  # as Adam calls them


@dataclass(frozen=True)
class OptimizationSettings:
    """How steps are taken; see the flags of DR_training.py that have these names."""

    precision: str = "fp32"
    ema_decay: float = 0.0
    accumulate: int = 1
    clip_grad: float | None = None


class WeightAverage(AveragedModel):
    """The exponential moving average of a network's weights.

    The decay starts below `decay`, so that the random initial weights are soon forgotten.

    Args:
        network: whose weights they are.
        weights: `whole` of its `FlatParameters`.
        decay: share of the average that a step keeps.
    """

    def __init__(self, network: nn.Module, weights: Tensor, decay: float) -> None:
        super().__init__(network)
        self._decay = decay
        self.n_averaged = self.n_averaged.to(weights.device)  # PyTorch leaves it on the CPU
        self._average, self._weights = FlatParameters(self.module).whole.detach(), weights

    @torch.no_grad()
    def update(self, finite: Tensor) -> None:
        """Update the average with the current weights, unless `finite`, a boolean on their device, is false.

        On CUDA this is decided on the device, without synchronization.
        """
        if finite.is_cuda:
            count = self.n_averaged.float()
            decay = torch.where(count > 0, torch.clamp((1 + count) / (10 + count), max=self._decay), 0.0)
            self._average.lerp_(self._weights, (1 - decay) * finite)
            self.n_averaged += finite
        elif finite:
            count = int(self.n_averaged)
            decay = min(self._decay, (1 + count) / (10 + count)) if count else 0.0
            self._average.lerp_(self._weights, 1 - decay)
            self.n_averaged += 1


class Adam(torch.optim.Adam):
    """PyTorch's, without the wrappers for torch.compile: they would import `torch._dynamo`, which takes seconds."""

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)


class TrainingState:
    """A network with its optimizer, Adam, which skips steps that are not finite.

    Args:
        network: on its device.
        lr: learning rate.
        settings: how steps are taken.
        gradient_mean: takes the network's parameters; what it returns opens a scope for the last backward pass of a
            step, after which their gradient is gathered, see `DistributedContext.gradient_mean`.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        settings: OptimizationSettings = OptimizationSettings(),
        gradient_mean: Callable[[FlatParameters], Gathering] = lambda flat: flat.gathered,
    ) -> None:
        device = next(network.parameters()).device
        on_cuda = device.type == "cuda"
        self.network, self.settings, self.flat = network, settings, FlatParameters(network)
        self._gathering = gradient_mean(self.flat)
        weights = self.flat.whole.detach()
        self.average = WeightAverage(network, weights, settings.ema_decay) if settings.ema_decay else None
        rate = torch.tensor(lr, device=device) if on_cuda else lr  # a recorded step reads it from the GPU
        self.optimizer = Adam([self.flat.whole], rate, fused=on_cuda, capturable=on_cuda)
        self.scales_loss = settings.precision == "fp16"
        # Also without scaling: the scaler skips steps that are not finite, on the GPU without synchronization.
        self.scaler = GradScaler(device.type, init_scale=65536.0 if self.scales_loss else 1.0)

    @property
    def result(self) -> nn.Module:
        """The network to save: with averaged weights if there are any."""
        return self.network if self.average is None else self.average.module

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.network.zero_grad()
        self.optimizer.zero_grad()

    def backward(self, loss: Tensor, numbers: Tensor | None) -> None:
        """Add a loss's gradients to those of the network.

        Args:
            loss: of a part of a batch.
            numbers: with the last part, after which the gradients are gathered; they become means over all ranks.
        """
        with nullcontext() if numbers is None else self._gathering(numbers), parameter_gradients_aside():
            self.scaler.scale(loss).backward()

    def clip_gradient(self) -> Tensor:
        """Limit the norm of the gathered gradient where the settings say so, and return what it was."""
        gradient = self.flat.whole.grad
        assert gradient is not None  # after a backward pass
        norm = self.flat.norm(gradient)
        if self.settings.clip_grad is not None:
            gradient *= torch.clamp(self.settings.clip_grad / (norm + 1e-6), max=1.0)  # as clip_grad_norm_ does
        return norm

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate from the next step on."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def to_file(self) -> dict[str, Any]:
        """Return all that changes in training, and the random states of the process, for a state file.

        `utils.training.state_file` lists the names, and refuses others.
        """
        legacy = np.random.get_state()
        assert isinstance(legacy, tuple)  # unless a dict is asked for
        name, keys, *rest = legacy
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self._moments(),  # its settings are arguments of the run
            "scaler": self.scaler.state_dict() if self.scales_loss else None,
            "random": {
                "python": random.getstate(),
                "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }

    def _moments(self) -> dict[int, dict[str, Tensor]]:
        """Return Adam's state as of each parameter, by its number; empty before the first step."""
        if not (state := self.optimizer.state[self.flat.whole]):
            return {}
        parts = zip(*(self.flat.views(state[name]) for name in _MOMENTS), strict=True)
        moments = [dict(zip(_MOMENTS, each, strict=True)) for each in parts]
        # A counter for each: versions whose optimizer has many tensors resume this, too, and count in place.
        return {i: {"step": state["step"].clone(), **each} for i, each in enumerate(moments)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `to_file` returned, with the current settings; tensors keep their device and layout.

        A new average starts from the weights.
        """
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.module.load_state_dict(state["network"])
            if state["average"] is not None:
                self.average.load_state_dict(state["average"])
        settings, moments = self.optimizer.state_dict()["param_groups"], state["optimizer"]
        joined = {name: self.flat.joined([each[name] for each in moments.values()]) for name in _MOMENTS if moments}
        adam = {0: {"step": moments[0]["step"], **joined}} if moments else {}
        self.optimizer.load_state_dict({"state": adam, "param_groups": settings})
        if state["scaler"] and self.scales_loss:
            self.scaler.load_state_dict(state["scaler"])
        states = state["random"]
        random.setstate(states["python"])
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
