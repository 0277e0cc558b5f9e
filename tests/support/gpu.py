"""Marks of tests that need a GPU on which the kernels run; whatever imports this is skipped elsewhere."""

import pytest
import torch

from models.ops.back_ends import fused_problem

if problem := fused_problem("fused", "cuda") if torch.cuda.is_available() else "needs a CUDA device":
    pytest.skip(problem, allow_module_level=True)

GPU_MARKS = [pytest.mark.gpu, pytest.mark.slow]
