"""Networks' files in half the size: read by the same loaders, refused where fp16 does not reach."""

import pytest
import torch

from models import DeblurringNet
from models.checkpoint import CheckpointError, load_deblurring_net, load_file, load_reblurring_net
from tests.support.samples import SAMPLE, load
from tools.halve import halve, main
from utils.common.errors import UserError
from utils.inference.evaluation import restore
from utils.metrics.numpy_metrics import psnr_float
from utils.training.network_files import save_network

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_loaders_read_it_and_it_restores_the_same(tmp_path, small_networks, capsys):
    source, target = small_networks / "DeblurringNet_FT.pth", tmp_path / "half.pth"
    main([str(source), str(target)])
    assert target.stat().st_size < 0.6 * source.stat().st_size
    assert "no tensor changed by more than" in capsys.readouterr().out
    network = load_deblurring_net(target)
    assert all(tensor.dtype == torch.float32 for tensor in network.state_dict().values())
    image = load(SAMPLE)[:64, :96]
    exact = restore(load_deblurring_net(source), image, CPU)
    assert psnr_float(restore(network, image, CPU), exact) > 60
    assert {name: load_file(target)[name] for name in ("stage", "epoch", "arguments")} == {
        name: load_file(source)[name] for name in ("stage", "epoch", "arguments")
    }
    assert halve(small_networks / "ReBlurringNet.pth", tmp_path / "reblurring.pth") < 2**-10
    load_reblurring_net(tmp_path / "reblurring.pth")


def test_what_cannot_be_halved_is_refused(tmp_path, small_networks):
    source = small_networks / "DeblurringNet_FT.pth"
    halve(source, tmp_path / "half.pth")
    with pytest.raises(UserError, match="exists already"):
        halve(source, tmp_path / "half.pth")
    network = DeblurringNet(4)
    with torch.no_grad():
        network.fusion[0].bias[0] = 1e6
    save_network(tmp_path / "large.pth", network, "deblur", 1)
    with pytest.raises(CheckpointError, match="1 tensors are not finite"):
        halve(tmp_path / "large.pth", tmp_path / "other.pth")
    assert not (tmp_path / "other.pth").exists()
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="is not a checkpoint of ASPDC"):
        halve(tmp_path / "a.pth", tmp_path / "other.pth")
