"""A network with what trains it: optimiser, loss scaling, and the state of all three."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Learner:
    """Adam on a network, with loss scaling where the precision needs it.

    Args:
        network: on its device.
        lr: learning rate.
        device: of the network.
        precision: one of `utils.precision.PRECISIONS`.
    """

    def __init__(self, network: nn.Module, lr: float, device: torch.device, precision: str) -> None:
        self.network = network
        on_cuda = device.type == "cuda"
        rate = torch.tensor(lr, device=device) if on_cuda else lr  # a recorded step reads it from the GPU
        self.optimizer = torch.optim.Adam(network.parameters(), rate, fused=on_cuda, capturable=on_cuda)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step(self, loss: Tensor) -> None:
        """Change the weights so that the loss falls."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate from the next step on."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def state(self) -> dict[str, Any]:
        """Return everything that changes as the network learns, and the process's random states."""
        name, keys, *rest = np.random.get_state()
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],  # its settings are the run's arguments
            "scaler": self.scaler.state_dict(),
            "random": {
                "python": random.getstate(),
                "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned, under the settings of now; weights stay where they lie."""
        self.network.load_state_dict(state["network"])
        settings = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": settings})
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        states = state["random"]
        random.setstate(states["python"])
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(states["torch"])
        if len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
