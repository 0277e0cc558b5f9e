"""Checkpoints: ours and the released format, and one clear error for each that cannot be used."""

import errno
import pickle
from pathlib import Path

import pytest
import torch

from models import DeblurringNet, ReblurringNet
from models.checkpoint import CheckpointError, load_deblurring_net, load_reblurring_net
from models.released_names import DEBLURRING_KEY, REBLURRING_KEY
from utils.common.errors import UserError
from utils.common.version import __version__
from utils.runtime.flat_parameters import FlatParameters
from utils.training.network_files import save_network


@pytest.fixture
def released_file(tmp_path, released_weights):
    def write(network, key, seed=0, **changes):
        state = released_weights(network, seed)
        state.update(changes)
        path = tmp_path / f"{network}.pth"
        torch.save({"epoch": 1, key: {name: tensor for name, tensor in state.items() if tensor is not None}}, path)
        return path

    return write


@pytest.mark.slow
@pytest.mark.parametrize(("modulation", "expected"), [("auto", "released"), ("aligned", "aligned")])
def test_released_format_gives_the_golden_outputs(golden, released_file, modulation, expected):
    arrays, seed = golden
    deblurring = load_deblurring_net(released_file("deblurring", DEBLURRING_KEY, seed), modulation=modulation)
    reblurring = load_reblurring_net(released_file("reblurring", REBLURRING_KEY, seed))
    assert not deblurring.training
    assert not reblurring.training
    with torch.no_grad():
        deblurred = deblurring(arrays["blurry"])
        reblurred = reblurring(arrays["blurry"], deblurred)
    torch.testing.assert_close(deblurred, arrays[f"deblurred_{expected}"], atol=2e-5, rtol=0)
    torch.testing.assert_close(reblurred, arrays[f"reblurred_{expected}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("modulation", ["aligned", "released"])
def test_ours_come_back_as_they_were(tmp_path, modulation):
    network = DeblurringNet(4, modulation)
    save_network(tmp_path / "new" / "D.pth", network, "deblur", 7)
    loaded = load_deblurring_net(tmp_path / "new" / "D.pth")
    assert loaded.arguments == {"width": 4, "modulation": modulation}
    blurry = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(blurry), network(blurry))
    content = torch.load(tmp_path / "new" / "D.pth", weights_only=True)
    assert (content["stage"], content["epoch"], content["version"]) == ("deblur", 7, __version__)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["D.pth"]  # nothing temporary stays


def test_the_file_of_a_network_that_is_trained_has_its_size(tmp_path):
    """Its parameters are views of one tensor, which must not be saved with each."""
    network = DeblurringNet(4)
    save_network(tmp_path / "plain.pth", network, "deblur", 1)
    FlatParameters(network)
    save_network(tmp_path / "flat.pth", network, "deblur", 1)
    assert (tmp_path / "flat.pth").read_bytes() == (tmp_path / "plain.pth").read_bytes()


def test_ours_hold_the_reblurring_network_too(tmp_path):
    network = ReblurringNet(4)
    save_network(tmp_path / "R.pth", network, "reblur", 1)
    for name, tensor in load_reblurring_net(tmp_path / "R.pth").state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_recorded_reading_can_be_overridden(tmp_path):
    save_network(tmp_path / "D.pth", DeblurringNet(4), "deblur", 1)
    assert load_deblurring_net(tmp_path / "D.pth", modulation="released").arguments["modulation"] == "released"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "D.pth"
    save_network(path, DeblurringNet(4), "deblur", 1)
    before = path.read_bytes()

    def fail(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    full = (
        r"D.pth cannot be written: no space left on the disk \(.*iB free\); make room\. An existing file is unchanged"
    )
    with pytest.raises(UserError, match=full):
        save_network(path, DeblurringNet(4), "deblur", 2)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["D.pth"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "DeblurringNet_FT.pth",
            "does not exist. It holds the network that the finetune stage trains: run `python DR_",
        ),
        (
            "ReBlurringNet.pth",
            "the reblur stage trains.*or name another file: see final_model/README.md",
        ),
        ("other.pth", "other.pth does not exist; expected a checkpoint such as ReBlurringNet.pth"),
    ],
)
def test_missing_file(tmp_path, name, message):
    with pytest.raises(CheckpointError, match=message):
        load_deblurring_net(tmp_path / name)


