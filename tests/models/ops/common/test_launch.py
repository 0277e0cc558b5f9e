"""Operations as PyTorch has them, where kernels in Gluon run, and the share of memory that a kernel leaves to L1."""

import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from models.ops.back_ends import fused_problem
from models.ops.common import launch
from models.ops.common.launch import limit_shared_memory, operation
from tests.support.samples import ROOT

if problem := fused_problem("fused", "cuda"):
    pytest.skip(problem, allow_module_level=True)

from triton import knobs


@pytest.fixture
def load(monkeypatch):
    """Return what Triton calls when it has loaded a kernel's binary."""
    hook = knobs.runtime.kernel_load_end_hook
    monkeypatch.setattr(hook, "calls", list(hook.calls))
    limit_shared_memory("this_kernel", 43)
    return lambda function, name: hook("module", function, name, {}, "hash")


def test_one_kernel_is_limited(load, monkeypatch):
    driver = Mock(CUfunction=lambda number: f"function {number}")
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=driver))
    load(1, "another_kernel")
    load(2, "this_kernel")
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
    driver.cuFuncSetAttribute.assert_called_once_with("function 2", attribute, 43)


def test_without_bindings_or_driver_nothing_happens(load, monkeypatch):
    absent = Mock()
    absent.cuFuncSetCacheConfig.side_effect = RuntimeError("no driver")
    for bindings in (None, SimpleNamespace(), SimpleNamespace(driver=absent)):
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
        load(2, "this_kernel")
    absent.cuFuncSetCacheConfig.assert_called_once()


@pytest.mark.parametrize(
    ("version", "capability", "expected"),
    [("3.6.0", (9, 0), True), ("3.7.1", (9, 0), True), ("3.8.0", (9, 0), False)]
    + [("3.7.1", other, False) for other in ((8, 0), (8, 9), (10, 0), (12, 0))],
)
def test_gluon_runs_on_hopper_with_versions_that_were_tried(version, capability, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("triton.__version__", version)
    monkeypatch.setattr(launch, "INTERPRET", False)
    assert launch.gluon_runs.__wrapped__("cuda") is expected
    monkeypatch.setattr(launch, "INTERPRET", True)
    assert launch.gluon_runs.__wrapped__("cuda") is False


def test_an_operation_is_called_without_what_compiles():
    script = """
import sys, torch
from models.ops.common.launch import operation
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x
print(operation("double")(double)(torch.ones(1)).item(), "torch._dynamo" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "2.0 False\n", run.stderr


def test_an_operation_compiles_and_has_no_gradient_unless_one_is_registered():
    @operation("triple")
    def triple(x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        triple(x).sum().backward()
    triple.register_fake(torch.empty_like)
    triple.register_autograd(lambda ctx, g: 3 * g)
    compiled = torch.compile(lambda x: triple(x) + 1, backend="aot_eager", fullgraph=True)
    assert compiled(x).tolist() == [4.0, 4.0]
    compiled(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]
