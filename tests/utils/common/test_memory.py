"""How much memory is free."""

import resource
import subprocess
import sys

import pytest
import torch

from tests.support.samples import ROOT
from utils.common.memory import free_memory

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_free_memory_knows_the_processs_limit():
    assert 0 < free_memory(CPU) < 2**44
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({2**36},) * 2)\n"
    code += "import torch; from utils.common.memory import free_memory; print(free_memory(torch.device('cpu')))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert int(result.stdout) < 2**36
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
