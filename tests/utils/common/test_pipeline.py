"""Items that are read, processed and written in parallel: in order, within a budget, to the last."""

import threading
import time

import pytest

from utils.common.pipeline import Pipeline


def run(pipeline, items, read, work, write, stop=lambda: False):
    """Return all items with what became of them, as a script goes through them."""
    found = []
    with pipeline:
        for item, loaded in pipeline.read(items, read):
            if stop():
                break
            worked = work(item, loaded)
            pipeline.write(item, lambda item=item, loaded=loaded, worked=worked: write(item, loaded, worked))
            found += pipeline.written()
        found += pipeline.written(everything=True)
    return found


def test_results_come_in_order_and_no_more_is_under_way_than_allowed():
    sizes = [1, 3, 9, 2, 2, 1, 1, 4, 8, 1]
    under_way, most, lock = 0, 0, threading.Lock()

    def read(item):
        nonlocal under_way, most
        with lock:
            under_way += sizes[item]
            if under_way > sizes[item]:
                most = max(most, under_way)
        time.sleep(0.002 * (item % 3))
        return item * 10

    def write(item, loaded, worked):
        nonlocal under_way
        time.sleep(0.003 * ((item + 1) % 3))
        with lock:
            under_way -= sizes[item]
        return item, loaded, worked

    pipeline = Pipeline(threads=3, size=lambda item: sizes[item], budget=5)
    found = run(pipeline, range(10), read, lambda _, loaded: loaded + 1, write)
    assert found == [(i, (i, i * 10, i * 10 + 1)) for i in range(10)]
    assert 3 < most <= 5  # several at a time


def test_reading_goes_no_further_ahead_than_its_threads_need():
    taken, ahead = [], []

    def items():
        for item in range(50):
            taken.append(item)
            yield item

    pipeline = Pipeline(threads=3, size=lambda _: 1, budget=1000)
    run(pipeline, items(), lambda item: item, lambda item, _: ahead.append(len(taken) - item), lambda *_: None)
    assert 3 < max(ahead) <= 2 * 3 + 1


def test_what_was_worked_on_is_written_when_it_stops():
    worked, written = [], []
    found = run(
        Pipeline(threads=2, size=lambda _: 1, budget=9), range(100), lambda item: item,
        lambda item, _: worked.append(item), lambda item, *_: written.append(item) or time.sleep(0.02),
        stop=lambda: len(worked) >= 4,
    )  # fmt: skip
    assert [item for item, _ in found] == sorted(written) == worked == [0, 1, 2, 3]


def test_a_write_that_ends_while_room_is_looked_for_is_no_error():
    """The reader finds no room, and a moment later nothing that it could wait for."""
    worked, looked, ended = [], threading.Event(), threading.Event()

    def size(item):
        if item == 0 and worked and not looked.is_set():
            looked.set()  # the write ends while its size is added up
            ended.wait(10)
            time.sleep(0.05)
        return 1

    def write(item, *_):
        if item == 0:
            looked.wait(10)
            ended.set()
        return item

    found = run(Pipeline(1, size, budget=1), range(3), lambda item: item, lambda item, _: worked.append(item), write)
    assert [item for item, _ in found] == [0, 1, 2]


@pytest.mark.parametrize("broken", ["read", "work", "write"])
def test_an_error_ends_the_rest(broken):
    begun = []

    def step(name):
        def do(item, *_):
            begun.append((name, item))
            if name == broken and item == 2:
                raise OSError("disk full")

        return do

    pipeline = Pipeline(threads=2, size=lambda _: 1, budget=6)
    with pytest.raises(OSError, match="disk full"):
        run(pipeline, range(100), step("read"), step("work"), step("write"))
    assert len(begun) < 60
