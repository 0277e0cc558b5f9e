"""Apple's GPUs, of which tests have none: what is chosen, refused and said."""

import pytest
import torch

from utils.common.errors import UserError
from utils.runtime.device import pick_deform_op, pick_device

MPS = torch.device("mps")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="here is one")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"--device mps is not available \(PyTorch finds no GPU of Apple's here\)"):
        pick_device("mps")


def test_deformable_convolutions_are_torchvisions_and_a_line_says_so(capsys):
    assert pick_deform_op("auto", MPS, 32, "fp32", training=False) == "torchvision"
    reason = "the fused operation runs on the CPU and on CUDA, not on mps"
    assert capsys.readouterr().out == f"deformable convolutions by torchvision, not fused: {reason}\n"
    for name in ("fused", "mmcv"):
        with pytest.raises(UserError, match="runs on the CPU and on CUDA, not on mps; or use --deform_op torchvision"):
            pick_deform_op(name, MPS, 32, "fp32", training=False)


def test_training_needs_the_fallback(monkeypatch, capsys):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    assert pick_deform_op("auto", torch.device("cpu"), 32, "fp32", training=True) == "fused"
    with pytest.raises(UserError, match="start with PYTORCH_ENABLE_MPS_FALLBACK=1 in the environment"):
        pick_deform_op("auto", MPS, 32, "fp32", training=True)
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    assert pick_deform_op("auto", MPS, 32, "fp32", training=True) == "torchvision"
    assert "gradients of the deformable convolutions are computed on the CPU" in capsys.readouterr().out
