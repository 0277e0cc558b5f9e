"""Signals at every point of a run: its status, and a resumed run that ends as one that nothing stopped."""

import signal
import sys

import pytest

import DR_training
from datasets import frame_cache
from tests.support.samples import SAMPLES, load, save
from tests.support.training import arguments, same, weights
from utils.common.signals import end_signals_as_exceptions
from utils.runtime.program_end import user_errors_end_the_program
from utils.training import data, run_log, stage_files, step_numbers, validation

pytestmark = pytest.mark.slow

# Where the signal comes, before the function is called for the so-manieth time.
POINTS = [
    (DR_training, "find_data", 1),
    (frame_cache.FrameCache, "build", 1),
    (DR_training, "make_stage", 1),
    (data, "TrainingPatches", 1),
    (stage_files.StageFiles, "resume", 1),
    (run_log, "RunLog", 1),
    (stage_files.StageFiles, "save_state", 1),
    (data.TrainingData, "epoch", 1),
    (DR_training, "training_step", 1),
    (step_numbers.StepReader, "add", 2),
    (run_log.RunLog, "step", 2),
    (stage_files, "save_network", 1),
    (run_log.RunLog, "epoch", 1),
    (DR_training, "validate", 1),
    (validation, "decode", 2),
    (stage_files.StageFiles, "keep_best", 1),
    (stage_files.StageFiles, "finish", 1),
    (run_log.RunLog, "close", 1),
]


@pytest.fixture(scope="module")
def small_pairs(tmp_path_factory):
    """Two small real pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    for side in ("blur", "sharp"):
        (file,) = SAMPLES.glob(f"train/*/{side}/000047.png")
        for i in range(2):
            save(folder / side / f"{i}.png", load(file)[100:140, 100 * i : 100 * i + 48])
    return str(folder)


def run(folder, images, *more):
    """Run the script in this process, and return its status."""
    paths = ("--cache_dir", str(folder / "cache"), "--valset_dir", images, "--val_every", "1")
    more = ("--stage", "deblur", "--n_epochs", "2", "--batch_size", "1", *paths, *more)
    options = arguments(folder, *more, trainset=(images,))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` takes away
    try:
        with user_errors_end_the_program(), end_signals_as_exceptions():
            DR_training.main(DR_training.parse_args(options))
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_pairs):
    """The weights of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, small_pairs) == 0
    return weights(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("point", POINTS, ids=[f"{name}-{times}" for _, name, times in POINTS])
def test_a_signal_ends_a_run_that_can_be_resumed(tmp_path, monkeypatch, capsys, small_pairs, whole, point):
    owner, name, times = point
    original, calls = getattr(owner, name), []
    number, status = ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129))[POINTS.index(point) % 3]

    def signalled(*given, **named):
        calls.append(name)
        if len(calls) == times:
            signal.raise_signal(number)
        return original(*given, **named)

    monkeypatch.setattr(owner, name, signalled)
    found = run(tmp_path, small_pairs)
    monkeypatch.undo()
    assert len(calls) >= times, "the point was never reached"
    assert found == status  # also once the stage is over: another may follow
    line = {130: "interrupted", 143: "terminated", 129: "hung up"}[found]
    assert line in capsys.readouterr().err
    assert run(tmp_path, small_pairs, "--resume", "auto") == 0
    assert same(weights(tmp_path), whole)
