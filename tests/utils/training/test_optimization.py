"""Single steps: losses and gradients that are not finite, clipping, averages, random states that come back."""

import math

import pytest
import torch

from DR_training import training_step
from utils.runtime.flat_parameters import FlatParameters
from utils.training.optimization import Adam, OptimizationSettings, TrainingState, WeightAverage
from utils.training.stage import StepOutput


class Sum(torch.nn.Module):
    """A stage of which the loss is the sum of a linear layer's output, plus a constant."""

    parts = ()

    def __init__(self, value=0.0):
        super().__init__()
        self.network, self.value = torch.nn.Linear(2, 2), value

    def forward(self, batch):
        image = self.network(batch["blurry"])
        return StepOutput(image.sum() + self.value, {}, image)


def step(stage, training, images):
    return training_step(stage, training, weight=torch.tensor(1.0), notes=torch.zeros(2), blurry=images)[1]


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_an_infinite_loss_with_a_finite_gradient_changes_nothing(value, ema_decay):
    stage = Sum(value)
    training, before = (
        TrainingState(stage.network, 1e-2, OptimizationSettings(ema_decay=ema_decay)),
        stage.network.weight.clone(),
    )
    assert not step(stage, training, torch.ones(1, 2))[-1].isfinite()
    assert torch.equal(stage.network.weight, before)
    assert torch.equal(training.result.weight, before)
    if ema_decay:
        assert training.average.n_averaged == 0
    stage.value = 0.0
    assert step(stage, training, torch.ones(1, 2)).isfinite().all()
    assert not torch.equal(stage.network.weight, before)


def test_gradients_are_clipped_to_the_norm_and_reported_as_they_were():
    for limit, expected in ((None, math.sqrt(4 * 9 + 2)), (0.5, 0.5)):
        stage = Sum()
        training = TrainingState(stage.network, 1e-2, OptimizationSettings(clip_grad=limit))
        norm = step(stage, training, torch.full((1, 2), 3.0))[-1]
        assert norm.item() == pytest.approx(math.sqrt(4 * 9 + 2))
        assert training.flat.whole.grad.norm().item() == pytest.approx(expected, rel=1e-4)


def test_steps_and_state_are_those_of_pytorchs_adam():
    ours, theirs = (torch.nn.Linear(2, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = Adam(ours.parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), 1e-2)
    for number in range(3):
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            network(torch.full((1, 2), number + 1.0)).square().sum().backward()
            optimizer.step()
        assert torch.equal(ours.weight, theirs.weight)
    assert all(parameter.is_leaf for parameter in ours.parameters())
    state, expected = (each.state_dict() for each in optimizers)
    torch.testing.assert_close(state, expected, atol=0, rtol=0)
    optimizers[0].load_state_dict(expected)
    torch.testing.assert_close(optimizers[0].state_dict(), expected, atol=0, rtol=0)


def test_the_average_forgets_sooner_early_on():
    network = torch.nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(network, FlatParameters(network).whole.detach(), 0.5), None
    for count, value in enumerate((1.0, 2.0, 5.0, 3.0)):
        network.weight.data.fill_(value)
        average.update(torch.tensor(True))
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected)


def test_every_random_state_comes_back():
    import random as python_random

    import numpy as np

    training = TrainingState(torch.nn.Linear(2, 2), 1e-3)
    state = training.to_file()
    first = [python_random.random(), np.random.rand(), torch.rand(1).item()]
    training.restore(state)
    assert [python_random.random(), np.random.rand(), torch.rand(1).item()] == first


def test_each_parameter_has_a_counter_of_steps_of_its_own_in_a_state():
    """An optimizer of many tensors counts in place: that of earlier versions, which resumes such a state, too."""
    stage = Sum()
    training = TrainingState(stage.network, 1e-2)
    step(stage, training, torch.ones(1, 2))
    counters = [each["step"] for each in training.to_file()["optimizer"].values()]
    assert len({counter.data_ptr() for counter in counters}) == len(counters) == 2
