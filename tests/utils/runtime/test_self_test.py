"""The self-test of the fused kernels finds wrong results, and what it means for the choice of the back end."""

import pytest
import torch

from models import aspdc
from utils.runtime import device as device_module
from utils.runtime.device import pick_deform_op
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


def test_right_results_pass():
    assert fused_kernels_fail(CPU) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernels_pass_on_a_gpu():
    assert fused_kernels_fail(torch.device("cuda")) is None


def test_wrong_results_fail(monkeypatch):
    right = aspdc.aspdc_sum
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: right(*args) * 1.1)
    assert "output of DeblurringNet in torch.float32: off by" in fused_kernels_fail(CPU)
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: WrongGradient.apply(right(*args)))
    assert "gradient of DeblurringNet in torch.float32: off by nan, 0.001 is allowed" in fused_kernels_fail(CPU)
    monkeypatch.setattr(aspdc, "aspdc_sum", lambda *args: 1 / 0)
    assert fused_kernels_fail(CPU) == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(("reason", "chosen"), [(None, "fused"), ("it differs", "torchvision")])
def test_fused_by_name_on_a_gpu_that_nobody_has_measured(monkeypatch, capsys, reason, chosen):
    """With a GPU of compute capability 8.6 that is not there."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (8, 6))
    monkeypatch.setattr("models.ops.back_ends._device_problem", lambda device: None)
    monkeypatch.setattr("models.ops.back_ends.mmcv_problem", lambda device: "not here")
    monkeypatch.setattr(device_module, "_failure_of", lambda device: reason)
    device_module._print_once.cache_clear()  # what the run before said
    cuda = torch.device("cuda")
    assert pick_deform_op("fused", cuda, width=32) == chosen
    said = "by torchvision, not fused: the kernels failed their self-test (it differs)"
    assert (said in capsys.readouterr().out) == bool(reason)
    assert pick_deform_op("auto", cuda, width=32) == "torchvision"
    assert "nobody has measured the fused kernels on GPUs of compute capability 8 yet" in capsys.readouterr().out
