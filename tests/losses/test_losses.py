"""The published loss and the reblurring consistency term."""

import pytest
import torch
from torchvision.transforms.functional import normalize

from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import ReblurringNet


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 4, 3, 16, 24, generator=generator) * 2 - 1


def test_is_the_mse_of_imagenet_normalised_images(images):
    a, b = (
        normalize((batch + 1) / 2, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)) for batch in images.unbind()
    )
    torch.testing.assert_close(NormalizedMSELoss()(*images), torch.nn.functional.mse_loss(a, b))


def test_is_about_19_6_times_a_plain_mse():
    grey = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.2)  # 0.1 apart in [0, 1]
    assert NormalizedMSELoss()(*grey).item() / 0.01 == pytest.approx(19.6, abs=0.05)


def test_none_gives_one_value_an_image(images):
    each = NormalizedMSELoss("none")(*images)
    assert each.shape == (4,)
    for i in range(4):
        torch.testing.assert_close(each[i], NormalizedMSELoss()(*images[:, i : i + 1]))


def test_consistency_freezes_the_reblurring_network_and_passes_gradients_on(images):
    network = ReblurringNet(2)
    loss = ReblurringConsistencyLoss(network)
    blurry, deblurred = images[0], images[1].clone().requires_grad_()
    value = loss(blurry, deblurred)
    torch.testing.assert_close(value, NormalizedMSELoss()(network(blurry, deblurred), blurry))
    value.backward()
    assert deblurred.grad.count_nonzero() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_refuses_what_does_not_fit(images):
    with pytest.raises(ValueError, match=r"two N×3×H×W batches of one shape, got \(4, 3, 16, 24\) and \(4, 3, 16, 1\)"):
        NormalizedMSELoss()(images[0], images[1][..., :1])
    with pytest.raises(ValueError, match="reduction should be mean or none, got 'sum'"):
        NormalizedMSELoss("sum")
