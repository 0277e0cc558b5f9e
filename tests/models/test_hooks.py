"""Hooks on modules of the networks fire, whatever computes them: also where kernels would pass over a module."""

import pytest
import torch
from torch import nn

from models import ASPDC, DeblurringNet, ReblurringNet

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [(DeblurringNet, 1, "fused"), (DeblurringNet, 1, "torchvision"), (ReblurringNet, 2, "fused")]


def callable_modules(network):
    """All but lists of modules, which are never called."""
    return {name: module for name, module in network.named_modules() if not isinstance(module, nn.ModuleList)}


@pytest.mark.parametrize(("kind", "inputs", "deform_op"), CASES)
def test_hooks_on_every_module_fire(kind, inputs, deform_op):
    torch.manual_seed(0)
    network = kind(4, deform_op=deform_op).to(DEVICE)
    images = torch.rand(inputs, 1, 3, 16, 16, device=DEVICE).requires_grad_()
    expected = network(*images).detach()
    fired = {"before": set(), "after": set(), "backward": set()}
    for name, module in callable_modules(network).items():
        module.register_forward_pre_hook(lambda module, args, name=name: fired["before"].add(name))
        module.register_forward_hook(lambda module, args, out, name=name: fired["after"].add(name))
        module.register_full_backward_hook(lambda module, before, after, name=name: fired["backward"].add(name))
    output = network(*images)
    output.sum().backward()
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
    names = set(callable_modules(network))
    assert {when: names - each for when, each in fired.items()} == {"before": set(), "after": set(), "backward": set()}


@pytest.mark.parametrize("grad", [False, True])
def test_a_hook_on_any_single_module_of_an_aspdc_fires(grad):
    torch.manual_seed(0)
    aspdc = ASPDC(16, deform_op="fused").to(DEVICE)
    x = torch.rand(1, 16, 4, 4, device=DEVICE)
    with torch.set_grad_enabled(grad):
        expected = aspdc(x)
        for name, module in callable_modules(aspdc).items():
            seen = []
            handle = module.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
            torch.testing.assert_close(aspdc(x), expected, atol=1e-5, rtol=0)
            handle.remove()
            assert len(seen) == 1, name


def test_a_hook_can_change_an_output():
    aspdc = ASPDC(16, deform_op="fused").to(DEVICE)
    x = torch.rand(1, 16, 4, 4, device=DEVICE)
    with torch.no_grad():
        without = aspdc(x)
        aspdc.deformable[2].deform_conv.register_forward_hook(lambda module, args, output: output + 1)
        assert not torch.equal(aspdc(x), without)


def test_hooks_of_all_modules_fire():
    aspdc = ASPDC(16, deform_op="fused").to(DEVICE)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(module))
    try:
        aspdc(torch.rand(1, 16, 4, 4, device=DEVICE))
    finally:
        handle.remove()
    assert set(callable_modules(aspdc).values()) == set(seen)
