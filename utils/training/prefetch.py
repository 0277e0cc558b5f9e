"""Getting the next item ready while the GPU is still at work on the one before."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Source = TypeVar("Source")
Prepared = TypeVar("Prepared")


class Prefetch(Generic[Source, Prepared]):
    """An iterator over prepared items, of which `prepare_next` gets one ready before it is asked for.

    Args:
        source: what is prepared.
        prepare: makes an item ready to be used.
    """

    def __init__(self, source: Iterable[Source], prepare: Callable[[Source], Prepared]) -> None:
        self._source, self._prepare = iter(source), prepare
        self._held: list[Prepared] = []
        self._ended = False
        self._error: Exception | None = None

    def prepare_next(self) -> None:
        """Get the next item ready, unless it is or there is none; an error is raised when the item is asked for."""
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
