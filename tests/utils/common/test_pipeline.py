"""Items that are loaded, worked on and stored beside one another: in order, within a budget, to the last."""

import threading
import time

import pytest

from utils.common.pipeline import run_pipeline


def test_results_come_in_order_and_no_more_is_under_way_than_allowed():
    sizes = [1, 3, 9, 2, 2, 1, 1, 4, 8, 1]
    under_way, most, lock = 0, 0, threading.Lock()

    def load_item(item):
        nonlocal under_way, most
        with lock:
            under_way += sizes[item]
            if under_way > sizes[item]:
                most = max(most, under_way)
        time.sleep(0.002 * (item % 3))
        return item * 10

    def store(item, loaded, worked):
        nonlocal under_way
        time.sleep(0.003 * ((item + 1) % 3))
        with lock:
            under_way -= sizes[item]
        return item, loaded, worked

    caller = threading.get_ident()

    def work(item, loaded):
        assert threading.get_ident() == caller
        return loaded + 1

    found = list(run_pipeline(range(10), load_item, work, store, threads=3, size=lambda item: sizes[item], budget=5))
    assert found == [(i, (i, i * 10, i * 10 + 1)) for i in range(10)]
    assert 3 < most <= 5  # several at a time


def test_loading_goes_no_further_ahead_than_its_threads_need():
    taken, ahead = [], []

    def items():
        for item in range(50):
            taken.append(item)
            yield item

    def work(item, _loaded):
        ahead.append(len(taken) - item)

    list(run_pipeline(items(), lambda item: item, work, lambda *_: None, threads=3, size=lambda _: 1, budget=1000))
    assert 3 < max(ahead) <= 2 * 3 + 1


def test_what_was_worked_on_is_stored_when_it_stops():
    worked, stored = [], []

    def work(item, loaded):
        worked.append(item)

    steps = run_pipeline(
        range(100), lambda item: item, work, lambda item, *_: stored.append(item) or time.sleep(0.02),
        threads=2, size=lambda _: 1, budget=9, stop=lambda: len(worked) >= 4,
    )  # fmt: skip
    assert [item for item, _ in steps] == sorted(stored) == worked == [0, 1, 2, 3]


@pytest.mark.parametrize("broken", ["load", "work", "store"])
def test_an_error_ends_the_rest(broken):
    begun = []

    def step(name):
        def run(item, *_):
            begun.append((name, item))
            if name == broken and item == 2:
                raise OSError("disk full")

        return run

    steps = run_pipeline(range(100), step("load"), step("work"), step("store"), threads=2, size=lambda _: 1, budget=6)
    with pytest.raises(OSError, match="disk full"):
        list(steps)
    assert len(begun) < 60
