"""Numbers that are read a step late: logged in their order, and without other ranks where one rank reads ahead."""

import math

import pytest
import torch

from utils.runtime.distributed import DistributedContext
from utils.training.nonfinite_guard import NonFiniteGuard
from utils.training.run_log import Log
from utils.training.step_numbers import Step, StepReader


class Lines(Log):
    def __init__(self):
        self.lines = []

    def step(self, step, losses, norm, lr):
        self.lines.append((step, losses["total"], norm))

    def skipped(self, text, lr):
        self.lines.append(text)


@pytest.fixture
def reader(monkeypatch):
    """A reader as on CUDA, which counts how often all ranks have to answer."""
    reader = StepReader(("total",), NonFiniteGuard(3), DistributedContext(torch.device("cpu")))
    reader._late = 1
    reader.asked = []
    monkeypatch.setattr(DistributedContext, "gather", lambda self, value: reader.asked.append(value) or [value])
    return reader


def add(reader, log, number, loss=1.0, stop=False):
    step = Step(number, 0.1, [f"{number}.png"], [])
    return reader.add(step, torch.tensor([loss, *reader.notes(stop, []), 2.0]), log)


def test_a_step_is_logged_when_the_next_one_is_launched(reader):
    log = Lines()
    assert not add(reader, log, 1, stop=True)
    assert log.lines == []
    assert add(reader, log, 2)  # the first one's request
    assert log.lines == [(1, 1.0, 2.0)]
    assert not reader.read_all(log)
    assert [step for step, *_ in log.lines] == [1, 2]


def test_reading_ahead_asks_no_other_rank(reader):
    log = Lines()
    add(reader, log, 1)
    assert reader.read_ahead(log)
    assert log.lines == [(1, 1.0, 2.0)]
    for number, options in ((2, {"loss": math.nan}), (3, {"stop": True})):
        add(reader, log, number, **options)
        before = len(reader.asked)
        assert not reader.read_ahead(log)  # it waits for all ranks
        assert len(reader.asked) == before
        reader.read_all(log)
    assert len(reader.asked) == 1  # for the files of the step that is not finite
    assert reader.read_ahead(log)  # the step after it is finite
