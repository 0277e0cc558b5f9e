"""The Triton kernels of the ASPDC sum against its definition, in Triton's interpreter or on a GPU."""

import pytest
import torch

from tests.support.triton_device import DEVICE, GPU  # skips this file where the kernels cannot run

# isort: split
from models.ops.aspdc_sum.op import aspdc_sum_cuda, stack_weights, sum_on_cuda
from tests.support.aspdc_cases import MODULES, arguments, make_case, reference, relative_error


def fused(case):
    *inputs, weights, biases = arguments(case)
    return aspdc_sum_cuda(*inputs, weights, biases, *stack_weights(weights, biases, case["f"].dtype))


def channels_last(case):
    memory_format = torch.channels_last
    return {k: v.to(DEVICE, memory_format=memory_format) if v.dim() == 4 else v.to(DEVICE) for k, v in case.items()}


# Small: in Triton's interpreter a tile of 16 pixels takes about a second.
CASES = {
    "odd size": {"height": 5, "width": 3},
    "half pixels": {"channels": 32, "batch": 1, "height": 5, "width": 3, "offsets": 0.5},
    "whole pixels": {"out": 32, "batch": 1, "height": 3, "width": 5, "offsets": -1.0},
    "exactly on the borders": {"batch": 1, "height": 4, "width": 5, "offsets": 2.0},
    "offsets beyond every border": {"channels": 48, "out": 48, "batch": 1, "height": 7, "width": 5, "reach": 40.0},
    "paper's width": {"channels": 128, "out": 128, "batch": 1, "height": 3, "width": 5},
    "one pixel": {"height": 1, "width": 1},
}


RUNS = [(name, deterministic) for name in CASES for deterministic in (False, True)]


@pytest.fixture
def deterministic(request):
    torch.use_deterministic_algorithms(request.param, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "deterministic"), RUNS, indirect=["deterministic"])
