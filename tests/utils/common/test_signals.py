"""Ctrl-C once and twice, and the loss of the terminal."""

import os
import signal

import pytest

from utils.common.errors import HungUp
from utils.common.signals import end_signals_as_exceptions, interruption


def test_the_second_ctrl_c_does_not_wait():
    with interruption() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)  # the same one, that torchrun passes on, too
        stop.since -= 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(os.name == "nt", reason="has no SIGHUP")
def test_nohup_keeps_what_it_made():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with end_signals_as_exceptions(), interruption() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.requested is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with end_signals_as_exceptions():
            with interruption() as stop:
                signal.raise_signal(signal.SIGHUP)
            assert stop.requested == signal.SIGHUP
            with pytest.raises(HungUp):
                signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
