"""The predictors in Gluon: where they are taken, and on a GPU of compute capability 9 what they compute."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from tests.support.gluon import BF16, FP16, FP32, empty_predictors, nhwc, on_gpu, values
from tests.support.triton_device import DEVICE

# isort: split
from models.ops.conv import gluon_launch, triton_launch
from models.ops.conv.op import fused_predictions
from models.ops.conv.weights import predictor_layout

X = nhwc(1, 17, 16, 128)
SHIFTED = torch.zeros(17 * 16 * 128 + 1, dtype=BF16, device=DEVICE)[1:].view(1, 17, 16, 128).permute(0, 3, 1, 2)
PREDICTED = {
    "bf16": (X, True),
    "fp16": (X.to(FP16), True),
    "one pixel": (nhwc(1, 1, 1, 128), True),
    "channels outermost": (X.contiguous(), True),
    "begins between blocks of 16 bytes": (SHIFTED, True),
    "fp32": (X.float(), False),
    "fewer channels": (nhwc(1, 17, 16, 64), False),
}


@pytest.mark.parametrize(("x", "taken"), PREDICTED.values(), ids=list(PREDICTED))
def test_takes_predictors_of_128_channels_in_memory_as_registered(x, taken, launched):
    maps = triton_launch.predict_launch(x, *empty_predictors(x))
    assert launched == ["gluon_predict_kernel" if taken else "predict_kernel"]
    assert [each.is_contiguous() for each in maps] == [taken or x.shape[2:].numel() == 1] * 4
    with FakeTensorMode():
        fake = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda:0")
        registered = fused_predictions(fake, *empty_predictors(fake))
    assert [(each.shape, each.stride(), each.dtype) for each in maps] == [
        (each.shape, each.stride(), each.dtype) for each in registered
    ]


def test_the_copy_engine_is_given_blocks_of_16_bytes(monkeypatch):
    given = []
    monkeypatch.setattr(gluon_launch, "_programs", lambda device: 2)
    monkeypatch.setattr(gluon_launch, "launcher", lambda kernel, grid: lambda *arguments, **_: given.extend(arguments))
    assert SHIFTED.data_ptr() % 16
    triton_launch.predict_launch(SHIFTED, *empty_predictors(SHIFTED))
    assert [each.base.data_ptr() % 16 for each in given[:4]] == [0] * 4


def predictors(n, h, w, dtype):
    """Features, what predicts from them, and what that is in float64."""
    torch.manual_seed(n * h + w)
    x = values(n, 128, h, w, dtype=dtype)
    outputs = [[9], [18, 9], [18, 9], [18, 9]]
    weights = [[values(o, 128, 3, 3, dtype=dtype, scale=1 / 34) for o in module] for module in outputs]
    biases = [[values(o, dtype=dtype, scale=0.3) for o in module] for module in outputs]
    exact = [
        F.conv2d(x.double(), torch.cat(weight).double(), torch.cat(bias).double(), padding=dilation, dilation=dilation)
        for weight, bias, dilation in zip(weights, biases, (1, 1, 2, 4), strict=True)
    ]
    return x, predictor_layout(weights), predictor_layout(biases), exact


def assert_summed_in_fp32(maps, exact):
    largest = max(each.abs().max() for each in exact)
    for ours, expected in zip(maps, exact, strict=True):
        assert ours.dtype == FP32
        assert (ours.double() - expected).abs().max() / largest < 3e-6


class TestOnGPU:
    pytestmark = on_gpu

    @pytest.mark.parametrize("dtype", [BF16, FP16])
    @pytest.mark.parametrize("size", [(1, 180, 320), (6, 64, 64), (1, 37, 51), (3, 23, 5), (1, 129, 9), (1, 1, 1)])
    def test_predictions_equal_float64(self, size, dtype, counted):
        x, weight, bias, exact = predictors(*size, dtype)
        _, grids = counted
        maps = fused_predictions(x, weight, bias)
        assert_summed_in_fp32(maps, exact)
        assert all(map(torch.equal, fused_predictions(x, weight, bias), maps))
        assert [name for name, _ in grids] == ["gluon_predict_kernel"] * 2
        torch.library.opcheck(fused_predictions, (x, weight, bias), test_utils="test_faketensor")

    @pytest.mark.parametrize("programs", [1, 3, 5])
    def test_predictions_of_programs_with_several_tiles(self, programs, counted):
        x, weight, bias, exact = predictors(2, 45, 31, BF16)
        set_programs, grids = counted
        set_programs(programs)
        assert_summed_in_fp32(fused_predictions(x, weight, bias), exact)
        assert grids == [("gluon_predict_kernel", programs)]
