"""Where the Triton kernels run in tests; whatever imports this is skipped where they cannot."""

from importlib.metadata import version

import pytest
import torch

from models.ops.back_ends import fused_problem

if problem := fused_problem("fused", "cuda"):
    pytest.skip(problem, allow_module_level=True)
if not torch.cuda.is_available() and tuple(map(int, version("triton").split(".")[:2])) >= (3, 9):
    pytest.skip("the interpreter of Triton 3.9 refuses the kernels' masks", allow_module_level=True)

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"  # conftest.py turns the interpreter on