def test_outputs_and_gradients_equal_the_definition(name, deterministic):
    case = make_case(**CASES[name])
    exact = {name: tensor.double().requires_grad_() for name, tensor in case.items()}
    case = {name: tensor.requires_grad_() for name, tensor in channels_last(case).items()}
    ours, theirs = fused(case), reference(exact)
    assert relative_error(ours.cpu(), theirs) < 1e-5
    cotangent = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = zip(
        torch.autograd.grad(ours, list(case.values()), cotangent.to(DEVICE)),
        torch.autograd.grad(theirs, list(exact.values()), cotangent.double()),
        strict=True,
    )
    for name, (mine, exactly) in zip(case, gradients, strict=True):
        # At whole pixels an offset's gradient is one of two one-sided ones; both take the upper.
        assert relative_error(mine.cpu(), exactly) < 1e-4 or exactly.norm() == mine.norm() == 0, name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_without_copy_engine_computes_the_same(monkeypatch, dtype):
    """As below compute capability 9.0; with 48 outputs, so that the last block of weights is not full."""
    case = {
        k: v if "map" in k else v.to(dtype)
        for k, v in channels_last(make_case(channels=32, out=48, batch=1, height=3, width=5)).items()
    }
    expected = fused(case)
    monkeypatch.setattr("models.ops.aspdc_sum.triton_launch.has_copy_engine", lambda device: False)
    assert relative_error(fused(case).float(), expected.float()) < (1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
def test_short_types_keep_their_precision(dtype, limit):
    case = make_case(channels=32, out=32, batch=1, height=5, width=7)
    short = {name: tensor if "map" in name else tensor.to(dtype) for name, tensor in channels_last(case).items()}
    ours = fused(short)
    assert ours.dtype == dtype
    assert relative_error(ours.float().cpu(), reference(case)) < limit


@pytest.mark.slow
def test_gradients_in_bf16(monkeypatch):
    """A program of `taps_kernel` has as few pixels as on a GPU."""
    monkeypatch.setattr("models.ops.aspdc_sum.triton_launch.TAPS_PIXELS", 4)
    case = make_case(channels=32, out=32, batch=2, height=3, width=5)
    case = {name: tensor if "map" in name else tensor.bfloat16() for name, tensor in case.items()}
    exact = {name: tensor.double().requires_grad_() for name, tensor in case.items()}
    short = {name: tensor.requires_grad_() for name, tensor in channels_last(case).items()}
    ours, theirs = fused(short), reference(exact)
    cotangent = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    gradients = torch.autograd.grad(ours, list(short.values()), cotangent.to(DEVICE))
    expected = torch.autograd.grad(theirs, list(exact.values()), cotangent.double())
    for name, mine, exactly in zip(case, gradients, expected, strict=True):
        assert relative_error(mine.cpu().double(), exactly) < 1e-2, name


@pytest.mark.slow
def test_gradients_by_differences():
    case = channels_last(make_case(batch=1, height=3, width=4, dtype=torch.float64))
    together = torch.cat([tensor.flatten() for tensor in case.values()]).requires_grad_()  # one difference for all

    def function(values):
        parts = values.split([tensor.numel() for tensor in case.values()])
        return fused({name: part.view(case[name].shape) for name, part in zip(case, parts, strict=True)})

    torch.use_deterministic_algorithms(True, warn_only=True)  # it compares two backward passes bit by bit
    try:
        assert torch.autograd.gradcheck(function, together, fast_mode=True)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_slices_of_merged_maps_and_other_layouts_are_read_as_they_lie():
    case = channels_last(make_case(height=5, width=6))
    expected = fused(case)
    merged = torch.cat([case["map0"], case["map1"]], 1).contiguous(memory_format=torch.channels_last)
    other = case | {"map0": merged[:, :9], "map1": merged[:, 9:], "map2": case["map2"].contiguous()}
    other |= {name: case[name].contiguous() for name in ("f", "attention")}
    result = fused(other)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_frozen_weights_and_compiled_graphs_give_the_same_gradients():
    case = channels_last(make_case(batch=1, height=3, width=4))
    case = {name: tensor.requires_grad_() for name, tensor in case.items()}
    tensors = list(case.values())
    expected = torch.autograd.grad(fused(case).sum(), tensors)
    frozen = {name: tensor.detach() if name != "map1" else tensor for name, tensor in case.items()}
    (alone,) = torch.autograd.grad(fused(frozen).sum(), [case["map1"]])
    torch.testing.assert_close(alone, expected[list(case).index("map1")])
    compiled = torch.compile(
        lambda *values: fused(dict(zip(case, values, strict=True))), backend="aot_eager", fullgraph=True
    )
    for ours, theirs in zip(torch.autograd.grad(compiled(*tensors).sum(), tensors), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_is_registered_as_pytorch_wants_it():
    case = channels_last(make_case(height=3, width=4))
    maps = [case[f"map{i}"] for i in range(MODULES)]
    tensors = [tensor.detach().requires_grad_() for tensor in (case["f"], *maps, case["attention"])]
    weights, biases = ([case[f"{name}{i}"].requires_grad_() for i in range(MODULES)] for name in ("weight", "bias"))
    stacked = stack_weights(weights, biases, torch.float32)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(sum_on_cuda, (*tensors, weights, biases, *stacked, "ieee", False), test_utils=checks)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"f": lambda f: f[:, :10]}, ValueError, "channels should be multiples of 16, got 10 in and 16 out"),
        ({"f": lambda f: f.to(torch.float8_e4m3fn)}, TypeError, "f should be float32, bfloat16, float16 or float64"),
        ({"map0": lambda m: torch.cat([m, m, m], 1)}, ValueError, "the first of them without offsets"),
    ],
)
def test_refuses_what_the_kernels_cannot_do(change, error, message):
    case = channels_last(make_case())
    for name, function in change.items():
        case[name] = function(case[name])
    with pytest.raises(error, match=message):
        fused(case)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_networks_size_on_a_gpu(dtype):
    case = make_case(channels=128, out=128, height=45, width=80, reach=3.0)
    ours = fused({k: v if "map" in k else v.to(dtype) for k, v in channels_last(case).items()})
    assert relative_error(ours.float().cpu(), reference(case)) < (1e-5 if dtype == torch.float32 else 2e-2)
