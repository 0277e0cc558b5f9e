"""The Triton kernels of dynamic filtering: in Triton's interpreter, or on a GPU where there is one."""

import pytest
import torch

from tests.support.triton_device import DEVICE  # skips this file where the kernels cannot run

# isort: split
from models.ops.dynamic_filter.op import fused_filter
from models.ops.dynamic_filter.reference import dynamic_filter
from tests.support.aspdc_cases import relative_error

CHANNELS_LAST = torch.channels_last
LARGE_SHAPE = pytest.param((1, 32, 33, 40), marks=pytest.mark.slow)


@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (1, 8, 2, 2), (1, 3, 9, 3), LARGE_SHAPE, (1, 16, 2, 9)])
def test_dynamic_filtering_and_its_gradients(shape):
    generator = torch.Generator().manual_seed(0)
    batch, _, height, width = shape
    x = torch.randn(shape, generator=generator)
    kernel = torch.randn(batch, 9, height, width, generator=generator).softmax(1)
    cotangent = torch.randn(shape, generator=generator)
    exact = [each.double().requires_grad_() for each in (x, kernel)]
    given = [each.to(DEVICE, memory_format=CHANNELS_LAST).requires_grad_() for each in (x, kernel)]
    ours, expected = fused_filter(*given), dynamic_filter(*exact)
    assert relative_error(ours.double().cpu(), expected) < 1e-6
    for mine, reference in zip(
        torch.autograd.grad(ours, given, cotangent.to(DEVICE)),
        torch.autograd.grad(expected, exact, cotangent.double()),
        strict=True,
    ):
        assert relative_error(mine.double().cpu(), reference) < 1e-6


def test_is_registered_as_pytorch_wants_it():
    x, kernel = (torch.randn(1, c, 5, 6).to(DEVICE, memory_format=CHANNELS_LAST).requires_grad_() for c in (16, 9))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(fused_filter, (x, kernel), test_utils=checks)
