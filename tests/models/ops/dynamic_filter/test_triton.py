"""The Triton kernels of dynamic filtering: in Triton's interpreter, or on a GPU where there is one."""

import pytest
import torch

from tests.support.triton_device import DEVICE  # skips this file where the kernels cannot run

# isort: split
from models.ops.dynamic_filter.op import filter_by_logits, fused_filter
from models.ops.dynamic_filter.reference import dynamic_filter
from models.reblurring_net import DynamicFilter
from tests.support.aspdc_cases import relative_error

CHANNELS_LAST = torch.channels_last
LARGE_SHAPE = pytest.param((1, 32, 33, 40), marks=pytest.mark.slow)


@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (1, 8, 2, 2), (1, 3, 9, 3), LARGE_SHAPE, (1, 16, 2, 9)])
def test_dynamic_filtering_and_its_gradients(shape):
    generator = torch.Generator().manual_seed(0)
    batch, _, height, width = shape
    x = torch.randn(shape, generator=generator)
    logits = 3 * torch.randn(batch, 9, height, width, generator=generator)
    cotangent = torch.randn(shape, generator=generator)
    exact = [each.double().requires_grad_() for each in (x, logits)]
    given = [each.to(DEVICE, memory_format=CHANNELS_LAST).requires_grad_() for each in (x, logits)]
    ours, expected = fused_filter(*given), dynamic_filter(*exact)
    assert relative_error(ours.double().cpu(), expected) < 1e-6
    for mine, reference in zip(
        torch.autograd.grad(ours, given, cotangent.to(DEVICE)),
        torch.autograd.grad(expected, exact, cotangent.double()),
        strict=True,
    ):
        assert relative_error(mine.double().cpu(), reference) < 2e-6


def test_the_logits_gradient_of_a_smooth_image_is_exact():
    """There it is a small difference of large numbers, of which 16 bits are too few."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(1, 2, 20).expand(1, 16, 8, 20).bfloat16()
    logits = torch.randn(1, 9, 8, 20, generator=generator)
    exact = [each.double().requires_grad_() for each in (x, logits)]
    given = [each.to(DEVICE, memory_format=CHANNELS_LAST).requires_grad_() for each in (x, logits)]
    _, mine = torch.autograd.grad(fused_filter(*given).float().sum(), given)
    _, reference = torch.autograd.grad(dynamic_filter(*exact).sum(), exact)
    assert relative_error(mine.double().cpu(), reference) < 1e-5


def test_float64_is_computed_in_float64():
    x, logits = (torch.randn(1, channels, 5, 6, dtype=torch.float64, device=DEVICE) for channels in (16, 9))
    assert relative_error(DynamicFilter()(x, logits), dynamic_filter(x, logits)) < 1e-12


def test_is_registered_as_pytorch_wants_it():
    x, logits = (torch.randn(1, c, 5, 6).to(DEVICE, memory_format=CHANNELS_LAST).requires_grad_() for c in (16, 9))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(filter_by_logits, (x, logits), test_utils=checks)
