"""The definitions of the operations against implementations that are not ours."""

import pytest
import torch
from torch.nn import functional as F

from models.ops.dynamic_filter.reference import dynamic_filter
from tests.support.aspdc_cases import by_torchvision, make_case, reference, relative_error


@pytest.mark.parametrize("options", [{}, {"reach": 40.0}, {"offsets": 1.0}, {"offsets": -0.5}, {"offsets": -2.0}])
def test_the_aspdc_sum_is_four_of_torchvisions_convolutions(options):
    case = {name: tensor.requires_grad_() for name, tensor in make_case(dtype=torch.float64, **options).items()}
    ours, theirs = reference(case), by_torchvision(case)
    assert relative_error(ours, theirs) < 1e-12
    cotangent = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [torch.autograd.grad(each, list(case.values()), cotangent) for each in (ours, theirs)]
    for name, mine, other in zip(case, *gradients, strict=True):
        assert relative_error(mine, other) < 1e-12, name


def test_dynamic_filtering_is_a_product_with_unfolded_windows():
    x, logits = torch.randn(2, 5, 6, 7).double(), torch.randn(2, 9, 6, 7).double()
    windows = F.unfold(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3).view(2, 5, 9, 6, 7)
    kernel = logits.exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(dynamic_filter(x, logits), (windows * kernel[:, None]).sum(2))
