"""Preparing the next item while the GPU computes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Source = TypeVar("Source")
Prepared = TypeVar("Prepared")


class Prefetch(Generic[Source, Prepared]):
    """An iterator over prepared items; `prepare_next` prepares one in advance.

    Args:
        source: the items.
        prepare: prepares one.
    """

    def __init__(self, source: Iterable[Source], prepare: Callable[[Source], Prepared]) -> None:
        self._source, self._prepare = iter(source), prepare
        self._held: list[Prepared] = []
        self._ended = False
        self._error: Exception | None = None

    def prepare_next(self) -> None:
        """Prepare the next item if there is one; `__next__` raises an error of this."""
        if self._held or self._ended:
            return
        try:
            self._held.append(self._prepare(next(self._source)))
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._ended, self._error = True, error

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        """Return the next item.

        Raises:
            whatever reading or preparing it raised.
        """
        self.prepare_next()
        if self._error is not None:
            raise self._error
        if self._ended:
            raise StopIteration
        return self._held.pop()
