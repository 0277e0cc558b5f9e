"""Networks that are changed for an ablation: no kernel computes the published ones in their place."""

import pytest
import torch

from models import ASPDC, aspdc
from models.ops.conv.op import fused_predictions_possible

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def assert_same_with_and_without_kernels(network):
    x = torch.rand(1, 16, 24, 24, device=DEVICE)
    with torch.no_grad():
        fused = network(x)
        network.deform_op = "torchvision"
        torch.testing.assert_close(fused, network(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", [{"dilation": (2, 2), "padding": (2, 2)}, {"dilation": (3, 3), "padding": (3, 3)}])
def test_other_deformable_convolutions_take_the_plain_path(change):
    torch.manual_seed(0)
    network = ASPDC(16, deform_op="fused").to(DEVICE)
    for name, value in change.items():
        setattr(network.deformable[2].deform_conv, name, value)
    assert_same_with_and_without_kernels(network)


@pytest.mark.parametrize(("dilations", "fits"), [((1, 2, 4), True), ((1, 3, 6), False), ((1, 2), False)])
def test_the_kernel_of_all_predictions_takes_its_own_dilations_alone(monkeypatch, dilations, fits):
    monkeypatch.setattr(aspdc, "DILATIONS", dilations)
    torch.manual_seed(0)
    network = ASPDC(16, deform_op="fused").to(DEVICE)
    layers = [layer for module in network.deformable for layer in module.predictors]
    with torch.no_grad():
        assert fused_predictions_possible(torch.rand(1, 16, 24, 24, device=DEVICE), layers) == fits
    if len(network.deformable) == 4 or DEVICE == "cpu":
        assert_same_with_and_without_kernels(network)
