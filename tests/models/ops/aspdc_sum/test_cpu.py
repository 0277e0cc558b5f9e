"""The ASPDC sum on the CPU against its definition, forward and backward at odd sizes and at borders."""

import pytest
import torch

from models.ops.aspdc_sum import cpu
from models.ops.aspdc_sum.op import aspdc_sum
from tests.support.aspdc_cases import MODULES, arguments, make_case, reference, relative_error


def fused(case):
    return aspdc_sum(*arguments(case))


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
def test_outputs_and_gradients_equal_the_definition(options):
    case = make_case(**options)
    # At whole pixels the offset's gradient is one of two one-sided ones, and both take the upper.
    exact = {name: tensor.double().requires_grad_() for name, tensor in case.items()}
    case = {name: tensor.requires_grad_() for name, tensor in case.items()}
    ours, theirs = fused(case), reference(exact)
    assert relative_error(ours, theirs) < 1e-5
    cotangent = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = zip(
        torch.autograd.grad(ours, list(case.values()), cotangent),
        torch.autograd.grad(theirs, list(exact.values()), cotangent.double()),
        strict=True,
    )
    for name, (mine, exactly) in zip(case, gradients, strict=True):
        if exactly.norm() > 0:
            assert relative_error(mine, exactly) < 1e-4, name
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
    monkeypatch.setattr(cpu, "COLUMN_PIXELS", pixels)
    monkeypatch.setattr(cpu, "POINT_PIXELS", 3 * pixels)
    torch.testing.assert_close(fused(case), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_short_types_keep_their_precision(dtype, limit):
    case = make_case(channels=32, reach=3.0)
    short = {name: tensor if "map" in name else tensor.to(dtype) for name, tensor in case.items()}
    ours = fused(short)
    assert ours.dtype == dtype
    assert relative_error(ours.float(), reference(case)) < limit


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
