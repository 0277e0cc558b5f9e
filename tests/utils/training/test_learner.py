"""Single steps: losses and gradients that are not finite, clipping, random states that come back."""

import math

import pytest
import torch

from utils.runtime.distributed import DistributedContext
from utils.training.learner import Learner

CPU = DistributedContext(torch.device("cpu"))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_infinite_loss_with_a_finite_gradient_changes_nothing(value):
    layer = torch.nn.Linear(2, 2)
    learner, before = Learner(layer, 1e-2, CPU), layer.weight.clone()
    norm = learner.step([torch.ones(1, 2)], lambda network, x: network(x).sum() + value)
    assert not norm.isfinite()
    assert torch.equal(layer.weight, before)
    assert learner.step([torch.ones(1, 2)], lambda network, x: network(x).sum()).isfinite()
    assert not torch.equal(layer.weight, before)


def test_gradients_are_clipped_to_the_norm_and_reported_as_they_were():
    for limit, expected in ((None, math.sqrt(4 * 9 + 2)), (0.5, 0.5)):
        layer = torch.nn.Linear(2, 2)
        learner = Learner(layer, 1e-2, CPU, clip_grad=limit)
        norm = learner.step([torch.full((1, 2), 3.0)], lambda network, x: network(x).sum())
        assert norm.item() == pytest.approx(math.sqrt(4 * 9 + 2))
        grads = torch.cat([parameter.grad.flatten() for parameter in layer.parameters()])
        assert grads.norm().item() == pytest.approx(expected, rel=1e-4)


def test_every_random_state_comes_back():
    import random as python_random

    import numpy as np

    learner = Learner(torch.nn.Linear(2, 2), 1e-3, DistributedContext(torch.device("cpu")))
    state = learner.state()
    first = [python_random.random(), np.random.rand(), torch.rand(1).item()]
    learner.restore(state)
    assert [python_random.random(), np.random.rand(), torch.rand(1).item()] == first
