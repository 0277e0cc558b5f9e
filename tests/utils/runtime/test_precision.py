"""bf16 against fp32: how far the outputs are apart, and that training takes the same course."""

import numpy as np
import pytest
import torch

import DR_training
from models import DeblurringNet, ReblurringNet
from models.released_names import DEBLURRING_KEY, REBLURRING_KEY, from_released
from tests.support.samples import SAMPLES
from tests.support.training import train, values
from utils.common.errors import UserError
from utils.images.codecs import read_image
from utils.inference.evaluation import restore
from utils.metrics.numpy_metrics import psnr, psnr_float
from utils.runtime.precision import autocast, set_precision

CPU = torch.device("cpu")


def psnr_between(a, b):
    """Return the PSNR of two batches in [-1, 1] in dB."""
    return 10 * np.log10(4 / ((a - b) ** 2).mean().item())


@pytest.mark.slow
def test_bf16_outputs_are_within_50_db_with_the_reference_weights(golden, released_weights, aspdc_op):
    arrays, seed = golden
    deblurring, reblurring = DeblurringNet(deform_op=aspdc_op), ReblurringNet()
    deblurring.load_state_dict(from_released(released_weights("deblurring", seed), DEBLURRING_KEY))
    reblurring.load_state_dict(from_released(released_weights("reblurring", seed), REBLURRING_KEY))
    with torch.no_grad(), autocast("bf16", CPU):
        deblurred, reblurred = deblurring(arrays["blurry"]), reblurring(arrays["blurry"], arrays["sharp"])
    assert deblurred.dtype == torch.float32  # the image itself is never rounded
    assert psnr_between(deblurred, arrays["deblurred_aligned"]) > 50
    assert psnr_between(reblurred.float(), arrays["reblurred_from_sharp"]) > 50


@pytest.mark.slow
def test_bf16_changes_no_score_of_a_real_pair():
    torch.manual_seed(0)
    network = DeblurringNet(8)
    blurry, sharp = (
        read_image(SAMPLES / "test" / "GOPR0881_11_01" / side / "000203.png") for side in ("blur", "sharp")
    )
    exact, short = (restore(network, blurry, CPU, precision) for precision in ("fp32", "bf16"))
    assert psnr_float(short, exact) > 50
    assert psnr(short, sharp) == pytest.approx(psnr(exact, sharp), abs=0.02)
    assert not np.array_equal(short, exact)


@pytest.mark.slow
def test_bf16_trains_on_every_back_end(tmp_path, aspdc_op):
    train(tmp_path, "--stage", "deblur", "--max_steps", "1", "--precision", "bf16", "--deform_op", aspdc_op)


@pytest.mark.slow
def test_training_in_bf16_takes_the_same_course(tmp_path, small_networks):
    losses = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        train(folder, "--stage", "finetune", "--max_steps", "30", "--lr", "3e-4", "--precision", precision,
              "--deblurring_weights", str(small_networks / "DeblurringNet_NF.pth"),
              "--reblurring_weights", str(small_networks / "ReBlurringNet.pth"))  # fmt: skip
        losses[precision] = np.mean(values(folder / "log", "finetune", "loss/total")[-10:])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert DR_training.parse_args([]).precision == "fp32"


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_formats_of_the_gpu_are_refused_on_the_cpu(precision):
    with pytest.raises(UserError, match=f"--precision {precision} needs a CUDA device, this run is on cpu"):
        set_precision(precision, CPU)


def test_fp32_allows_no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    set_precision("fp32", CPU)
    assert not torch.backends.cudnn.allow_tf32
    with autocast("fp32", CPU):
        assert not torch.is_autocast_enabled("cpu")
    with autocast("bf16", CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