def test_folder(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder, expected a checkpoint file such as DeblurringNet_FT.pth"):
        load_deblurring_net(tmp_path)
    with pytest.raises(CheckpointError, match="/dev/zero is a device or a pipe, expected a checkpoint file"):
        load_deblurring_net(Path("/dev/zero"))


def test_wrong_network(tmp_path):
    save_network(tmp_path / "R.pth", ReblurringNet(4), "reblur", 1)
    save_network(tmp_path / "D.pth", DeblurringNet(4), "deblur", 1)
    with pytest.raises(
        CheckpointError, match="holds a reblurring network, expected a deblurring network.*load_reblurr"
    ):
        load_deblurring_net(tmp_path / "R.pth")
    with pytest.raises(
        CheckpointError, match="holds a deblurring network, expected a reblurring network.*load_deblurr"
    ):
        load_reblurring_net(tmp_path / "D.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [({"state_dict": {}, "epoch": 1}, "found epoch, state_dict"), ([1, 2], "found list"), ({}, "found ")],
)
def test_wrong_file(tmp_path, content, found):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=f"is not a checkpoint of ASPDC: expected a dict with .*{found}"):
        load_deblurring_net(tmp_path / "x.pth")


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file(tmp_path, kept):
    path = tmp_path / "D.pth"
    save_network(path, DeblurringNet(4), "deblur", 1)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"D.pth.*(is truncated or damaged; copy, download or train it again)"):
        load_deblurring_net(path)


@pytest.mark.parametrize("content", [b"<html>404: no such file</html>", b"\x89PNG\r\n\x1a\n"])
def test_not_a_checkpoint_at_all(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x.pth is not a checkpoint, or it holds Python objects"):
        load_deblurring_net(tmp_path / "x.pth")


class Trap:
    """Unpickling one runs code."""

    def __reduce__(self):
        return (pytest.fail, ("the file's code ran",))


def test_code_in_a_file_never_runs(tmp_path):
    torch.save({DEBLURRING_KEY: {}, "extra": Trap()}, tmp_path / "x.pth", pickle_module=pickle)
    with pytest.raises(CheckpointError, match="never loaded because they could run code"):
        load_deblurring_net(tmp_path / "x.pth")


def test_a_flipped_byte_is_found(tmp_path):
    path = tmp_path / "D.pth"
    save_network(path, DeblurringNet(4), "deblur", 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        CheckpointError, match=r"is truncated or damaged; copy, download or train it again \(checksum of"
    ):
        load_deblurring_net(path)


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    network = DeblurringNet(4)
    save_network(tmp_path / "D.pth", network, "deblur", 1)
    before = (tmp_path / "D.pth").read_bytes()
    with torch.no_grad():
        network.fusion[0].bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"was not written: 1 tensors are not finite \(fusion.0.bias\)"):
        save_network(tmp_path / "D.pth", network, "deblur", 2)
    assert (tmp_path / "D.pth").read_bytes() == before
    torch.save({DEBLURRING_KEY: network.state_dict()}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"holds weights that are not finite \(fusion.0.bias\): its training diver"
    ):
        load_deblurring_net(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arguments": [1]}, "its arguments are no dict"),
        ({"arguments": None}, "its arguments are no dict"),
        ({DEBLURRING_KEY: {"head.0.weight": "text"}}, "holds something other than floating-point tensors"),
        ({DEBLURRING_KEY: {"head.0.weight": torch.zeros(1, dtype=torch.int64)}}, "something other than floating-point"),
    ],
)
def test_files_changed_by_hand(tmp_path, change, message):
    save_network(tmp_path / "D.pth", DeblurringNet(4), "deblur", 1)
    torch.save(torch.load(tmp_path / "D.pth", weights_only=True) | change, tmp_path / "D.pth")
    with pytest.raises(CheckpointError, match=f"D.pth was changed by hand: .*{message}"):
        load_deblurring_net(tmp_path / "D.pth")


def test_layout_in_memory_does_not_show_in_the_file(tmp_path):
    network = DeblurringNet(4)
    save_network(tmp_path / "a.pth", network, "deblur", 1)
    save_network(tmp_path / "b.pth", network.to(memory_format=torch.channels_last), "deblur", 1)
    loaded = torch.load(tmp_path / "b.pth", weights_only=True)[DEBLURRING_KEY]
    assert all(tensor.is_contiguous() for tensor in loaded.values())
    assert (tmp_path / "a.pth").stat().st_size == (tmp_path / "b.pth").stat().st_size


def test_tensors_that_do_not_fit(released_file):
    path = released_file(
        "deblurring",
        DEBLURRING_KEY,
        **{"tail.4.bias": None, "head.9.bias": torch.zeros(1), "head.0.bias": torch.zeros(2)},
    )
    message = (
        r"does not fit the deblurring network: tensors 1 missing \(tail.4.bias\); 1 not part of it \(head.9.bias\); "
        r"1 of another shape \(head.0.bias \(2,\) for \(32,\)\)"
    )
    with pytest.raises(CheckpointError, match=message):
        load_deblurring_net(path)


def test_a_checkpoint_of_an_unknown_architecture(tmp_path):
    save_network(tmp_path / "D.pth", DeblurringNet(4), "deblur", 1)
    content = torch.load(tmp_path / "D.pth", weights_only=True)
    content |= {"version": "9.0", "arguments": {"width": 4, "heads": 8}}
    torch.save(content, tmp_path / "D.pth")
    with pytest.raises(CheckpointError, match=r"written by version 9.0 for a network that this version cannot build"):
        load_deblurring_net(tmp_path / "D.pth")
