"""The self-test of the fused kernels finds wrong results, and what it means for the choice of the back end."""

import pytest
import torch

from models import aspdc
from utils.runtime import device as device_module
from utils.runtime.device import pick_deform_op
from utils.runtime.precision import PRECISIONS
from utils.runtime.self_test import fused_kernels_fail

CPU = torch.device("cpu")


class WrongGradient(torch.autograd.Function):
    """Its output is right, its gradient is not a number."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * torch.nan


def shifted(x):
    """A pixel to the right, as by a wrong address."""
    return x.roll(1, dims=3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_right_results_pass(precision):
    assert fused_kernels_fail(CPU, 8, precision, training=True) is None


def test_a_deterministic_run_stays_so():
    torch.use_deterministic_algorithms(True)
    try:
        assert fused_kernels_fail(CPU, 8, "fp32", training=True) is None
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("copy_engine", [True, False])
def test_the_kernels_pass_on_a_gpu(monkeypatch, precision, copy_engine):
    """Without the copy engine they are, but for the compiler, those of compute capability 8."""
    if not copy_engine:
        for operation in ("aspdc_sum", "conv"):
            monkeypatch.setattr(f"models.ops.{operation}.triton_launch.has_copy_engine", lambda device: False)
    assert fused_kernels_fail(torch.device("cuda"), 32, precision, training=True) is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_wrong_results_fail(monkeypatch, precision):
    right = aspdc.aspdc_sum
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: shifted(right(*args)))
    assert f"output of DeblurringNet in {precision}: off by" in fused_kernels_fail(CPU, 8, precision, training=False)
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: WrongGradient.apply(right(*args)))
    assert fused_kernels_fail(CPU, 8, precision, training=False) is None
    wrong = f"gradient of DeblurringNet in {precision}: off by nan"
    assert wrong in fused_kernels_fail(CPU, 8, precision, training=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda total: total, None),
        (shifted, "output of DeblurringNet in fp32: off by"),
        (lambda total: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("name", ["fused", "auto"])
def test_fused_on_a_gpu_that_nobody_has_measured(monkeypatch, capsys, name, change, reason):
    """With the CPU in place of such a GPU: it is tested once, and a line says why another back end takes its place."""
    right = aspdc.aspdc_sum
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: change(right(*args)))
    monkeypatch.setattr(device_module, "is_unmeasured_gpu", lambda device: True)
    device_module._failure_of.cache_clear()
    device_module._print_once.cache_clear()
    for _ in range(2):
        assert pick_deform_op(name, CPU, 8, "fp32", training=False) == ("torchvision" if reason else "fused")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("compiling and testing the fused kernels")
    if reason:
        (line,) = lines
        assert f"by torchvision, not fused: the kernels failed their self-test ({reason}" in line
    else:
        assert not lines
    device_module._failure_of.cache_clear()
