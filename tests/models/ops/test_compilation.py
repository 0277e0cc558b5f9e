"""Every kernel compiles for the GPUs that people have, with the pinned Triton and the oldest one; needs no GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.ops.back_ends import fused_problem
from tests.support.samples import ROOT

if problem := fused_problem("fused", "cuda"):
    pytest.skip(problem, allow_module_level=True)

OLDEST = Path(sys.prefix) / "triton-3.6"  # where .ci/run installs it
# KiB of shared memory that a program may have, by compute capability (CUDA's programming guide).
SHARED_MEMORY = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
# Bytes that a thread may keep in memory for lack of registers; 9.0 was timed instead.
SPILLED = {80: 64, 86: 64, 89: 64}
GLUON = re.compile(r"3\.[67]\.")  # the versions of Triton that compile the kernels in Gluon
LINE = re.compile(r"Triton (\S+), \d+, \w+: (\w+), (\d+) bytes shared, \d+ registers, (\d+) bytes spilled")


def compiled(work, capability, precision, cache, path=ROOT):
    """Compile a work's kernels, and return the set of Triton's versions and that of their names; they fit the GPU."""
    environment = {
        "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]),
        "TRITON_CACHE_DIR": str(cache),
        "TRITON_INTERPRET": "0",
    }
    command = [sys.executable, "-m", "tests.support.compile_kernels", work, str(capability), precision]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = [LINE.fullmatch(line).groups() for line in result.stdout.splitlines()]
    for _, name, shared, spilled in found:
        assert int(shared) <= SHARED_MEMORY[capability] * 1024, name
        # Registers of kernels in Gluon are set by hand.
        assert int(spilled) <= (0 if name.startswith("gluon_") else SPILLED.get(capability, sys.maxsize)), name
    return {version for version, *_ in found}, {name for _, name, *_ in found}


def kernels_of(capability, precision, versions, *operations):
    """Return the names of what is launched: on Hopper in 16-bit types those in Gluon, too, two of them instead.

    With versions of Triton that do not compile these, it is the usual ones there, too.
    """
    files = [file for each in operations for file in (ROOT / "models" / "ops" / each).glob("*.py")]
    names = set(re.findall(r"^def (\w+_kernel)\(", "".join(file.read_text() for file in files), re.M))
    gluon = capability == 90 and precision in ("bf16", "fp16") and all(map(GLUON.match, versions))
    replaced = {"product_kernel", "predict_kernel"}
    return names - (replaced if gluon else {name for name in names if name.startswith("gluon_")})


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "precision"), [(86, "bf16"), (90, "bf16"), (90, "fp16")])
def test_an_aspdc_compiles_for_a_gpu_of_little_shared_memory_and_for_hopper(capability, precision, tmp_path):
    versions, names = compiled("aspdc", capability, precision, tmp_path)
    assert names == kernels_of(capability, precision, versions, "aspdc_sum", "conv") - {"gluon_narrow_kernel"}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("work", "kernel"), [("blocks", "gluon_conv_kernel"), ("narrow", "gluon_narrow_kernel")])
def test_convolutions_of_128_and_of_32_channels_compile_for_hopper(work, kernel, precision, tmp_path):
    versions, names = compiled(work, 90, precision, tmp_path)
    convolution = kernel if all(map(GLUON.match, versions)) else "conv_kernel"
    assert names == {convolution, "activation_grad_kernel", "sum_rows_kernel"}


@pytest.mark.large
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_every_kernel_compiles(capability, precision, tmp_path):
    versions, names = compiled("networks", capability, precision, tmp_path)
    assert names == kernels_of(capability, precision, versions, "aspdc_sum", "conv", "dynamic_filter")


@pytest.mark.large
@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_other_precisions_compile(precision, tmp_path):
    compiled("networks", 86, precision, tmp_path)


@pytest.mark.large
@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.skipif(not OLDEST.exists(), reason=f"`pip install --no-deps --target {OLDEST} triton==3.6.0` installs it")
def test_every_kernel_compiles_with_the_oldest_triton(capability, tmp_path):
    versions, names = compiled("networks", capability, "bf16", tmp_path, OLDEST)
    assert versions == {"3.6.0"}
    assert names == kernels_of(capability, "bf16", versions, "aspdc_sum", "conv", "dynamic_filter")


@pytest.mark.large
@pytest.mark.skipif(not OLDEST.exists(), reason=f"`pip install --no-deps --target {OLDEST} triton==3.6.0` installs it")
@pytest.mark.parametrize(("work", "kernel"), [("blocks", "gluon_conv_kernel"), ("narrow", "gluon_narrow_kernel")])
def test_convolutions_in_gluon_compile_with_the_oldest_triton(work, kernel, tmp_path):
    versions, names = compiled(work, 90, "bf16", tmp_path, OLDEST)
    assert versions == {"3.6.0"}
    assert names == {kernel, "activation_grad_kernel", "sum_rows_kernel"}
