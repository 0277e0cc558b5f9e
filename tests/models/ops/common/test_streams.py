"""Parameters' gradients on a second CUDA stream: the same bits, or an error."""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from DR_training import Deblur, Finetune, Reblur, training_step
from models import DeblurringNet, ReblurringNet
from models.ops.common.streams import parameter_gradients_aside, run_concurrently, run_with_parameter_gradients
from utils.runtime.cuda_graph import CudaGraph
from utils.training import optimization
from utils.training.optimization import OptimizationSettings, TrainingState

STAGES = {
    "reblur": lambda: Reblur(ReblurringNet(16)),  # uses each weight twice
    "deblur": lambda: Deblur(DeblurringNet(32)),
    "finetune": lambda: Finetune(DeblurringNet(32), ReblurringNet(16), 1.0, 0.1),
}


def needs_gpu(test):
    """Mark a test that runs on a GPU alone."""
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test))


CUDA = SimpleNamespace(is_cuda=True, device="cuda")  # in place of a tensor there


class SlowGPU:
    """Two streams on the CPU, of which the second computes when the first one waits, as late as it may."""

    def __init__(self, monkeypatch):
        self.awaited = []  # what the second stream has to do
        self.current = SimpleNamespace(wait_stream=lambda side: self.compute(), wait_event=lambda end: self.compute())
        side = SimpleNamespace(wait_stream=lambda current: None)
        monkeypatch.setattr("models.ops.common.streams._stream", lambda device, purpose: side)
        monkeypatch.setattr("torch.cuda.current_stream", lambda device: self.current)
        monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())
        monkeypatch.setattr("torch.cuda.Event", lambda: SimpleNamespace(record=lambda stream: None))

    def compute(self):
        while self.awaited:
            memory, value = self.awaited.pop()
            memory[:] = value

    def later(self, value):
        """Return a gradient that has this value when it was waited for."""
        memory = np.full(2, np.nan, np.float32)
        self.awaited.append((memory, value))
        return torch.from_numpy(memory)  # autograd keeps what nothing else refers to


class Layer(torch.autograd.Function):
    """x times the sum of all weights."""

    @staticmethod
    def forward(ctx, gpu, x, *weights):
        ctx.gpu = gpu
        ctx.save_for_backward(x, *weights)
        return x * sum(weights)

    @staticmethod
    def backward(ctx, g):
        x, *weights = ctx.saved_tensors
        found, dx = run_with_parameter_gradients(
            lambda: [ctx.gpu.later(each) for each in [(g * x).numpy()] * len(weights)],
            lambda: g * sum(weights),
            CUDA,
            weights,
        )
        return None, dx, *found


def gradients_aside(gpu, uses, plain=()):
    """Return the gradients of twelve weights, of which that of number 2 is frozen, for layers that use these numbers.

    Those that are `plain` are used by an operation of PyTorch, too, of which the gradient comes last.
    """
    weights = [torch.tensor([1.0, 0.5 + i / 8], requires_grad=i != 2) for i in range(12)]
    y = torch.ones(2, requires_grad=True)
    for i in plain:
        y = y * weights[i]
    for use in uses:
        each = [weights[i] for i in use]
        y = y * sum(each) if gpu is None else Layer.apply(gpu, y, *each)
    with nullcontext() if gpu is None else parameter_gradients_aside():
        y.sum().backward()
    return [weight.grad for weight in weights]


@pytest.mark.parametrize(
    "uses",
    [[[i] for i in range(12)], [[0, 2], [1]], [[0], [1], [0]], [[0], [1], [0], [0]], [[0, 1]] * 4, [[2], [2]]],
    ids=["each once", "with a frozen one", "one twice", "one three times", "two four times", "frozen alone"],
)
def test_gradients_are_complete_after_the_scope(monkeypatch, uses):
    expected = gradients_aside(None, uses)
    for mine, exact in zip(gradients_aside(SlowGPU(monkeypatch), uses), expected, strict=True):
        assert (mine is None and exact is None) or torch.equal(mine, exact)


def test_a_gradient_to_which_pytorch_adds_too_early_is_an_error(monkeypatch):
    gpu = SlowGPU(monkeypatch)
    with pytest.raises(RuntimeError, match="of shape .2,. was copied, or added to, while it was computed"):
        gradients_aside(gpu, [[0], [1]], plain=[1])
    assert not gpu.awaited


def test_an_error_in_the_backward_pass_ends_the_scope(monkeypatch):
    gpu, weight = SlowGPU(monkeypatch), torch.ones(2, requires_grad=True)
    weight.register_hook(lambda gradient: 1 / 0)
    with pytest.raises(ZeroDivisionError), parameter_gradients_aside():
        Layer.apply(gpu, torch.ones(2), weight).sum().backward()
    assert not gpu.awaited
    assert gradients_aside(gpu, [[0]])[0] is not None


@pytest.mark.parametrize("scope", [nullcontext, parameter_gradients_aside])
@pytest.mark.parametrize("fails", [0, 1])
def test_work_that_fails_is_waited_for(monkeypatch, scope, fails):
    """A recording cannot end with a stream that was not joined, and then keeps its memory."""
    gpu, weight = SlowGPU(monkeypatch), torch.ones(2, requires_grad=True)

    def work(i):
        gpu.later(np.ones(2))
        if i == fails:
            raise torch.OutOfMemoryError
        return [None]

    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError), scope():
        run_with_parameter_gradients(partial(work, 0), partial(work, 1), CUDA, [weight])
    assert not gpu.awaited
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError):
        run_concurrently(partial(work, 0), partial(work, 1), CUDA)
    assert not gpu.awaited


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def made(stage, precision="bf16", accumulate=1, memory_format=torch.channels_last):
    torch.manual_seed(0)
    stage = STAGES[stage]().to("cuda", memory_format=memory_format)
    return stage, TrainingState(stage.network, 1e-3, OptimizationSettings(precision, accumulate=accumulate))


def batch():
    generator = torch.Generator().manual_seed(0)
    blurry, sharp = (torch.rand(4, 3, 64, 64, generator=generator).cuda() * 2 - 1 for _ in range(2))
    ones = torch.ones(4, device="cuda")
    return {"blurry": blurry, "sharp": sharp, "has_sharp": ones, "weight": ones[0] / 4, "notes": ones[:2]}


def trained(*args, **named):
    """Return all parameters after two steps as usual and two that were recorded."""
    stage, training = made(*args, **named)
    with CudaGraph(partial(training_step, stage, training), 2) as step:
        for _ in range(4):
            step(**batch())
        torch.cuda.synchronize()
    return [parameter.detach().clone() for parameter in stage.network.parameters()]


@needs_gpu
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    "named",
    [{}, {"precision": "fp32"}, {"accumulate": 2}, {"memory_format": torch.contiguous_format}],
    ids=["bf16", "fp32", "accumulate", "contiguous"],
)
@pytest.mark.parametrize("stage", STAGES)
def test_steps_end_in_the_same_bits(stage, named, monkeypatch):
    ours = trained(stage, **named)
    monkeypatch.setattr(optimization, "parameter_gradients_aside", nullcontext)
    for one, other in zip(ours, trained(stage, **named), strict=True):
        assert torch.equal(one, other)


@needs_gpu
def test_a_gradient_that_is_read_too_early_is_an_error():
    stage, training = made("deblur")
    stage.network.head[0].weight.register_hook(torch.clone)
    with pytest.raises(RuntimeError, match="was copied, or added to, while it was computed"):
        training_step(stage, training, **batch())
