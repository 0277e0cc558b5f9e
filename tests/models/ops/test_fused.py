"""The fused ASPDC operation against four of torchvision's deformable convolutions, forward and backward."""

import sys

import pytest
import torch

from models import DeblurringNet
from models.aspdc import resolve_aspdc_op
from models.ops import _device_problem, fused_sum, use_fused_operations
from models.ops.aspdc_sum import cpu as fused_cpu
from tests.support.aspdc_cases import MODULES, baseline, make_case, relative_error
from utils.common.errors import UserError
from utils.runtime.device import pick_deform_op


def fused(case):
    maps, weights, biases = ([case[f"{name}{i}"] for i in range(MODULES)] for name in ("map", "weight", "bias"))
    return fused_sum(case["f"], maps, case["attention"], weights, biases)


CASES = {
    "odd size": {},
    "paper's width": {"channels": 128, "out": 128, "batch": 1},
    "one row": {"height": 1, "width": 13},
    "one pixel": {"height": 1, "width": 1},
    "unequal channels": {"channels": 48, "out": 32},
    "offsets beyond every border": {"reach": 40.0},
    "whole pixels": {"offsets": 1.0},
    "half pixels": {"offsets": -0.5},
    "exactly on the borders": {"offsets": -2.0},
}


@pytest.mark.parametrize("options", CASES.values(), ids=list(CASES))
def test_outputs_and_gradients_equal_torchvisions(options):
    case = make_case(**options)
    # At whole pixels the offset's gradient is one of two one-sided ones, and both back ends take the upper.
    exact = {name: tensor.double().requires_grad_() for name, tensor in case.items()}
    case = {name: tensor.requires_grad_() for name, tensor in case.items()}
    ours, theirs = fused(case), baseline(exact)
    assert relative_error(ours, theirs) < 1e-5
    cotangent = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = zip(
        torch.autograd.grad(ours, list(case.values()), cotangent),
        torch.autograd.grad(theirs, list(exact.values()), cotangent.double()),
        strict=True,
    )
    for name, (mine, reference) in zip(case, gradients, strict=True):
        if reference.norm() > 0:
            assert relative_error(mine, reference) < 1e-4, name
        else:
            assert mine.count_nonzero() == 0, name


def test_gradients_by_differences():
    case = make_case(batch=1, channels=2, out=2, height=2, width=3, dtype=torch.float64)
    for i in range(1, MODULES):  # away from the kinks at whole pixels
        case[f"map{i}"][:, :18] = (case[f"map{i}"][:, :18] * 4).round() / 4 + 0.125
    inputs = [tensor.requires_grad_() for tensor in case.values()]
    assert torch.autograd.gradcheck(
        lambda *tensors: fused(dict(zip(case, tensors, strict=True))), inputs, fast_mode=True
    )


@pytest.mark.parametrize("pixels", [1, 7, 10_000])
def test_pieces_do_not_show(monkeypatch, pixels):
    case = make_case()
    whole = fused(case)
    monkeypatch.setattr(fused_cpu, "COLUMN_PIXELS", pixels)
    monkeypatch.setattr(fused_cpu, "POINT_PIXELS", 3 * pixels)
    torch.testing.assert_close(fused(case), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_short_types_keep_their_precision(dtype, limit):
    case = make_case(channels=32, reach=3.0)
    short = {name: tensor if "map" in name else tensor.to(dtype) for name, tensor in case.items()}
    ours = fused(short)
    assert ours.dtype == dtype
    assert relative_error(ours.float(), baseline(case)) < limit


def test_result_is_channels_last_and_repeats_to_the_bit():
    case = make_case()
    assert fused(case).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(fused(case), fused(case))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f": lambda f: f[:0]}, r"f should be a non-empty N×C×H×W tensor, got \(0, 16, 7, 9\)"),
        ({"attention": lambda a: a[:, :3]}, r"attention should have shape \(2, 4, 7, 9\), got \(2, 3, 7, 9\)"),
        ({"map2": lambda m: m[..., 1:]}, r"map 2 should have shape \(2, 27, 7, 9\), got \(2, 27, 7, 8\)"),
        ({"map1": lambda m: m[:, :18]}, r"map 1 should have shape \(2, 27, 7, 9\), got \(2, 18, 7, 9\)"),
        ({"weight3": lambda w: w[:, :8]}, r"weight 3 should have shape \(16, 16, 3, 3\), got \(16, 8, 3, 3\)"),
        ({"bias0": lambda b: b[:8]}, r"bias 0 should have shape \(16,\), got \(8,\)"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    case = make_case()
    for name, function in change.items():
        case[name] = function(case[name])
    with pytest.raises(ValueError, match=message):
        fused(case)


def test_which_back_end_runs_where(monkeypatch):
    assert resolve_aspdc_op("auto", "cpu") == resolve_aspdc_op("fused", "cpu") == "fused"
    assert resolve_aspdc_op("torchvision", "cpu") == "torchvision"
    monkeypatch.setattr("models.ops.deform_conv._mmcv_problem", lambda device: "not here")
    assert resolve_aspdc_op("auto", "meta") == "torchvision"
    with pytest.raises(RuntimeError, match="fused is not usable: .* runs on the CPU and on CUDA, not on meta"):
        resolve_aspdc_op("fused", "meta")
    monkeypatch.setitem(sys.modules, "triton", None)
    _device_problem.cache_clear()
    with pytest.raises(RuntimeError, match="fused is not usable: .* needs Triton on CUDA, which cannot be imported"):
        resolve_aspdc_op("fused", "cuda")
    assert resolve_aspdc_op("auto", "cuda") == "torchvision"
    _device_problem.cache_clear()


def test_widths_that_the_kernels_cannot_take_use_another_back_end_on_cuda(monkeypatch, capsys):
    monkeypatch.setattr("models.ops._device_problem", lambda device: None)
    monkeypatch.setattr("models.ops.deform_conv._mmcv_problem", lambda device: "not here")
    try:
        assert pick_deform_op("auto", torch.device("cuda"), width=6) == "torchvision"
        assert (
            "by torchvision, not fused: the fused kernels take multiples of 16 channels, not 24"
            in capsys.readouterr().out
        )
        with pytest.raises(UserError, match="multiples of 16 channels, not 24; or use --deform_op torchvision"):
            pick_deform_op("fused", torch.device("cuda"), width=6)
        assert pick_deform_op("auto", torch.device("cuda"), width=32) == "fused"
        assert pick_deform_op("auto", torch.device("cpu"), width=6) == "fused"
    finally:
        use_fused_operations(True)


def test_networks_differ_by_rounding_alone():
    torch.manual_seed(0)
    networks = [DeblurringNet(8, deform_op=op) for op in ("fused", "torchvision")]
    networks[1].load_state_dict(networks[0].state_dict())
    blurry = torch.rand(2, 3, 37, 50) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(networks[0](blurry), networks[1](blurry), atol=2e-6, rtol=0)
