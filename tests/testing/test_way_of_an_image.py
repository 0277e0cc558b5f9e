"""What an image goes through on its way: files that are opened, functions between the script and the network."""

import sys
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

import D_testing
import DR_training
from models import DeblurringNet
from tests.support.samples import ROOT, save
from tests.support.training import arguments
from utils.images import codecs

_listeners = []
sys.addaudithook(lambda event, given: event == "open" and [listen(str(given[0])) for listen in _listeners])


@contextmanager
def opened():
    """Yield how often each file is opened inside the block, by its resolved path."""
    counts = Counter()
    _listeners.append(lambda name: counts.update([str(Path(name).resolve())]))
    try:
        yield counts
    finally:
        _listeners.clear()


@pytest.fixture
def frames(monkeypatch):
    """How many functions of the project stand between a script's `main` and the forward of the network."""
    found = []
    forward = DeblurringNet.forward

    def counted(self, *args):
        ours = [frame for frame in traceback.extract_stack()[:-1] if is_ours(frame.filename)]
        names = [frame.name for frame in ours]
        found.append(names[len(names) - names[::-1].index("main") :])
        return forward(self, *args)

    def is_ours(name):
        path = Path(name)
        return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] not in ("tests", ".venv")

    monkeypatch.setattr(DeblurringNet, "forward", counted)
    return found


def restore(source, out, networks):
    arguments = ["--testset_dir", str(source), "--save_dir", str(out), "--device", "cpu", "--num_workers", "1"]
    D_testing.main(D_testing.parse_args([*arguments, "--weights", str(networks / "DeblurringNet_FT.pth")]))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_file_is_opened_once_to_learn_what_it_is_and_once_to_decode_it(tmp_path, small_networks, name):
    codecs._read_header.cache_clear()
    for side in ("blur", "sharp"):
        save(tmp_path / "pairs" / side / name, size=(48, 32))
    save(tmp_path / "photos" / name, size=(48, 32))
    for source, sides in (("pairs", ("blur", "sharp")), ("photos", ("",))):
        with opened() as counts:
            restore(tmp_path / source, tmp_path / "out" / source, small_networks)
        for side in sides:
            # A TIFF is decoded once more, for the page: browsers do not show it.
            allowed = 3 if name == "a.tif" else 2
            assert 1 <= counts[str((tmp_path / source / side / name).resolve())] <= allowed, (source, side)


def test_few_functions_stand_between_the_testing_script_and_the_network(tmp_path, small_networks, frames):
    save(tmp_path / "photos" / "a.png", size=(48, 32))
    restore(tmp_path / "photos", tmp_path / "out", small_networks)
    assert frames == [["restore_set", "restore", "start", "_restore", "start_restoring"]]


def test_few_functions_stand_between_the_training_script_and_the_network(tmp_path, frames):
    more = ("--max_steps", "1", "--num_workers", "0")
    DR_training.main(DR_training.parse_args(arguments(tmp_path, "--stage", "deblur", *more)))
    assert frames == [["train_stage", "training_step", "forward"]]
