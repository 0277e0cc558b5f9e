"""Winograd's convolution on the CPU against the definition, and when it is taken."""

import multiprocessing

import pytest
import torch
from torch import nn

from models import load_deblurring_net
from models.blocks import Conv, ConvLReLU
from models.checkpoint import BUNDLED
from models.ops.conv import cpu
from models.ops.conv.cpu import LEAST_SIDE, winograd_conv, winograd_possible
from models.ops.conv.reference import conv_lrelu
from tests.support.samples import SAMPLE, load
from utils.images.conversion import to_tensor

CHANNELS = 64


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = ConvLReLU(CHANNELS, 80)
    if not getattr(torch, "_nnpack_available", bool)():
        pytest.skip("this PyTorch was built without NNPACK")
    return layer


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _image(height, width, channels=CHANNELS):
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 40), (61, 50), (42, 85)])
def test_a_block_computes_the_definition(layer, size):
    x, residual = _image(*size), _image(*size, 80)
    ours = layer(x, residual)
    wide = (each.double() for each in (x, layer.weight, layer.bias, residual))
    torch.testing.assert_close(ours.double(), conv_lrelu(*wide, padding=1, slope=layer.slope), atol=5e-5, rtol=0)
    assert not torch.equal(ours, conv_lrelu(x, layer.weight, layer.bias, residual, padding=1, slope=layer.slope))


@torch.inference_mode()
@pytest.mark.usefixtures("layer")  # which needs NNPACK
def test_a_network_stays_within_the_bar_of_fused_operations(monkeypatch):
    network = load_deblurring_net(BUNDLED)
    image = to_tensor(load(SAMPLE)[100:260, 100:292])[None]
    ours = network(image)
    monkeypatch.setattr(cpu, "LEAST_SIDE", 1000)
    assert not torch.equal(ours, network(image))  # so NNPACK had a part
    network.deform_op = "torchvision"
    assert (ours - network(image)).abs().max() < 1e-4


@torch.inference_mode()
def test_bits_do_not_depend_on_threads_or_memory_layout(layer):
    x = _image(50, 20)
    results = []
    for threads in (1, 2, 3, 20):
        torch.set_num_threads(threads)
        results += [winograd_conv(x, layer), winograd_conv(x.to(memory_format=torch.channels_last), layer)]
        assert torch.get_num_threads() == threads
    assert all(torch.equal(each, results[0]) for each in results)


@torch.no_grad()
def test_a_forked_process_has_threads_of_its_own(layer):
    x = _image(24, 24)
    winograd_conv(x, layer)
    process = multiprocessing.get_context("fork").Process(target=winograd_conv, args=(x, layer))
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == 0


def test_when_it_is_taken(layer):
    image = _image(LEAST_SIDE, LEAST_SIDE)

    def taken(x=image, layer=layer, deform_op="auto"):
        return winograd_possible(deform_op, x, layer)

    assert not taken()  # with gradients
    with torch.no_grad():
        assert taken()
        assert taken(deform_op="fused")
        assert not taken(deform_op="torchvision")
        assert not taken(image.double())
        assert not taken(image.to("meta"))
        assert not taken(torch.cat([image, image]))
        assert not taken(image[..., 1:])
        assert not taken(layer=Conv(CHANNELS, 4))
        assert not taken(layer=Conv(CHANNELS, CHANNELS, 1))
        assert not taken(layer=nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1))
        with torch.autocast("cpu", torch.bfloat16):
            assert not taken()
