"""Ctrl-C once and twice."""

import signal

import pytest

from utils.common.signals import interruption


def test_the_second_ctrl_c_does_not_wait():
    with interruption() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)  # the same one, that torchrun passes on, too
        stop.since -= 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
