"""Whole networks and training steps on a GPU, where there is one."""

import numpy as np
import pytest
import torch

from D_testing import restore
from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DeblurringNet, ReblurringNet
from models.fused import fused_problem, use_fused_operations
from tests.helpers import SAMPLE, load
from utils.capture import Captured
from utils.metrics import psnr_float
from utils.precision import autocast, set_precision

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
if problem := fused_problem("cuda"):
    pytest.skip(problem, allow_module_level=True)

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def fused_operations():
    use_fused_operations(True)
    yield
    use_fused_operations(True)


def to_gpu(network):
    return network.to(GPU, memory_format=torch.channels_last)


def networks(width=8, deform_op="fused"):
    torch.manual_seed(0)
    deblurring, reblurring = DeblurringNet(width, deform_op=deform_op), ReblurringNet(width)
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
def test_fused_networks_equal_the_straight_ones_in_fp32(shape):
    blurry, sharp = images(*shape)
    ours = gradients(*networks(), blurry, sharp)
    use_fused_operations(False)
    theirs = gradients(*networks(deform_op="torchvision"), blurry, sharp)
    assert relative(ours[0], theirs[0]) < 1e-5
    together = [torch.cat([each.flatten() for each in every[1:]]) for every in (ours, theirs)]
    assert relative(*together) < 1e-3  # activations next to zero take the other branch of LReLU
    use_fused_operations(True)
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
    recorded = Captured(deblurring, warmup=1)
    large, small = load(SAMPLE)[:120, :160], load(SAMPLE)[50:101, 7:98]
    for image in (large, large, large, small, large, small, small, small, large[::-1].copy()):
        expected = restore(deblurring, image, GPU)
        np.testing.assert_allclose(restore(recorded, image, GPU), expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_recorded_steps_train_as_single_ones_do(precision):
    set_precision(precision, GPU)
    blurry, sharp = images(2, 3, 32, 48)
    ends = []
    for recorded in (False, True):
        deblurring, _ = networks(4)
        optimizer = torch.optim.Adam(
            deblurring.parameters(), torch.tensor(1e-3, device=GPU), fused=True, capturable=True
        )
        scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
        criterion = NormalizedMSELoss().to(GPU)

        def step(blurry, sharp, network=deblurring, optimizer=optimizer, scaler=scaler, criterion=criterion):
            with autocast(precision, GPU):
                loss = criterion(network(blurry), sharp)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        run = Captured(step, warmup=2) if recorded else step
        losses = [run(blurry, sharp).item() for _ in range(4)]
        losses += [run(blurry[:1], sharp[:1]).item()]  # a last, smaller batch
        optimizer.param_groups[0]["lr"].fill_(1e-4)  # as a scheduler does
        losses += [run(blurry, sharp).item() for _ in range(2)]
        ends.append(losses)
    assert ends[0] == pytest.approx(ends[1], rel=1e-4 if precision == "fp32" else 1e-2)
    assert ends[0][3] < ends[0][0]
