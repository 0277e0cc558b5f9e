"""Whole networks and training steps on a GPU, where there is one."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from DR_training import Deblur, training_step
from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DeblurringNet, ReblurringNet, blocks
from tests.support.gpu import GPU_MARKS  # skips this file without a GPU
from tests.support.samples import SAMPLE, load
from utils.inference.evaluation import restore
from utils.inference.restorer import Restorer
from utils.metrics.numpy_metrics import psnr_float
from utils.runtime.cuda_graph import CudaGraph
from utils.runtime.precision import autocast, set_precision
from utils.training.optimization import OptimizationSettings, TrainingState

pytestmark = GPU_MARKS

GPU = torch.device("cuda")


def to_gpu(network):
    return network.to(GPU, memory_format=torch.channels_last)


def networks(width=8, deform_op="fused"):
    torch.manual_seed(0)
    deblurring, reblurring = DeblurringNet(width, deform_op=deform_op), ReblurringNet(width, deform_op)
    return to_gpu(deblurring), to_gpu(reblurring)


def images(*shape, count=2):
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(*shape, generator=generator) * 2 - 1).to(GPU) for _ in range(count)]


def gradients(deblurring, reblurring, blurry, sharp):
    deblurred = deblurring(blurry)
    consistency = to_gpu(ReblurringConsistencyLoss(reblurring))
    loss = NormalizedMSELoss().to(GPU)(deblurred, sharp) + 0.1 * consistency(blurry, deblurred)
    return [deblurred.detach(), *torch.autograd.grad(loss, list(deblurring.parameters()))]


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("shape", [(2, 3, 40, 56), (1, 3, 37, 51)])
def test_fused_networks_equal_the_baseline_in_fp32(shape):
    blurry, sharp = images(*shape)
    ours = gradients(*networks(), blurry, sharp)
    theirs = gradients(*networks(deform_op="torchvision"), blurry, sharp)
    assert relative(ours[0], theirs[0]) < 1e-5
    together = [torch.cat([each.flatten() for each in every[1:]]) for every in (ours, theirs)]
    assert relative(*together) < 1e-3  # activations next to zero take the other branch of LReLU
    with torch.no_grad():  # other kernels run without gradients
        assert relative(networks()[0](blurry), theirs[0]) < 1e-5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bit_types_keep_50_db(precision):
    deblurring, reblurring = networks(32)
    blurry = load(SAMPLE)
    exact = restore(deblurring, blurry, GPU)
    set_precision(precision, GPU)
    assert psnr_float(restore(deblurring, blurry, GPU, precision), exact) > 50
    first, second = images(1, 3, 64, 96)
    with torch.no_grad():
        short = autocast_call(reblurring, precision, first, second)
        set_precision("fp32", GPU)
        assert ((short - reblurring(first, second)) / 2).square().mean().log10() * -10 > 50


def autocast_call(network, precision, *tensors):
    with autocast(precision, GPU):
        return network(*tensors).float()


def test_a_recorded_network_gives_the_same_image_at_every_size():
    deblurring, _ = networks()
    recorded = CudaGraph(deblurring, warmup=1)
    large, small = load(SAMPLE)[:120, :160], load(SAMPLE)[50:101, 7:98]
    for image in (large, large, large, small, large, small, small, small, large[::-1].copy()):
        expected = restore(deblurring, image, GPU)
        np.testing.assert_allclose(restore(recorded, image, GPU), expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_is_its_images(precision):
    deblurring, _ = networks()
    set_precision(precision, GPU)
    picture = load(SAMPLE)
    images = [picture[y : y + 120, 100:261] for y in (0, 100, 200)]
    expected = [restore(deblurring, image, GPU, precision) for image in images]
    with Restorer(deblurring, 8, GPU, precision, recorded=True) as restorer:
        for _ in range(4):  # as usual, then recorded
            for together, alone in zip(restorer(np.stack(images)), expected, strict=True):
                np.testing.assert_allclose(together, alone, atol=1e-5 if precision == "fp32" else 2e-2)
    deblurring.tail[-1].bias.data.zero_()  # nothing of the scope is left
    for together, image in zip(restorer(np.stack(images)), images, strict=True):
        alone = restore(deblurring, image, GPU, precision)
        np.testing.assert_allclose(together, alone, atol=1e-5 if precision == "fp32" else 2e-2)


def test_two_networks_of_different_back_ends(monkeypatch):
    """Of the one that torchvision's operator computes, nothing is computed by the kernels."""
    called = []
    original = blocks.fused_conv
    monkeypatch.setattr(blocks, "fused_conv", lambda *args, **named: called.append(1) or original(*args, **named))
    (blurry,) = images(1, 3, 40, 56, count=1)
    with torch.no_grad():
        fused, plain = networks()[0], networks(deform_op="torchvision")[0]  # the last choice was another one
        for network, kernels in ((fused, True), (plain, False), (fused, True)):
            called.clear()
            network(blurry)
            assert bool(called) is kernels


