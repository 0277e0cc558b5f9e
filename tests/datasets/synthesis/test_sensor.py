"""What a camera makes of light: response curves, noise, JPEG."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.synthesis.jpeg import jpeg, quantisation
from datasets.synthesis.sensor import add_noise, gaussian
from tests.support.blur import SHARP, response
from tests.support.samples import load
from utils.metrics.numpy_metrics import psnr


def test_response_curves_are_inverted_exactly_and_rise():
    values = torch.linspace(0, 1, 256).view(1, 1, 1, -1)
    for curve in (response(1.0), response(2.2), response(1.8, 0.8, 0.4), response(2.6, 1.25, -0.4)):
        light = curve.light(values)
        assert (light.diff() > 0).all()
        assert light[..., 0] == 0
        assert light[..., -1] == 1
        assert (curve.values(light) - values).abs().max() < 1e-5
    assert torch.equal(response(1.0).light(values), values)


def test_noise_has_the_documented_variance_and_follows_from_its_key():
    light = torch.tensor([0.05, 0.2, 0.7]).view(3, 1, 1, 1)
    values = (1.055 * light ** (1 / 2.4) - 0.055).expand(3, 3, 128, 128)
    shot, read = torch.full((3, 1, 1, 1), 1e-4), torch.full((3, 1, 1, 1), 1e-3)
    keys = torch.tensor([[1, 2], [3, 4], [5, 6]])
    noisy = add_noise(values, shot, read, keys)
    recorded = ((noisy + 0.055) / 1.055) ** 2.4
    for i in range(3):
        x = light[i].item()
        assert recorded[i].mean().item() == pytest.approx(x, abs=5e-4)
        assert recorded[i].var().item() == pytest.approx(1e-4 * x + 1e-6, rel=0.03)
    assert torch.equal(add_noise(values[:1], shot[:1], read[:1], keys[:1]), noisy[:1])


def test_random_numbers_are_normal_and_independent():
    numbers = gaussian(torch.tensor([[0, 1], [2, 0], [123456789, 4000000000]]), torch.Size([3, 200, 200])).double()
    assert numbers.mean().abs() < 0.01
    assert numbers.var().item() == pytest.approx(1, abs=0.01)
    assert (numbers**4).mean().item() == pytest.approx(3, abs=0.06)
    for shift in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert (numbers * numbers.roll(shift, (1, 2, 3))).mean().abs() < 0.01
    assert (torch.corrcoef(numbers.flatten(1)) - torch.eye(3)).abs().max() < 0.01


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_jpeg_is_pillow_s(quality):
    picture = load(SHARP)[100:281, 200:405]  # no multiple of 16
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.array(Image.open(stream))
    values = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    steps = torch.from_numpy(quantisation(np.array([quality])))
    ours = jpeg(values, steps)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    assert psnr(ours, expected) > 45 > psnr(ours, picture)
    assert np.abs(ours.astype(int) - expected).mean() < 0.7
