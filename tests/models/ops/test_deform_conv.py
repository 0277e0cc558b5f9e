"""The modulated deformable convolution: both back ends against a direct transcription of its definition."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from models import ModulatedDeformConv2d, modulated_deform_conv2d
from models.ops.back_ends import mmcv_problem, resolve_single_op


def sample(x, batch, channel, y, x_position):
    """Bilinear value of x at a real position; pixels outside the image are zero."""
    height, width = x.shape[-2:]
    y0, x0 = int(torch.floor(y)), int(torch.floor(x_position))
    value = 0.0
    for row, column in itertools.product((y0, y0 + 1), (x0, x0 + 1)):
        if 0 <= row < height and 0 <= column < width:
            weight = (1 - abs(float(y) - row)) * (1 - abs(float(x_position) - column))
            value += weight * float(x[batch, channel, row, column])
    return value


def transcription(x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    """Return the definition, loop by loop."""
    batch, in_channels, _, _ = x.shape
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    out = torch.zeros(batch, out_channels, *offset.shape[-2:], dtype=x.dtype)
    for n, o, i, j in itertools.product(range(batch), range(out_channels), *map(range, offset.shape[-2:])):
        total = float(bias[o])
        first = (o // (out_channels // groups)) * group_channels
        for c, ky, kx in itertools.product(range(group_channels), range(kernel_h), range(kernel_w)):
            group = (first + c) // (in_channels // deform_groups)
            tap = group * kernel_h * kernel_w + ky * kernel_w + kx
            y = i * stride - padding + ky * dilation + offset[n, 2 * tap, i, j]
            x_position = j * stride - padding + kx * dilation + offset[n, 2 * tap + 1, i, j]
            total += float(weight[o, c, ky, kx] * mask[n, tap, i, j]) * sample(x, n, first + c, y, x_position)
        out[n, o, i, j] = total
    return out


def make_case(batch=2, channels=4, out=6, height=5, width=7, groups=1, deform_groups=1, reach=3.0, stride=1):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    out_h, out_w = -(-height // stride), -(-width // stride)
    return {
        "input": randn(batch, channels, height, width),
        "offset": reach * randn(batch, 18 * deform_groups, out_h, out_w),
        "mask": torch.sigmoid(randn(batch, 9 * deform_groups, out_h, out_w)),
        "weight": randn(out, channels // groups, 3, 3),
        "bias": randn(out),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reach": 40.0},  # far beyond every border
        {"groups": 2, "deform_groups": 2},
        {"stride": 2, "height": 6},
    ],
    ids=["plain", "far offsets", "groups", "stride"],
)
def test_equals_the_definition(deform_op, options):
    case = make_case(**options)
    groups, deform_groups, stride = (options.get(key, 1) for key in ("groups", "deform_groups", "stride"))
    ours = modulated_deform_conv2d(
        **case, stride=stride, padding=1, groups=groups, deform_groups=deform_groups, deform_op=deform_op
    )
    theirs = transcription(*case.values(), stride, 1, 1, groups, deform_groups)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0, -0.5])
def test_integer_and_half_offsets(deform_op, offset):
    case = make_case()
    case["offset"] = torch.full_like(case["offset"], offset)
    ours = modulated_deform_conv2d(**case, padding=1, deform_op=deform_op)
    torch.testing.assert_close(ours, transcription(*case.values(), 1, 1, 1, 1, 1), atol=1e-10, rtol=0)


def test_without_offsets_and_with_full_modulation_it_is_a_convolution(deform_op):
    case = make_case()
    case |= {"offset": torch.zeros_like(case["offset"]), "mask": torch.ones_like(case["mask"])}
    ours = modulated_deform_conv2d(**case, padding=1, deform_op=deform_op)
    plain = F.conv2d(case["input"], case["weight"], case["bias"], padding=1)
    torch.testing.assert_close(ours, plain, atol=1e-10, rtol=0)


def test_gradients_by_differences(deform_op):
    # Positions at multiples of 1/4 plus 1/8 keep the differences away from the kinks at whole pixels.
    case = make_case(batch=1, channels=2, out=2, height=3, width=4)
    case["offset"] = (case["offset"] * 4).round() / 4 + 0.125
    inputs = [tensor.requires_grad_() for tensor in case.values()]
    assert torch.autograd.gradcheck(
        lambda *tensors: modulated_deform_conv2d(*tensors, padding=1, deform_op=deform_op), inputs
    )


def test_accepts_strided_tensors(deform_op):
    case = make_case()
    plain = modulated_deform_conv2d(**case, padding=1, deform_op=deform_op)
    case["input"] = case["input"].contiguous(memory_format=torch.channels_last)
    case["mask"] = case["mask"].transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(modulated_deform_conv2d(**case, padding=1, deform_op=deform_op), plain)


def test_module_has_mmcvs_parameter_names(deform_op):
    case = make_case()
    module = ModulatedDeformConv2d(4, 6, 3, stride=1, padding=1, dilation=1, deform_groups=1, deform_op=deform_op)
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
    module.double().load_state_dict({"weight": case["weight"], "bias": case["bias"]})
    expected = modulated_deform_conv2d(**case, padding=1, deform_op=deform_op)
    torch.testing.assert_close(module(case["input"], case["offset"], case["mask"]), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mask": lambda m: m[..., :-1]}, ValueError, r"mask should have shape \(2, 9, 5, 7\), got \(2, 9, 5, 6\)"),
        ({"offset": lambda o: o[:, :9]}, ValueError, r"offset should have shape \(2, 18, 5, 7\), got \(2, 9, 5, 7\)"),
        ({"bias": lambda b: b[:2]}, ValueError, r"bias should have shape \(6,\), got \(2,\)"),
        ({"weight": lambda w: w[:, :3]}, ValueError, r"weight \(6, 3, 3, 3\) with groups 1 does not fit 4"),
        ({"input": lambda x: x[0]}, ValueError, r"input should have 4 dimensions, got shape \(4, 5, 7\)"),
        ({"input": lambda x: x[:0]}, ValueError, "the batch is empty"),
        ({"offset": lambda o: o.float()}, TypeError, "offset should have the input's type torch.float64, got torch.fl"),
        ({"input": lambda x: x.long()}, TypeError, "input should be of a floating-point type"),
        ({"mask": lambda m: m.to("meta")}, ValueError, "mask should be on the input's device cpu, got meta"),
        ({"input": lambda x: x[..., :0, :]}, ValueError, "smaller than the dilated kernel"),
    ],
)
def test_refuses_what_does_not_fit(deform_op, change, error, message):
    case = make_case()
    for name, function in change.items():
        case[name] = function(case[name])
    with pytest.raises(error, match=message):
        modulated_deform_conv2d(**case, padding=1, deform_op=deform_op)


def test_unknown_back_end():
    with pytest.raises(ValueError, match="deform_op should be one of auto, fused, mmcv, torchvision, got 'cuda'"):
        resolve_single_op("cuda", "cpu")


def test_auto_prefers_mmcv_and_mmcv_by_name_says_why_not(monkeypatch):
    monkeypatch.setattr("models.ops.back_ends.mmcv_problem", lambda device: None)
    assert resolve_single_op("auto", "cpu") == "mmcv"
    monkeypatch.setattr("models.ops.back_ends.mmcv_problem", lambda device: "it is not installed")
    assert resolve_single_op("auto", "cpu") == "torchvision"
    with pytest.raises(RuntimeError, match="mmcv is not usable: it is not installed"):
        resolve_single_op("mmcv", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_an_operator_that_cannot_run_says_why():
    if mmcv_problem("cpu"):
        pytest.skip("mmcv is not installed")
    assert mmcv_problem("cuda").startswith("mmcv's operator fails on cuda (")


def test_the_back_ends_agree():
    if resolve_single_op("auto", "cpu") != "mmcv":
        pytest.skip("mmcv is not installed")
    case = {name: tensor.float() for name, tensor in make_case(channels=16, height=13, width=9).items()}
    ours = [modulated_deform_conv2d(**case, padding=1, deform_op=op) for op in ("mmcv", "torchvision")]
    torch.testing.assert_close(*ours, atol=1e-5, rtol=0)  # values up to 20; the sums run in another order


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    case = {name: tensor.float() for name, tensor in make_case(channels=16, reach=10.0).items()}
    on_gpu = {name: tensor.cuda() for name, tensor in case.items()}
    torch.testing.assert_close(
        modulated_deform_conv2d(**on_gpu, padding=1).cpu(),
        modulated_deform_conv2d(**case, padding=1),
        atol=1e-4,
        rtol=1e-4,
    )
