"""Parameters in one tensor: views of it, in their own layout, and their gradients behind each other."""

import pytest
import torch

from models import DeblurringNet
from utils.runtime.flat_parameters import FlatParameters


def a_network(memory_format):
    torch.manual_seed(0)
    return DeblurringNet(4, deform_op="torchvision").to(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_parameters_and_gradients_are_what_they_were(memory_format):
    network, plain = a_network(memory_format), a_network(memory_format)
    flat, blurry = FlatParameters(network), torch.rand(1, 3, 32, 32)
    for each in (network, plain):
        each(blurry).square().sum().backward()
    gradients = [parameter.grad for parameter in plain.parameters()]
    middle = slice(3, 9)
    part = flat.gather(middle)
    assert part.data_ptr() == flat.views(flat.whole.grad)[3].data_ptr()
    flat.gather(slice(3))
    flat.gather(slice(9, None))
    for parameter, view, gradient, before in zip(
        network.parameters(), flat.views(flat.whole.grad), gradients, plain.parameters(), strict=True
    ):
        assert torch.equal(parameter, before)
        assert parameter.stride() == before.stride()
        assert parameter.data_ptr() % 16 == 0
        assert torch.equal(view, gradient)
    with torch.no_grad():
        flat.whole.fill_(2.0)
    assert all((parameter == 2).all() for parameter in network.parameters())


def test_what_is_joined_has_the_values_of_its_parts_whatever_their_layout():
    flat = FlatParameters(a_network(torch.channels_last))
    parts = [torch.rand(parameter.shape) for parameter in flat.parameters]
    for view, part in zip(flat.views(flat.joined(parts)), parts, strict=True):
        assert torch.equal(view, part)


def test_the_norm_of_many_values_is_exact():
    flat = FlatParameters(torch.nn.Linear(1000, 9999))
    whole = torch.rand(flat.whole.shape, generator=torch.Generator().manual_seed(0))
    assert flat.norm(whole).item() == pytest.approx(whole.double().norm().item(), rel=2e-5)


def test_a_parameter_without_a_gradient_is_an_error():
    flat = FlatParameters(torch.nn.Linear(2, 3))
    gathered = flat.gathered(torch.zeros(1))
    with pytest.raises(RuntimeError, match=r"a parameter of shape \(3, 2\) has no gradient"), gathered:
        pass
