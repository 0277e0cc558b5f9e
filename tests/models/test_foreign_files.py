"""Networks that other programs saved: our names or the authors', in any of the usual places and behind prefixes."""

import pytest
import safetensors.torch
import torch

from models import DeblurringNet, ReblurringNet
from models.checkpoint import CheckpointError, load_deblurring_net, load_reblurring_net
from models.released_names import DEBLURRING_KEY, REBLURRING_KEY

PLACES = {
    "": lambda state: state,
    "params_ema": lambda state: {"params": {"other": torch.zeros(1)}, "params_ema": state},
    "params": lambda state: {"params": state},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "generator": lambda state: {"generator": state, "optimizer": {"state": {}, "lr": 0.1}},
    "model.state_dict": lambda state: {"model": {"state_dict": state}},
}
PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "network.", "generator.", "D.")


def load(path, kind=DeblurringNet):
    """Return the network and the lines that loading it logged."""
    lines = []
    return (load_deblurring_net if kind is DeblurringNet else load_reblurring_net)(path, log=lines.append), lines


def assert_same(network, other):
    assert network.arguments == other.arguments
    for name, tensor in other.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


def test_our_names_without_a_record_are_aligned(tmp_path):
    network, path = DeblurringNet(4), tmp_path / "D.pth"
    torch.save({DEBLURRING_KEY: network.state_dict()}, path)
    loaded, lines = load(path)
    assert_same(loaded, network)
    assert lines == [f"{path}: no record of its training: module 0 is read as aligned"]
    assert load_deblurring_net(path, modulation="released", log=lines.append).arguments["modulation"] == "released"
    assert len(lines) == 1


def test_the_authors_names_are_released_without_a_line(tmp_path, released_weights):
    torch.save({"epoch": 1, DEBLURRING_KEY: released_weights("deblurring", 0)}, tmp_path / "D.pth")
    torch.save({REBLURRING_KEY: released_weights("reblurring", 0)}, tmp_path / "R.pth")
    deblurring, lines = load(tmp_path / "D.pth")
    reblurring, more_lines = load(tmp_path / "R.pth", ReblurringNet)
    assert deblurring.arguments == {"width": 32, "modulation": "released"}
    assert reblurring.arguments == ReblurringNet().arguments
    assert lines + more_lines == []


@pytest.mark.parametrize("kind", [DeblurringNet, ReblurringNet])
@pytest.mark.parametrize("place", PLACES)
def test_state_dicts_in_other_places(tmp_path, kind, place):
    network = kind(4)
    torch.save(PLACES[place](network.state_dict()), tmp_path / "x.pth")
    loaded, (line,) = load(tmp_path / "x.pth", kind)
    assert_same(loaded, network)
    assert (f"state dict in {place}" if place else "a state dict alone") in line
    assert ("aligned" in line) == (kind is DeblurringNet)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(tmp_path, prefix, released_weights):
    network, path = DeblurringNet(4), tmp_path / "x.pth"
    for key in (DEBLURRING_KEY, "state_dict"):
        torch.save({key: {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}}, path)
        loaded, (line,) = load(path)
        assert_same(loaded, network)
        assert f"names without their {prefix}" in line
    torch.save({f"{prefix}{name}": each for name, each in released_weights("deblurring", 0).items()}, path)
    assert load(path)[0].arguments["modulation"] == "released"


def test_pytorchs_average_of_a_network(tmp_path):
    network = DeblurringNet(4)
    torch.save(torch.optim.swa_utils.AveragedModel(network).state_dict(), tmp_path / "x.pth")  # it has a counter
    assert_same(load(tmp_path / "x.pth")[0], network)


def test_safetensors_of_others(tmp_path):
    network = DeblurringNet(4)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "x.safetensors")
    loaded, (line,) = load(tmp_path / "x.safetensors")
    assert_same(loaded, network)
    assert "a state dict alone; no record" in line
    content = (tmp_path / "x.safetensors").read_bytes()
    for damaged in (b"", content[:7], content[:-1], b"\xff" * 100):
        (tmp_path / "x.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"x\.safetensors is truncated or damaged"):
            load(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "y.safetensors")


def test_other_networks_are_refused(tmp_path):
    torch.save({"generator": DeblurringNet(4).state_dict(), "critic": {"weight": torch.zeros(1)}}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"two.pth is not a checkpoint of ASPDC: .* found critic, generator"):
        load(tmp_path / "two.pth")
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=r"does not fit the deblurring network: .*2 not part of it \(weight, bias\)"
    ):
        load(tmp_path / "x.pth")
    torch.save(ReblurringNet(4).state_dict(), tmp_path / "R.pth")
    with pytest.raises(CheckpointError, match=r"R.pth does not fit the deblurring network: .*another network"):
        load(tmp_path / "R.pth")
