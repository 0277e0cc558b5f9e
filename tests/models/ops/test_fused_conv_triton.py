"""The Triton kernels of convolution and dynamic filtering: in Triton's interpreter, or on a GPU where there is one."""

import pytest
import torch
from torch.nn import functional as F

from tests.support.triton_device import DEVICE  # skips this file where the kernels cannot run

# isort: split
from models.aspdc import ASPDC, read_as_released
from models.blocks import ChunkedConv
from models.ops.conv.op import convolution, predictions
from models.ops.conv.triton_launch import kernel_form, predict_form
from models.ops.dynamic_filter.op import filtered
from models.reblurring_net import dynamic_filter
from tests.support.aspdc_cases import relative_error

CHANNELS_LAST = torch.channels_last

# (batch, in, out, height, width, kernel size, stride, dilation, padding, transposed, slope, residual)
CONVOLUTIONS = {
    "residual and activation": (2, 16, 32, 9, 7, 3, 1, 1, 1, False, 0.1, True),
    "image": (1, 3, 16, 9, 7, 3, 1, 1, 1, False, 0.1, False),
    "two images": (1, 6, 5, 9, 20, 3, 1, 1, 1, False, 1.0, False),
    "many channels": (1, 128, 128, 6, 5, 3, 1, 1, 1, False, 0.1, False),
    "wide dilation": (1, 48, 27, 9, 7, 3, 1, 4, 4, False, 1.0, False),
    "no padding": (1, 32, 9, 9, 7, 3, 1, 1, 0, False, 1.0, False),
    "stride": (2, 16, 32, 10, 8, 3, 2, 1, 1, False, 0.1, False),
    "stride at an odd size": (1, 16, 16, 9, 7, 3, 2, 1, 1, False, 0.1, False),
    "transposed": (1, 32, 16, 5, 6, 3, 2, 1, 1, True, 0.1, False),
    "transposed with residual": (1, 6, 3, 5, 6, 3, 2, 1, 1, True, 0.1, True),
    "few channels": (2, 16, 16, 6, 8, 3, 1, 1, 1, False, 0.1, True),
    "few channels to an image": (1, 32, 3, 6, 8, 3, 1, 1, 1, False, 1.0, True),
    "single pixels": (1, 16, 4, 5, 6, 1, 1, 1, 0, False, 1.0, False),
}


def tensors(options, dtype):
    batch, cin, cout, height, width, side, stride, dilation, padding, transposed, slope, with_residual = options
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        tensor = torch.randn(*shape, generator=generator).to(DEVICE, dtype)
        return (tensor.to(memory_format=CHANNELS_LAST) if tensor.dim() == 4 else tensor).requires_grad_()

    shape = (cin, cout) if transposed else (cout, cin)
    given = {"x": randn(batch, cin, height, width), "weight": randn(*shape, side, side), "bias": randn(cout)}
    exact = {name: tensor.detach().double().cpu().requires_grad_() for name, tensor in given.items()}
    if transposed:
        expected = F.conv_transpose2d(*exact.values(), stride=2, padding=1, output_padding=1)
    else:
        expected = F.conv2d(*exact.values(), stride=stride, padding=padding, dilation=dilation)
    residual = None
    if with_residual:
        given["residual"] = residual = randn(*expected.shape)
        exact["residual"] = residual.detach().double().cpu().requires_grad_()
        expected = expected + exact["residual"]
    x, weight, bias = given["x"], given["weight"], given["bias"]
    ready = kernel_form(weight.detach(), transposed)
    ours = convolution(x, weight, bias, residual, ready, stride, padding, dilation, transposed, slope, x.dtype)
    return given, ours, exact, F.leaky_relu(expected, slope)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=list(CONVOLUTIONS))
def test_convolutions_equal_pytorchs(options, dtype, limit):
    given, ours, exact, expected = tensors(options, dtype)
    assert ours.is_contiguous(memory_format=CHANNELS_LAST)
    assert ours.dtype == dtype
    assert relative_error(ours.double().cpu(), expected) < limit
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = zip(
        torch.autograd.grad(ours, list(given.values()), cotangent.to(DEVICE)),
        torch.autograd.grad(expected, list(exact.values()), cotangent.double()),
        strict=True,
    )
    for name, (mine, reference) in zip(given, gradients, strict=True):
        assert relative_error(mine.double().cpu(), reference) < limit, name


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
    ours, expected = filtered(*given), dynamic_filter(*exact)
    assert relative_error(ours.double().cpu(), expected) < 1e-6
    for mine, reference in zip(
        torch.autograd.grad(ours, given, cotangent.to(DEVICE)),
        torch.autograd.grad(expected, exact, cotangent.double()),
        strict=True,
    ):
        assert relative_error(mine.double().cpu(), reference) < 1e-6


def test_one_launch_predicts_what_the_four_modules_do():
    torch.manual_seed(0)
    aspdc = ASPDC(32, deform_op="fused").to(DEVICE)
    f = torch.randn(2, 32, 9, 11).to(DEVICE, memory_format=CHANNELS_LAST)
    layers = [module.predictors for module in aspdc.deformable]
    weight, bias = (
        predict_form([[getattr(layer, name).detach() for layer in module] for module in layers])
        for name in ("weight", "bias")
    )
    for module, ours in zip(aspdc.deformable, predictions(f, weight, bias), strict=True):
        assert relative_error(ours, module.predict_merged(f)) < 1e-5
    assert read_as_released(torch.zeros(1, 9, 7, 9), 9, 11).shape == (1, 9, 9, 11)


def test_a_convolution_of_channels_that_arrive_in_parts(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("models.blocks.fused_conv_type", lambda x, layer: x.dtype)
    monkeypatch.setattr("models.ops.fused_conv_type", lambda x, layer: x.dtype)
    layer = torch.nn.Conv2d(48, 16, 3, padding=1).to(DEVICE)
    parts = [torch.randn(1, 16, 5, 6).to(DEVICE, memory_format=CHANNELS_LAST) for _ in range(3)]
    joined = ChunkedConv(layer)
    with torch.no_grad():
        for part in parts:
            joined.add(part)
        expected = F.leaky_relu(layer.double()(torch.cat(parts, 1).double()), 0.1)
        assert relative_error(joined.result().double(), expected) < 1e-5


def test_is_registered_as_pytorch_wants_it():
    options = CONVOLUTIONS["residual and activation"]
    given, *_ = tensors(options, torch.float32)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    ready = kernel_form(leaves["weight"].detach())
    leaf = [leaves[name] for name in ("x", "weight", "bias", "residual")]
    arguments = (*leaf, ready, 1, 1, 1, False, 0.1, torch.float32)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(convolution, arguments, test_utils=checks)
    x, kernel = (torch.randn(1, c, 5, 6).to(DEVICE, memory_format=CHANNELS_LAST).requires_grad_() for c in (16, 9))
    torch.library.opcheck(filtered, (x, kernel), test_utils=checks)
