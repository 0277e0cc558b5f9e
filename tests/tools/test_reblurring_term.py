"""tools.reblurring_term: the term of images whose value is known, and gradients whose angle is."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DeblurringNet, ReblurringNet
from tests.support.commands import run_command
from tests.support.samples import small_samples
from tools.reblurring_term import blurred, compare_gradients, random_crop, shifted, term_of_images
from utils.training.network_files import save_network


class Function(nn.Module):
    """In the place of a reblurring network: a function of the blurry image and x."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, blurry, x):
        return self.function(blurry, x)


def images(count=2):
    return torch.rand(count, 1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_images_of_which_the_term_is_known():
    blurry, sharp = images()
    values = term_of_images(ReblurringConsistencyLoss(Function(lambda _, x: x)), lambda b: b / 2, blurry, sharp)
    assert values["blurry image b"] == 0
    assert values["sharp image"] == NormalizedMSELoss()(sharp, blurry).item()
    assert values["restored image D(b)"] == NormalizedMSELoss()(blurry / 2, blurry).item()
    assert values["sharp image, shifted by 4 px"] == NormalizedMSELoss()(shifted(sharp, 4), blurry).item()
    assert len(values) == 9


def test_shifts_and_blurs():
    (image,) = images(1)
    moved = shifted(image, 2)
    assert torch.equal(moved[..., 2:], image[..., :-2])
    assert torch.equal(moved[..., 0], image[..., 0])
    for sigma in (1, 2):
        expected = cv2.GaussianBlur(image[0].permute(1, 2, 0).numpy(), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(blurred(image, sigma)[0].permute(1, 2, 0).numpy() - expected).max() < 2e-4
    assert blurred(image[..., :8, :8], 3).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_of_which_the_angle_is_known(sign):
    """R that makes the term 4 times L(D(b), sharp), or 4 times what pulls as much away from the sharp image."""
    torch.manual_seed(0)
    blurry, sharp = images()
    network = nn.Conv2d(3, 3, 3, padding=1)
    now = network(blurry).detach()
    away = sharp if sign == 1 else 2 * now - sharp
    term = ReblurringConsistencyLoss(Function(lambda b, x: b + 2 * (x - away)))
    assert compare_gradients(term, network, blurry, sharp) == pytest.approx((4, sign), rel=1e-5)


def test_crops_are_of_the_image():
    (image,) = images(1)
    crop = random_crop(image, 28, torch.Generator().manual_seed(1))
    assert crop.shape == (1, 3, 24, 28)
    assert any(torch.equal(crop, image[..., first : first + 28]) for first in range(5))


def test_the_command(tmp_path):
    torch.manual_seed(0)
    save_network(tmp_path / "D.pth", DeblurringNet(2), "deblur", 1)
    save_network(tmp_path / "R.pth", ReblurringNet(2), "reblur", 1)
    weights = ["--deblurring_weights", str(tmp_path / "D.pth"), "--reblurring_weights", str(tmp_path / "R.pth")]
    arguments = [str(small_samples()), *weights, "--crops", "2", "--size", "16", "--device", "cpu"]
    first, again = (run_command("tools.reblurring_term", arguments) for _ in range(2))
    assert first.status == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0] == "L(R(b, x), b), mean and median of 1 pair, by x:"
    assert [line.split("  ")[1] for line in lines[1:4]] == ["sharp image", "restored image D(b)", "blurry image b"]
    assert lines[10] == "gradient at D's weights, 2 crops of up to 16×16 px:"
    assert again == first
