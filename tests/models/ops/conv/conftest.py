"""Fixtures that count what the launches of the convolutions' folder launch."""

import pytest

from models.ops.conv import gluon_launch


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels, as they are launched; none of them runs. There are two programs."""
    from models.ops.conv import triton_launch  # imports Triton, which is optional

    names = []
    monkeypatch.setattr(gluon_launch, "_programs", lambda device: 2)
    for module in (gluon_launch, triton_launch):
        monkeypatch.setattr(module, "launcher", lambda kernel, grid: lambda *_, **__: names.append(kernel.__name__))
    return names


@pytest.fixture
def counted(monkeypatch):
    """Return a function that sets the number of programs, and the grids with which the kernel has been launched."""
    grids, launcher = [], gluon_launch.launcher

    def count(kernel, grid):
        grids.append((kernel.__name__, *grid))
        return launcher(kernel, grid)

    monkeypatch.setattr(gluon_launch, "launcher", count)
    return lambda programs: programs and monkeypatch.setattr(gluon_launch, "_programs", lambda device: programs), grids
