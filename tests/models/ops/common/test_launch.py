"""Where kernels in Gluon run, and the share of memory that a kernel leaves to L1."""

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from models.ops.back_ends import fused_problem
from models.ops.common import launch
from models.ops.common.launch import limit_shared_memory

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
