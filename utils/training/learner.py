"""A network with what trains it: optimiser, loss scaling, the average of its weights, and the state of all of them."""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel

from utils.runtime.distributed import DistributedContext

Part = TypeVar("Part")

_NO_LIMIT = torch.finfo(torch.float32).max  # of the gradient's norm: measured, not changed


class _Average(AveragedModel):
    """The exponential moving average of a network's weights, in one operation for all: 0.2 ms instead of PyTorch's 4.

    Early on it forgets sooner than `decay` says, or it would hold on to the random weights of the beginning.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self._decay = decay
        self._own: list[Tensor] = list(self.module.parameters())
        self._followed: list[Tensor] = list(network.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's weights of now into the average."""
        count = int(self.n_averaged)
        decay = min(self._decay, (1 + count) / (10 + count)) if count else 0.0
        # What PyTorch's own averaging calls; its types hide it.
        torch._foreach_lerp_(self._own, self._followed, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.n_averaged += 1


class Learner:
    """Adam on a network, which leaves the weights as they are where a loss or a gradient is not finite.

    Args:
        network: on its device.
        lr: learning rate.
        distributed: the processes that train it.
        precision: one of `utils.runtime.precision.PRECISIONS`.
        clip_grad: largest norm of the gradient; None for no limit.
        ema_decay: of the weights' exponential moving average, in [0, 1); 0 for none. Less in the first steps.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        distributed: DistributedContext,
        precision: str = "fp32",
        clip_grad: float | None = None,
        ema_decay: float = 0.0,
    ) -> None:
        self.network = network
        self.parallel = distributed.wrap(network)
        self.clip_grad = clip_grad
        self.average = _Average(network, ema_decay) if ema_decay else None
        on_cuda = distributed.device.type == "cuda"
        rate = torch.tensor(lr, device=distributed.device) if on_cuda else lr  # a recorded step reads it from the GPU
        self.optimizer = torch.optim.Adam(network.parameters(), rate, fused=on_cuda, capturable=on_cuda)
        self.scales_loss = precision == "fp16"
        # Also without scaling: the scaler is what leaves out a step, on the GPU without asking the CPU.
        self.scaler = GradScaler(distributed.device.type, init_scale=65536.0 if self.scales_loss else 1.0)

    def step(self, parts: Sequence[Part], loss_of: Callable[[nn.Module, Part], Tensor]) -> Tensor:
        """Change the weights so that the sum of the parts' losses falls.

        Args:
            parts: of a batch, one after the other.
            loss_of: gives the loss of a part, computed by the network it is given.

        Returns:
            the norm of the gradient before it was clipped; not finite where the weights did not change.
        """
        self.optimizer.zero_grad(set_to_none=True)
        for i, part in enumerate(parts):
            with self._own_gradient(unless=i == len(parts) - 1):
                loss = loss_of(self.parallel, part)
                # An infinite loss can have a finite gradient.
                finite = torch.where(loss.detach().isfinite(), 1.0, torch.nan)
                self.scaler.scale(loss * finite).backward()
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.network.parameters(), self.clip_grad or _NO_LIMIT)
        self.scaler.step(self.optimizer)
        self.scaler.update(None if self.scales_loss else 1.0)
        return norm

    def _own_gradient(self, unless: bool) -> AbstractContextManager:
        """Return a context in which gradients add up on this rank alone, `unless` it is time to exchange them."""
        if unless or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def update_average(self) -> None:
        """Let the average of the weights, where there is one, take in the weights of now."""
        if self.average is not None:
            self.average.update()

    @property
    def result(self) -> nn.Module:
        """The network to keep: with averaged weights where there are any."""
        return self.network if self.average is None else self.average.module

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate from the next step on."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def state(self) -> dict[str, Any]:
        """Return everything that changes as the network learns, and the process's random states."""
        legacy = np.random.get_state()
        assert isinstance(legacy, tuple)  # unless a dict is asked for
        name, keys, *rest = legacy
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],  # its settings are the run's arguments
            "scaler": self.scaler.state_dict() if self.scales_loss else None,
            "random": {
                "python": random.getstate(),
                "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned, under the settings of now; weights stay where they lie.

        An average that was not kept before starts from the weights.
        """
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.module.load_state_dict(state["network"])
            if state["average"] is not None:
                self.average.load_state_dict(state["average"])
        settings = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": settings})
        if state["scaler"] and self.scales_loss:
            self.scaler.load_state_dict(state["scaler"])
        states = state["random"]
        random.setstate(states["python"])
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
