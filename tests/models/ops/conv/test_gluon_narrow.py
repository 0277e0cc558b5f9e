"""The convolution of 32 channels in Gluon: where it is taken, and on a GPU of compute capability 9 what it computes."""

import pytest
import torch
from torch.nn import functional as F

from tests.support.gluon import BF16, FP16, FP32, HERE, nhwc, on_gpu, values
from tests.support.triton_device import DEVICE

# isort: split
from models.ops.conv import triton_launch
from models.ops.conv.weights import kernel_layout


def launch(x, outputs=32, rows=None, side=3, stride=1, padding=1, dilation=1, residual=None, result=None, gradient=0):
    shape = (rows or 32, side**2 * outputs) if gradient else (outputs, side**2 * x.shape[1])
    weight = torch.zeros(shape, dtype=x.dtype, device=DEVICE)
    geometry = stride, padding, dilation, False
    return triton_launch.conv_launch(x, weight, None, residual, *geometry, 0.1, result or x.dtype, gradient)


X = nhwc(1, 5, 7, 32)


@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("outputs", [1, 3, 9, 32])
def test_takes_convolutions_and_gradients_of_32_channels(dtype, outputs, launched):
    x = X.to(dtype)
    launch(x, outputs)
    launch(x, outputs, residual=nhwc(1, 5, 7, outputs, FP32), result=FP32)
    launch(x.contiguous(), outputs)
    launch(x, outputs, gradient=3)
    assert launched == ["gluon_narrow_kernel"] * 4


OTHERS = {
    "fp32": {"x": X.float()},
    "fewer inputs": {"x": nhwc(1, 5, 7, 16)},
    "more outputs": {"outputs": 33},
    "single pixels": {"side": 1, "padding": 0},
    "stride": {"stride": 2},
    "dilation": {"dilation": 2, "padding": 2},
    "no padding": {"padding": 0},
    "a gradient of fewer outputs than x has channels": {"gradient": 3, "rows": 27},
    "begins between blocks of 16 bytes": {
        "x": torch.zeros(5 * 7 * 32 + 1, dtype=BF16, device=DEVICE)[1:].view(1, 5, 7, 32).permute(0, 3, 1, 2)
    },
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=list(OTHERS))
def test_leaves_others_to_the_usual_kernel(changes, launched):
    launch(**{"x": X} | changes)
    assert launched == ["conv_kernel"]


def test_where_gluon_does_not_run_it_is_the_usual_kernel(launched, monkeypatch):
    monkeypatch.setattr("models.ops.conv.gluon_launch._programs", lambda device: 0)
    launch(X)
    assert launched == ["conv_kernel"]


# (batch, height, width, programs): images smaller than a tile, tiles that end where an image ends and behind it, slots
# that a program fills several times, fewer tiles than consumers, and the real number of programs.
SIZES = [
    (1, 1, 1, 1),
    (1, 8, 30, 1),
    (2, 9, 31, 3),
    (1, 37, 53, 1),
    (3, 20, 61, 4),
    (1, 131, 97, 2),
    (1, 180, 320, None),
    (6, 64, 64, None),
]


def assert_rounded_once(ours, exact):
    assert ours.is_contiguous(memory_format=torch.channels_last)
    eps = torch.finfo(ours.dtype).eps / 2 if ours.dtype != FP32 else 1e-5
    torch.testing.assert_close(ours.double(), exact, rtol=eps, atol=1e-4)


class TestOnGPU:
    pytestmark = on_gpu

    @pytest.mark.parametrize("dtype", [BF16, FP16])
    @pytest.mark.parametrize("outputs", [3, 9, 20, 32])
    @pytest.mark.parametrize(("n", "h", "w", "programs"), SIZES)
    def test_equals_float64(self, n, h, w, programs, outputs, dtype, counted):
        torch.manual_seed(0)
        set_programs, grids = counted
        set_programs(programs)
        x, residual = values(n, 32, h, w, dtype=dtype), values(n, outputs, h, w, dtype=dtype)
        weight, bias = values(outputs, 32, 3, 3, dtype=dtype, scale=1 / 17), values(outputs, dtype=FP32)
        plain = F.conv2d(x.double(), weight.double(), padding=1)
        full = plain + bias.double()[:, None, None]
        rows, geometry = kernel_layout(weight), (1, 1, 1, False)

        def ours(bias, residual, slope, result=dtype):
            return triton_launch.conv_launch(x, rows, bias, residual, *geometry, slope, result)

        assert_rounded_once(ours(None, None, 1.0), plain)
        assert_rounded_once(ours(bias, None, 0.1), F.leaky_relu(full, 0.1))
        assert_rounded_once(ours(bias, residual, 1.0), full + residual.double())
        assert_rounded_once(ours(bias, None, 1.0, FP32), full)
        assert_rounded_once(
            ours(bias.to(dtype), residual.float(), 2.0),
            F.leaky_relu(plain + bias.to(dtype).double()[:, None, None] + residual.double(), 2.0),
        )
        weight = values(32, outputs, 3, 3, dtype=dtype, scale=1 / 17)
        gradient = triton_launch.input_grad_launch(x, weight, 1, 1)
        assert_rounded_once(gradient, F.conv_transpose2d(x.double(), weight.double(), padding=1))
        assert [name for name, *_ in grids] == ["gluon_narrow_kernel"] * 6
        assert {grid for _, grid in grids} <= set(range(1, (programs or HERE) + 1))

    def test_reads_nothing_of_what_lies_around_a_tile(self):
        """Views of features end behind a slot, where NaN of another tile may be."""
        torch.manual_seed(0)
        x, weight = values(2, 32, 40, 95, dtype=BF16), values(32, 32, 3, 3, dtype=BF16, scale=1 / 17)
        x[1] = torch.nan
        out = triton_launch.conv_launch(x, kernel_layout(weight), None, None, 1, 1, 1, False, 1.0, BF16)
        assert_rounded_once(out[:1], F.conv2d(x[:1].double(), weight.double(), padding=1))
        assert out[1].isnan().all()

    def test_runs_in_a_graph(self, counted):
        torch.manual_seed(0)
        x, weight = values(1, 32, 37, 53, dtype=BF16), values(32, 32, 3, 3, dtype=BF16, scale=1 / 17)
        rows, (_, grids) = kernel_layout(weight), counted

        def run():
            return triton_launch.conv_launch(x, rows, None, None, 1, 1, 1, False, 1.0, BF16)

        run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run()
        x.copy_(values(1, 32, 37, 53, dtype=BF16))
        graph.replay()
        assert_rounded_once(out, F.conv2d(x.double(), weight.double(), padding=1))
        assert len(grids) == 2
