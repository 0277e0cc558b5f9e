"""Every kernel compiles for the GPUs that people have, with the pinned Triton and the oldest one; needs no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.ops.back_ends import fused_problem
from tests.support.samples import ROOT

if problem := fused_problem("cuda"):
    pytest.skip(problem, allow_module_level=True)

from tests.support.compile_kernels import SHARED_MEMORY

OLDEST = Path(sys.prefix) / "triton-3.6"  # where .ci/run installs it


@pytest.mark.large
@pytest.mark.parametrize(("triton", "capabilities"), [("pinned", tuple(SHARED_MEMORY)), ("oldest", (80,))])
def test_every_kernel_compiles(triton, capabilities, tmp_path):
    path = [str(OLDEST)] if triton == "oldest" else []
    if path and not OLDEST.exists():
        pytest.skip(f"`pip install --no-deps --target {OLDEST} triton==3.6.0` installs it")
    environment = {
        "PYTHONPATH": os.pathsep.join([*path, str(ROOT)]),
        "TRITON_CACHE_DIR": str(tmp_path),
        "TRITON_INTERPRET": "0",
    }
    command = [sys.executable, "-m", "tests.support.compile_kernels", *map(str, capabilities)]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert all(line.startswith("Triton 3.6") == (triton == "oldest") for line in lines)
    assert len(lines) == 18 * (len(capabilities) + len({80, 86, 120} & {*capabilities}))
