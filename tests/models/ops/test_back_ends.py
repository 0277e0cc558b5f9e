"""Which back end computes what, and that two networks in one process may have different ones."""

import copy
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models import DeblurringNet, ModulatedDeformConv2d, ReblurringNet, aspdc
from models.ops.back_ends import _device_problem, fused_problem, is_unmeasured_gpu, resolve_deform_op, uses_kernels
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
    def pick(name, device, width):
        return pick_deform_op(name, torch.device(device), width, "fp32", training=False)

    monkeypatch.setattr("models.ops.back_ends._device_problem", lambda device: None)
    monkeypatch.setattr("models.ops.back_ends.mmcv_problem", lambda device: "not here")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    assert pick("auto", "cuda", width=6) == "torchvision"
    assert (
        "by torchvision, not fused: the fused kernels take multiples of 16 channels, not 24" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="multiples of 16 channels, not 24; or use --deform_op torchvision"):
        pick("fused", "cuda", width=6)
    assert pick("auto", "cuda", width=32) == "fused"
    assert pick("auto", "cpu", width=6) == "fused"


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


@pytest.mark.parametrize("deform_op", ["auto", "fused", "mmcv", "torchvision"])
def test_convolutions_and_filters_follow_the_back_end_on_cuda(monkeypatch, deform_op):
    """With tensors that pretend to be on a GPU with Triton."""
    monkeypatch.setattr("models.ops.back_ends._device_problem", lambda device: None)
    asked = []
    kernels = deform_op in ("auto", "fused")
    for name in ("models.reblurring_net.uses_kernels", "models.ops.conv.op.uses_kernels"):
        monkeypatch.setattr(
            name, lambda op, x: asked.append(uses_kernels(op, SimpleNamespace(device=torch.device("cuda")))) and False
        )
    network = ReblurringNet(2, deform_op=deform_op)
    network(*torch.zeros(2, 1, 3, 16, 16))
    assert set(asked) == {kernels}
    assert len(asked) > 7  # those of the seven filters among them


NAMES_OF_THE_KERNELS = {
    (7, 5): set(),
    (8, 0): {"fused"},
    (8, 9): {"fused"},
    (9, 0): {"auto", "fused"},
    (12, 0): {"auto", "fused"},
}


@pytest.mark.skipif(fused_problem("fused", "cuda") is not None, reason="the kernels do not run with this Triton")
@pytest.mark.parametrize(("capability", "names"), NAMES_OF_THE_KERNELS.items())
def test_which_gpus_run_the_kernels_by_which_name(monkeypatch, capability, names):
    """With a network that pretends to be on a GPU of such a compute capability."""
    monkeypatch.setattr("models.ops.back_ends.mmcv_problem", lambda device: "not here")
    with FakeTensorMode(), torch.device("cuda"):
        network, image = DeblurringNet(4), torch.empty(1, 3, 16, 16)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("models.ops.back_ends._device_problem", _device_problem.__wrapped__)  # the other one remembers
    calls = []
    fused = aspdc.aspdc_sum
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: calls.append(network.deform_op) or fused(*args))
    for network.deform_op in ("auto", "fused"):
        refused = network.deform_op == "fused" and "fused" not in names
        with pytest.raises(RuntimeError, match="8.0 .Ampere. and newer") if refused else nullcontext():
            network(image)
    assert set(calls) == names
    assert is_unmeasured_gpu(torch.device("cuda")) == (capability != (9, 0))


def test_fused_by_name_is_refused_where_it_cannot_run():
    image = torch.zeros(1, 3, 16, 16, device="meta")
    for network, inputs in ((DeblurringNet(4, deform_op="fused"), 1), (ReblurringNet(4, deform_op="fused"), 2)):
        with pytest.raises(RuntimeError, match="fused is not usable: .* runs on the CPU and on CUDA, not on meta"):
            network.to("meta")(*[image] * inputs)


def test_parts_of_a_network_pass_it_on():
    network = DeblurringNet(4)
    network.aspdcs[0].afim.deform_op = "torchvision"
    assert back_ends(network.aspdcs[0].afim) == {"torchvision"}
    assert network.aspdcs[0].deform_op == network.head.deform_op == "auto"
    with pytest.raises(ValueError, match="deform_op should be one of"):
        network.head.deform_op = "nonsense"


def test_hooked_networks_of_16_bits_still_run():
    """With a hook an ASPDC takes the plain path, whose operators know fp32 and fp64 alone."""
    network = DeblurringNet(4).bfloat16()
    image = torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16)
    network.aspdcs[0].deformable[1].deform_conv.register_forward_hook(lambda *args: None)
    assert network(image).dtype == torch.bfloat16
