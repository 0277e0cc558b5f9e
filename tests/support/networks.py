"""Small networks."""

from pathlib import Path

import torch

from models import DeblurringNet
from utils.training.network_files import save_network

SMALL_WIDTH = 4


def moving_network():
    """Return a network whose offsets are a few pixels long and whose attention varies."""
    torch.manual_seed(0)
    network = DeblurringNet(SMALL_WIDTH).eval()
    with torch.no_grad():
        for aspdc in network.aspdcs:
            aspdc.afim[-2].weight.mul_(8)
            for module in aspdc.deformable[1:]:
                module.offset_conv.weight.mul_(8)
    return network


def identity_file(path: Path) -> Path:
    """Write a deblurring network that returns its input, and return its path: files show then what is done to them."""
    torch.manual_seed(0)
    network = DeblurringNet(1)
    last = network.tail[-1]
    for parameter in last.parameters():
        torch.nn.init.zeros_(parameter)  # what is added to the input
    save_network(path, network, "deblur", 1)
    return path
