"""Work on a stream of items with reading before it and writing after it, in threads, while it goes on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Worked = TypeVar("Worked")
Stored = TypeVar("Stored")


def run_pipeline(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    work: Callable[[Item, Loaded], Worked],
    store: Callable[[Item, Loaded, Worked], Stored],
    *,
    threads: int,
    size: Callable[[Item], int],
    budget: int,
    stop: Callable[[], object] = lambda: False,
) -> Iterator[tuple[Item, Stored]]:
    """Yield each item with what `store` returned for it, in the items' order.

    Args:
        items: taken at most two a thread ahead of the work, fewer where the budget allows no more.
        load: reads an item, in one of the threads.
        work: is called in the thread of the caller, for one item after the other.
        store: finishes an item, in one of the threads.
        threads: that load, and as many that store.
        size: of an item, in the unit of `budget`.
        budget: what the items between loading and the end of storing may add up to; a larger item goes alone.
        stop: once it is true no item is worked on any more; those that were are stored and yielded.

    Raises:
        whatever one of the functions raises, at once; what other threads have begun is finished before.
    """
    items = iter(items)
    loading: deque[tuple[Item, Future[Loaded]]] = deque()
    storing: deque[tuple[Item, Future[Stored]]] = deque()
    waiting = next(items, None)
    used = 0

    def has_room(item: Item) -> bool:
        # Loading further ahead would but take the processors from the work.
        return len(loading) < 2 * threads and (not used or used + size(item) <= budget)

    readers, writers = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)
    try:
        while waiting is not None or loading or storing:
            if stop():
                waiting = None
                for _, future in loading:
                    future.cancel()
                loading.clear()
            while waiting is not None and has_room(waiting):
                used += size(waiting)
                loading.append((waiting, readers.submit(load, waiting)))
                waiting = next(items, None)
            if loading:
                item, future = loading.popleft()
                loaded = future.result()
                storing.append((item, writers.submit(store, item, loaded, work(item, loaded))))
                del loaded, future  # the store's to keep, or to let go
            while storing and (storing[0][1].done() or not loading):
                item, stored = storing.popleft()
                yield item, stored.result()
                used -= size(item)
    finally:
        for pool in (readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)