def test_weights_that_a_recorded_step_changed_are_used():
    blurry, sharp = images(2, 3, 64, 64)
    training, step = training_and_step("fp32", recorded=True)
    network = training.network
    recorded = CudaGraph(network, warmup=1)  # outside any scope: it builds the kernels' weights at each replay
    for _ in range(6):
        step(blurry, sharp)
        with torch.no_grad():
            ours, again = network(blurry), recorded(blurry).clone()
            plain = copy.deepcopy(network)
            plain.deform_op = "torchvision"
            assert relative(ours, plain(blurry)) < 1e-5
            assert relative(again, ours) < 1e-5


def test_a_gpu_with_little_memory_takes_tiles():
    """256 MiB more than the network has: enough for a fifth of the picture at once."""
    deblurring, _ = networks(32)
    picture = np.tile(load(SAMPLE), (2, 2, 1))
    expected = restore(deblurring, picture, GPU)
    torch.cuda.empty_cache()
    lines = []
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        with Restorer(deblurring, 32, GPU, tile="auto", recorded=True, log=lines.append) as restorer:
            restored = restorer(picture)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("continuing with tiles" in line for line in lines)
    assert -10 * np.log10(((restored - expected) ** 2).mean()) > 60


def test_a_recording_that_fails_gives_its_memory_back():
    deblurring, _ = networks()
    (image,) = images(1, 3, 640, 960, count=1)
    total = torch.cuda.get_device_properties(GPU).total_memory
    with torch.inference_mode():
        deblurring(image)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        recorded = CudaGraph(deblurring, warmup=0)
        torch.cuda.set_per_process_memory_fraction((before + 2**26) / total)
        try:
            for _ in range(3):
                with pytest.raises(torch.OutOfMemoryError):
                    recorded(image)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() <= before + 2**21
        recorded(image)


def training_and_step(precision, recorded, clip_grad=None, ema_decay=0.0):
    """Return a training of `deblur`, and a function that takes a step and returns its losses and gradient's norm."""
    stage = Deblur(networks(4)[0]).to(GPU)
    training = TrainingState(stage.network, 1e-3, OptimizationSettings(precision, ema_decay, clip_grad=clip_grad))
    weight = torch.tensor(0.5, device=GPU)  # of two images
    step = partial(training_step, stage, training, weight=weight, notes=weight.new_zeros(2))
    run = CudaGraph(step, warmup=2) if recorded else step
    return training, lambda blurry, sharp: run(blurry=blurry, sharp=sharp)[1]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_recorded_steps_train_as_single_ones_do(precision):
    set_precision(precision, GPU)
    blurry, sharp = images(2, 3, 32, 48)
    ends = []
    for recorded in (False, True):
        training, run = training_and_step(precision, recorded, clip_grad=1.0)
        losses = [run(blurry, sharp)[0].item() for _ in range(4)]
        losses += [run(blurry[:1], sharp[:1])[0].item()]  # a last, smaller batch
        training.set_learning_rate(1e-4)
        losses += [run(blurry, sharp)[0].item() for _ in range(2)]
        ends.append(losses)
    assert ends[0] == pytest.approx(ends[1], rel=1e-4 if precision == "fp32" else 1e-2)
    assert ends[0][3] < ends[0][0]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_step_with_nan_changes_no_weight(recorded):
    blurry, sharp = images(2, 3, 32, 48)
    training, run = training_and_step("bf16", recorded)
    for _ in range(4):
        assert run(blurry, sharp)[-1].isfinite()
    before = [parameter.clone() for parameter in training.network.parameters()]
    assert not run(blurry * float("nan"), sharp)[-1].isfinite()
    assert all(torch.equal(*pair) for pair in zip(before, training.network.parameters(), strict=True))
    assert run(blurry, sharp)[-1].isfinite()
    assert not any(torch.equal(*pair) for pair in zip(before, training.network.parameters(), strict=True))


@pytest.mark.parametrize("recorded", [False, True])
def test_the_average_on_a_gpu_leaves_out_steps_with_nan(recorded):
    blurry, sharp = images(2, 3, 32, 48)
    training, run = training_and_step("fp32", recorded, ema_decay=0.9)
    expected = None
    for i in range(7):
        bad = i == 5
        run(blurry * (float("nan") if bad else 1.0), sharp)
        weight = training.network.tail[-1].weight.detach().clone()
        count = i - (i > 5)
        decay = min(0.9, (1 + count) / (10 + count))
        if not bad:
            expected = weight if expected is None else decay * expected + (1 - decay) * weight
        torch.testing.assert_close(training.result.tail[-1].weight, expected)


def test_a_context_lets_go_of_its_recording():
    (image,) = images(1, 3, 40, 56, count=1)
    network, _ = networks()
    with torch.no_grad(), CudaGraph(network, warmup=1) as recorded:
        for _ in range(3):
            expected = recorded(image).clone()
        graph, _ = recorded._recording
    assert recorded._recording is None
    with pytest.raises(RuntimeError):  # although this test refers to it
        graph.replay()
    with torch.no_grad():
        assert relative(recorded(image), expected) < 1e-6  # as usual, from the beginning
