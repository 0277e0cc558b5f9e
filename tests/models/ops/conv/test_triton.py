"""The Triton kernels of convolution against its definition: in Triton's interpreter, or on a GPU where there is one."""

import pytest
import torch
from torch.nn import functional as F

from tests.support.triton_device import DEVICE  # skips this file where the kernels cannot run

# isort: split
from models.aspdc import ASPDC, read_as_released
from models.ops.conv.op import chunk_weights, convolution, fused_chunked_conv, fused_conv, fused_predictions
from models.ops.conv.reference import conv_lrelu
from models.ops.conv.weights import conv_weights, kernel_layout, predictor_layout
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
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "transposed": transposed, "slope": slope}
    residual = None
    if with_residual:
        given["residual"] = residual = randn(*conv_lrelu(**exact, **geometry).shape)
        exact["residual"] = residual.detach().double().cpu().requires_grad_()
    expected = conv_lrelu(**exact, **geometry)
    x, weight, bias = given["x"], given["weight"], given["bias"]
    kernel_weight = kernel_layout(weight.detach(), transposed)
    geometry = stride, padding, dilation, transposed, slope
    ours = convolution(x, [weight], [bias], residual, kernel_weight, bias.detach(), *geometry, x.dtype)
    return given, ours, exact, expected


SHORT = (
    pytest.param(torch.bfloat16, 1e-2, marks=pytest.mark.slow),
    pytest.param(torch.float16, 2e-3, marks=pytest.mark.slow),
)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), *SHORT])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=list(CONVOLUTIONS))
def test_convolutions_equal_the_definition(options, dtype, limit):
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_second_derivatives_are_refused(dtype):
    given, ours, *_ = tensors(CONVOLUTIONS["single pixels"], dtype)
    (gradient,) = torch.autograd.grad(ours.sum(), given["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def test_frozen_layers_beside_trained_ones_get_no_gradient():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(16, out, 3, padding=1).to(DEVICE) for out in (18, 9)]
    layers[0].requires_grad_(False)
    x = torch.randn(1, 16, 4, 5).to(DEVICE, memory_format=CHANNELS_LAST)
    fused_conv(x, conv_weights(layers, torch.float32), layers[0]).square().sum().backward()
    assert layers[0].weight.grad is None
    assert layers[0].bias.grad is None
    expected = torch.autograd.grad(layers[1](x).square().sum(), [layers[1].weight, layers[1].bias])
    for parameter, exact in zip(layers[1].parameters(), expected, strict=True):
        assert relative_error(parameter.grad, exact) < 1e-5


@pytest.fixture(params=[True, False], ids=["copy engine", "no copy engine"])
def copy_engine(request, monkeypatch):
    monkeypatch.setattr("models.ops.conv.triton_launch.has_copy_engine", lambda device: request.param)


@pytest.mark.usefixtures("copy_engine")
@pytest.mark.parametrize("name", ["many channels", "transposed"])
def test_with_and_without_copy_engine(name):
    _, ours, _, expected = tensors(CONVOLUTIONS[name], torch.float32)
    assert relative_error(ours.double().cpu(), expected) < 1e-5


@pytest.mark.usefixtures("copy_engine")
def test_one_launch_predicts_what_the_four_modules_do():
    torch.manual_seed(0)
    aspdc = ASPDC(32, deform_op="fused").to(DEVICE)
    f = torch.randn(2, 32, 9, 11).to(DEVICE, memory_format=CHANNELS_LAST)
    layers = [module.predictors for module in aspdc.deformable]
    weight, bias = (
        predictor_layout([[getattr(layer, name).detach() for layer in module] for module in layers])
        for name in ("weight", "bias")
    )
    for module, ours in zip(aspdc.deformable, fused_predictions(f, weight, bias), strict=True):
        assert relative_error(ours, module.predict_merged(f)) < 1e-5
    assert read_as_released(torch.zeros(1, 9, 7, 9), 9, 11).shape == (1, 9, 9, 11)


def test_a_convolution_of_channels_in_several_tensors():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(48, 16, 3, padding=1).to(DEVICE)
    chunks = [torch.randn(1, 16, 5, 6).to(DEVICE, memory_format=CHANNELS_LAST) for _ in range(3)]
    ours = fused_chunked_conv(chunks, chunk_weights(layer, 3, torch.float32), layer, 0.1)
    expected = F.leaky_relu(layer.double()(torch.cat(chunks, 1).double()), 0.1)
    assert relative_error(ours.double(), expected) < 1e-5


def test_a_layer_through_the_whole_call():
    """Of a block on CUDA: several layers' outputs, padding and dilation from the layer."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(16, out, 3, padding=2, dilation=2).to(DEVICE) for out in (18, 9)]
    x = torch.randn(1, 16, 9, 7).to(DEVICE, memory_format=CHANNELS_LAST)
    ours = fused_conv(x, conv_weights(layers, torch.bfloat16), layers[0], out_dtype=torch.float32)
    assert ours.dtype == torch.float32
    assert relative_error(ours, torch.cat([layer(x) for layer in layers], 1)) < 1e-2


def test_is_registered_as_pytorch_wants_it():
    options = CONVOLUTIONS["residual and activation"]
    given, *_ = tensors(options, torch.float32)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    kernel_weight = kernel_layout(leaves["weight"].detach())
    x, weight, bias, residual = (leaves[name] for name in ("x", "weight", "bias", "residual"))
    arguments = (x, [weight], [bias], residual, kernel_weight, bias.detach(), 1, 1, 1, False, 0.1, torch.float32)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(convolution, arguments, test_utils=checks)
