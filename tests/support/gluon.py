"""What the tests of the convolution's and the predictors' kernels in Gluon share."""

import pytest
import torch

from tests.support.triton_device import DEVICE  # skips the test's file where Triton is missing

# isort: split
from models.ops.conv import gluon_launch

HERE = torch.cuda.is_available() and gluon_launch._programs(torch.device("cuda", torch.cuda.current_device()))
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="needs a GPU of compute capability 9, and Triton 3.6 or 3.7"),
]
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def nhwc(n, h, w, c, dtype=BF16):
    return torch.zeros(n, h, w, c, dtype=dtype, device=DEVICE).permute(0, 3, 1, 2)


def values(*shape, dtype, scale=1.0):
    values = (torch.randn(*shape, device=DEVICE) * scale).to(dtype)
    return values.to(memory_format=torch.channels_last) if values.dim() == 4 else values


def empty_predictors(x):
    """Weights and biases of predictors that take x."""
    rows = (2 if x.dtype == FP32 else 1) * 192
    weight = torch.empty(rows, 9 * x.shape[1], dtype=x.dtype, device=x.device)
    return weight, torch.empty(192, dtype=x.dtype, device=x.device)
