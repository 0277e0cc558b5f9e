"""The convolution in Gluon: where it is taken, and on a GPU of compute capability 9 what it computes."""

import pytest
import torch
from torch.nn import functional as F

from tests.support.gluon import BF16, FP16, FP32, HERE, empty_predictors, nhwc, on_gpu, values
from tests.support.triton_device import DEVICE

# isort: split
from models.ops.conv import gluon_launch, triton_launch
from models.ops.conv.weights import kernel_layout
from utils.inference.restorer import COMPILED_SIDES


def launch(x, outputs=128, side=3, stride=1, padding=1, dilation=1, transposed=False, result=None, **others):
    weight = torch.zeros(outputs, side**2 * x.shape[1], dtype=x.dtype, device=DEVICE)
    geometry = stride, padding, dilation, transposed
    triton_launch.conv_launch(
        x, weight, None, others.pop("residual", None), *geometry, 0.1, result or x.dtype, **others
    )


X = nhwc(1, 17, 16, 128)  # 6 units, 3 for each program


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_takes_convolutions_and_gradients_of_128_channels(dtype, launched):
    x = X.to(dtype)
    launch(x)
    launch(x, residual=x)
    launch(x, gradient_side=3)
    launch(x.contiguous())
    assert launched == ["gluon_conv_kernel"] * 4


OTHERS = {
    "fp32": {"x": X.float()},
    "residual of another type": {"residual": X.float()},
    "result of another type": {"result": FP32},
    "fewer inputs": {"x": nhwc(1, 17, 16, 64)},
    "fewer outputs": {"outputs": 64},
    "more outputs": {"outputs": 256},
    "single pixels": {"side": 1, "padding": 0},
    "stride": {"stride": 2},
    "dilation": {"dilation": 2, "padding": 2},
    "no padding": {"padding": 0},
    "transposed": {"outputs": 512, "side": 2, "transposed": True, "x": nhwc(1, 17, 16, 128)},
    "two units a program": {"x": nhwc(1, 16, 16, 128)},
    "begins between blocks of 16 bytes": {
        "x": torch.zeros(17 * 16 * 128 + 1, dtype=BF16, device=DEVICE)[1:].view(1, 17, 16, 128).permute(0, 3, 1, 2)
    },
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=list(OTHERS))
def test_leaves_others_to_the_usual_kernel(changes, launched):
    launch(**{"x": X} | changes)
    assert launched == ["conv_kernel"]


@pytest.mark.parametrize("programs", [0, 78, 132])
def test_before_the_first_picture_the_kernels_of_all_sizes_are_compiled(programs, monkeypatch):
    variants = set()

    def launcher(kernel, grid):
        return lambda *_, **constants: variants.add((kernel.__name__, constants.get("TH"), constants.get("TW")))

    monkeypatch.setattr(gluon_launch, "_programs", lambda device: programs)
    monkeypatch.setattr(triton_launch, "has_copy_engine", lambda device: True)  # no GPU has tensors on "meta"
    for module in (gluon_launch, triton_launch):
        monkeypatch.setattr(module, "launcher", launcher)

    def restore(side):  # the layers of a network of width 32
        for channels, scale in ((32, 1), (64, 2), (128, 4)):
            x = torch.empty(1, side // scale, side // scale, channels, dtype=BF16, device="meta").permute(0, 3, 1, 2)
            weight = torch.empty(channels, 9 * channels, dtype=BF16, device="meta")
            triton_launch.conv_launch(x, weight, None, None, 1, 1, 1, False, 0.1, BF16)
        triton_launch.predict_launch(x, *empty_predictors(x))

    for side in COMPILED_SIDES:
        restore(side)
    compiled = set(variants)
    for side in (8, 160, 320, 480, 560, 736, 960, 2160):
        restore(side)
    assert variants == compiled
    names = {name for name, *_ in variants}
    assert names & {"predict_kernel", "gluon_predict_kernel"} == {
        "gluon_predict_kernel" if programs else "predict_kernel"
    }


# (batch, height, width, programs): shares of 3 to 18 units, strips of 1 to 13, images smaller than a unit, and the real
# number of programs.
SIZES = [
    (1, 24, 8, 1),
    (3, 5, 3, 1),
    (1, 37, 53, 5),
    (3, 20, 17, 4),
    (2, 100, 9, 3),
    (1, 180, 320, None),
    (6, 64, 64, None),
]


def assert_rounded_once(ours, exact):
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.double(), exact, rtol=torch.finfo(ours.dtype).eps / 2, atol=1e-4)


class TestOnGPU:
    pytestmark = on_gpu

    @pytest.mark.parametrize("dtype", [BF16, FP16])
    @pytest.mark.parametrize(("n", "h", "w", "programs"), SIZES)
    def test_equals_float64(self, n, h, w, programs, dtype, counted):
        torch.manual_seed(0)
        set_programs, grids = counted
        set_programs(programs)
        x, residual = (values(n, 128, h, w, dtype=dtype) for _ in range(2))
        weight, bias = values(128, 128, 3, 3, dtype=dtype, scale=1 / 34), values(128, dtype=FP32)
        plain = F.conv2d(x.double(), weight.double(), padding=1)
        full = plain + bias.double()[:, None, None]
        rows, geometry = kernel_layout(weight), (1, 1, 1, False)

        def ours(bias, residual, slope):
            return triton_launch.conv_launch(x, rows, bias, residual, *geometry, slope, dtype)

        assert_rounded_once(ours(None, None, 1.0), plain)
        assert_rounded_once(ours(bias, None, 0.1), F.leaky_relu(full, 0.1))
        assert_rounded_once(ours(bias, residual, 1.0), full + residual.double())
        assert_rounded_once(
            ours(bias.to(dtype), residual, 2.0),
            F.leaky_relu(plain + bias.to(dtype).double()[:, None, None] + residual.double(), 2.0),
        )
        gradient = triton_launch.input_grad_launch(x, weight, 1, 1)
        assert_rounded_once(gradient, F.conv_transpose2d(x.double(), weight.double(), padding=1))
        assert [name for name, *_ in grids] == ["gluon_conv_kernel"] * 5
        assert {grid for _, grid in grids} <= set(range(1, (programs or HERE) + 1))

    def test_runs_in_a_graph(self, counted):
        """Descriptors are arguments by value: a graph has those of its recording."""
        torch.manual_seed(0)
        x, weight = values(1, 128, 37, 53, dtype=BF16), values(128, 128, 3, 3, dtype=BF16, scale=1 / 34)
        set_programs, grids = counted
        set_programs(5)
        rows = kernel_layout(weight)

        def run():
            return triton_launch.conv_launch(x, rows, None, None, 1, 1, 1, False, 1.0, BF16)

        run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run()
        x.copy_(values(1, 128, 37, 53, dtype=BF16))
        graph.replay()
        assert_rounded_once(out, F.conv2d(x.double(), weight.double(), padding=1))
        assert len(grids) == 2
