"""Small networks."""

import torch

from models import DeblurringNet

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
