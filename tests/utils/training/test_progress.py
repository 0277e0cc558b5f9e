"""When states are due."""

import time
from argparse import ArgumentTypeError

import pytest

import DR_training
from tests.support.training import arguments
from utils.training.progress import Progress, SaveEvery


def test_when_states_are_saved():
    every = SaveEvery.parse("2epochs")
    assert [every.due(Progress(9, epoch, position)) for epoch, position in ((1, 0), (2, 0), (2, 5))] == [
        False,
        True,
        False,
    ]
    every = SaveEvery.parse("500 steps")
    assert [every.due(Progress(step)) for step in (499, 500, 750, 1000)] == [False, True, False, True]
    every = SaveEvery.parse("0.001min")
    assert not every.due(Progress(1))
    time.sleep(0.07)
    assert every.due(Progress(1))
    assert not every.due(Progress(2))


def test_the_last_step():
    """Of epochs of five frames, in batches of two."""
    for done, epochs, last in (
        (Progress(0), 3, 9),
        (Progress(4, epoch=1, samples_seen=2), 3, 9),
        (Progress(4, epoch=1, samples_seen=2), 1, 3),
        (Progress(9, epoch=3), 3, 9),
        (Progress(9, epoch=3), 1, 3),
        (Progress(2, epoch=9), 3, 0),  # of larger batches
    ):
        assert done.last_step(5, 2, epochs, None) == last
        assert done.last_step(5, 2, epochs, 4) == min(last, 4)


@pytest.mark.parametrize("text", ["", "10", "min", "-1min", "0steps", "3 years"])
def test_intervals_that_make_no_sense(tmp_path, text, capsys):
    with pytest.raises(ArgumentTypeError, match="such as 10min, 2epochs or 500steps"):
        SaveEvery.parse(text)
    with pytest.raises(SystemExit):
        DR_training.parse_args(arguments(tmp_path, f"--save_every={text}"))
    assert "--save_every" in capsys.readouterr().err
