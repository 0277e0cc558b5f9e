"""Kernels never work with weights of before, in whatever way the weights changed."""

import copy
import pkgutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from models import ASPDC, cached_kernel_weights
from models.blocks import Conv, ConvLReLU, ResBlock, Sequential, UpsampleLReLU
from models.ops.common import kernel_weights as module
from tests.support.triton_device import DEVICE  # skips this file where the kernels cannot run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Let blocks take the kernels, on the CPU those in Triton's interpreter."""
    for name in ("models.blocks", "models.aspdc"):
        monkeypatch.setattr(
            f"{name}.kernel_dtype", lambda deform_op, x, layer: None if deform_op == "torchvision" else x.dtype
        )


def make_network():
    torch.manual_seed(0)
    layers = {
        0: ConvLReLU(3, 16, stride=2),
        2: ResBlock(16),
        3: ASPDC(16, deform_op="fused"),
        4: UpsampleLReLU(16, 16),
        6: Conv(16, 3),
    }
    return Sequential(layers).to(DEVICE)


def plain(network, x):
    """The result of a copy of the network that PyTorch's operations compute."""
    other = copy.deepcopy(network)
    for each in other.modules():
        if hasattr(each, "deform_op"):
            each.deform_op = "torchvision"
    return other(x)


def optimiser_step(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def load(network):
    network.load_state_dict({name: tensor + 0.1 for name, tensor in network.state_dict().items()})


def data_in_place(network):
    for parameter in network.parameters():
        parameter.data.add_(0.1)


def data_replaced(network):
    for parameter in network.parameters():
        parameter.data = parameter.data + 0.1


def numpy_view(network):
    for parameter in network.parameters():
        if parameter.is_cuda:
            pytest.skip("tensors on a GPU have no NumPy views")
        parameter.detach().numpy()[...] += 0.1


def average(network):
    """Take the network for the average of another one, as validation does."""
    averaged = AveragedModel(network)
    averaged.module = network
    for _ in range(2):
        averaged.update_parameters(nn.Sequential(*[nn.ParameterList([p + 0.2 for p in network.parameters()])]))


def copied(network):
    """Change a network that was copied before."""
    copy.deepcopy(network)(torch.rand(1, 3, 6, 8, device=DEVICE))
    data_in_place(network)


CHANGES = [copied, optimiser_step, load, data_in_place, data_replaced, numpy_view, average]


@pytest.mark.parametrize("scope_before", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_used(change, scope_before):
    network, x = make_network(), torch.rand(1, 3, 6, 8, device=DEVICE)
    with torch.no_grad():
        if scope_before:
            with cached_kernel_weights(network):
                before = network(x)
        else:
            before = network(x)
    change(network)
    with torch.no_grad():
        after = network(x)
        torch.testing.assert_close(after, plain(network, x), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after, before, atol=1e-3)


@pytest.fixture
def builds(monkeypatch):
    """Counts what is built."""
    counted = []

    def counting(function):
        return lambda *arguments: counted.append(function.__name__) or function(*arguments)

    for name in ("models.blocks.conv_weights", "models.aspdc.conv_weights", "models.aspdc.predictor_layout"):
        monkeypatch.setattr(name, counting(pkgutil.resolve_name(name)))
    return counted


def test_a_scope_builds_once_and_leaves_nothing_behind(builds):
    network, x = make_network(), torch.rand(1, 3, 6, 8, device=DEVICE)
    with torch.inference_mode():
        network(x)
        once = len(builds)
        assert once == 13 + 2  # convolutions; the predictors' weights and biases
        network(x)
        assert len(builds) == 2 * once
        builds.clear()
        with cached_kernel_weights(network):
            first = network(x)
            assert len(builds) == once
            with cached_kernel_weights(network):
                assert torch.equal(network(x), first)
            assert torch.equal(network(x), first)
            assert len(builds) == once
    assert not module._caches


def test_scopes_of_one_network_may_overlap(builds):
    network, x = make_network(), torch.rand(1, 3, 6, 8, device=DEVICE)
    first, second = cached_kernel_weights(network), cached_kernel_weights(network)
    with torch.no_grad():
        first.__enter__()
        network(x)
        second.__enter__()
        first.__exit__(None, None, None)
        builds.clear()
        network(x)
        assert not builds
        second.__exit__(None, None, None)
    assert not module._caches

    def enter_and_leave(_):
        for _ in range(100):
            with cached_kernel_weights(network):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter_and_leave, range(4)))
    assert not module._caches


def test_a_copy_has_no_part_in_the_scope():
    network, x = make_network(), torch.rand(1, 3, 6, 8, device=DEVICE)
    with torch.no_grad(), cached_kernel_weights(network):
        first = network(x)
        other = copy.deepcopy(network)
        data_in_place(other)
        torch.testing.assert_close(other(x), plain(other, x), atol=1e-4, rtol=1e-4)
        assert torch.equal(network(x), first)


def test_gradients_reach_the_weights_within_a_scope():
    network, x = make_network(), torch.rand(1, 3, 6, 8, device=DEVICE)
    with cached_kernel_weights(network):
        with torch.no_grad():
            network(x)
        network(x).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
