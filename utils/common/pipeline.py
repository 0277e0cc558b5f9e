"""Items that threads read in advance and write afterwards, while the main thread works on others."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Written = TypeVar("Written")


class Pipeline(Generic[Item, Read, Written]):
    """Reads items ahead and writes their results behind, both in their order, within a budget.

    As a context it waits at its end for running threads; after an error no further item is started.

    Args:
        threads: that read, and as many that write.
        size: of an item, in the unit of `budget`.
        budget: what the items between reading and the end of writing may add up to; a larger item goes alone.
    """

    def __init__(self, threads: int, size: Callable[[Item], int], budget: int) -> None:
        self._threads, self._size, self._budget = threads, size, budget
        self._readers, self._writers = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)
        self._reading: deque[tuple[Item, Future[Read]]] = deque()
        self._writing: deque[tuple[Item, Future[Written]]] = deque()

    def __enter__(self) -> "Pipeline[Item, Read, Written]":
        return self

    def __exit__(self, *exception: object) -> None:
        for pool in (self._readers, self._writers):
            pool.shutdown(wait=True, cancel_futures=True)

    def read(self, items: Iterable[Item], read: Callable[[Item], Read]) -> Iterator[tuple[Item, Read]]:
        """Yield each item with what `read` returns for it, at most two a thread ahead.

        Each has to be given to `write` before the next one is asked for.
        """
        items = iter(items)
        waiting = next(items, None)
        while waiting is not None or self._reading:
            # Reading further ahead would but take the processors from the work.
            while waiting is not None and len(self._reading) < 2 * self._threads and self._has_room(waiting):
                self._reading.append((waiting, self._readers.submit(read, waiting)))
                waiting = next(items, None)
            if self._reading:
                item, future = self._reading.popleft()
                result = future.result()
                del future  # the caller releases the result
                yield item, result
                del result
            else:  # no room until something is written
                wait([future for _, future in self._writing if not future.done()], return_when=FIRST_COMPLETED)

    def write(self, item: Item, write: Callable[[], Written]) -> None:
        """Let a thread finish an item."""
        self._writing.append((item, self._writers.submit(write)))

    def written(self, everything: bool = False) -> Iterator[tuple[Item, Written]]:
        """Yield the items that are finished with what their `write` returned; at the end, wait for everything."""
        while self._writing and (everything or self._writing[0][1].done()):
            item, future = self._writing.popleft()
            yield item, future.result()

    def _has_room(self, item: Item) -> bool:
        used = sum(self._size(each) for each, _ in self._reading)
        used += sum(self._size(each) for each, future in self._writing if not future.done())
        return not used or used + self._size(item) <= self._budget
