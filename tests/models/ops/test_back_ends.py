"""Which back end computes what, and that two networks in one process may have different ones."""

import copy
import sys

import pytest
import torch

from models import DeblurringNet, ModulatedDeformConv2d, ReblurringNet, aspdc
from models.ops.back_ends import _device_problem, resolve_deform_op
from models.ops.common.block import Block
from utils.common.errors import UserError
from utils.runtime.device import pick_deform_op


def test_which_back_end_runs_where(monkeypatch):
    assert resolve_deform_op("auto", "cpu") == resolve_deform_op("fused", "cpu") == "fused"
    assert resolve_deform_op("torchvision", "cpu") == "torchvision"
    monkeypatch.setattr("models.ops.back_ends.mmcv_problem", lambda device: "not here")
    assert resolve_deform_op("auto", "meta") == "torchvision"
    with pytest.raises(RuntimeError, match="fused is not usable: .* runs on the CPU and on CUDA, not on meta"):
        resolve_deform_op("fused", "meta")
    monkeypatch.setitem(sys.modules, "triton", None)
    _device_problem.cache_clear()
    with pytest.raises(RuntimeError, match="fused is not usable: .* needs Triton on CUDA, which cannot be imported"):
        resolve_deform_op("fused", "cuda")
    assert resolve_deform_op("auto", "cuda") == "torchvision"
    _device_problem.cache_clear()


def test_widths_that_the_kernels_cannot_take_use_another_back_end_on_cuda(monkeypatch, capsys):
    monkeypatch.setattr("models.ops.back_ends._device_problem", lambda device: None)
    monkeypatch.setattr("models.ops.back_ends.mmcv_problem", lambda device: "not here")
    assert pick_deform_op("auto", torch.device("cuda"), width=6) == "torchvision"
    assert (
        "by torchvision, not fused: the fused kernels take multiples of 16 channels, not 24" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="multiples of 16 channels, not 24; or use --deform_op torchvision"):
        pick_deform_op("fused", torch.device("cuda"), width=6)
    assert pick_deform_op("auto", torch.device("cuda"), width=32) == "fused"
    assert pick_deform_op("auto", torch.device("cpu"), width=6) == "fused"


def test_networks_differ_by_rounding_alone():
    torch.manual_seed(0)
    networks = [DeblurringNet(8, deform_op=op) for op in ("fused", "torchvision")]
    networks[1].load_state_dict(networks[0].state_dict())
    blurry = torch.rand(2, 3, 37, 50) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(networks[0](blurry), networks[1](blurry), atol=2e-6, rtol=0)


def back_ends(network):
    return {module.deform_op for module in network.modules() if isinstance(module, Block)}


@pytest.mark.parametrize("make", [DeblurringNet, ReblurringNet])
def test_every_block_has_the_networks_back_end(make):
    network = make(4, deform_op="torchvision")
    assert back_ends(network) == {"torchvision"}
    network.deform_op = "fused"
    assert back_ends(network) == {"fused"}
    assert back_ends(copy.deepcopy(network)) == back_ends(network.to(torch.float64)) == {"fused"}
    assert back_ends(make(4)) == {"auto"}
    with pytest.raises(ValueError, match="deform_op should be one of auto, fused, mmcv, torchvision, got 'triton'"):
        network.deform_op = "triton"


def test_two_networks_of_different_back_ends_in_one_process(monkeypatch):
    """Each keeps its own, whichever was made or set last."""
    calls = []
    fused, single = aspdc.aspdc_sum, ModulatedDeformConv2d.forward
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: calls.append("fused") or fused(*args))
    monkeypatch.setattr(
        ModulatedDeformConv2d, "forward", lambda *args: calls.append(args[0].deform_op) or single(*args)
    )
    networks = [DeblurringNet(4, deform_op=op) for op in ("torchvision", "fused")]
    image = torch.zeros(1, 3, 8, 8)
    for network, expected in [*zip(networks, ({"torchvision"}, {"fused"}), strict=True)] * 2:
        calls.clear()
        network(image)
        assert set(calls) == expected
