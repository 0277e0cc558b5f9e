"""Batches that are prepared ahead."""

import pytest

from utils.training.prefetch import Prefetch


def test_an_error_while_preparing_comes_with_the_item_it_is_about():
    def prepare(item):
        if item == 2:
            raise OSError("broken")
        return 10 * item

    items = Prefetch(iter(range(5)), prepare)
    assert next(items) == 0
    assert next(items) == 10
    items.prepare_next()  # meets the error while item 1 is in use
    items.prepare_next()  # and changes nothing when called again
    with pytest.raises(OSError, match="broken"):
        next(items)
    assert list(Prefetch(range(3), str)) == ["0", "1", "2"]
