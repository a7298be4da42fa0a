"""Reading ahead changes when items are read, never which or in what order."""

import threading
from collections.abc import Iterator

import pytest

from cellvim.dataset import prefetched


def test_items_come_in_the_order_of_their_keys_whoever_is_faster() -> None:
    second_is_read = threading.Event()

    def read(key: int) -> int:
        if key == 0:
            assert second_is_read.wait(timeout=10)
        if key == 1:
            second_is_read.set()
        return key * key

    assert list(prefetched(read, range(9))) == [key * key for key in range(9)]


def test_no_more_is_read_ahead_than_asked_for() -> None:
    asked: list[int] = []

    def keys() -> Iterator[int]:
        for key in range(100):
            asked.append(key)
            yield key

    stream = prefetched(lambda key: key, keys(), ahead=2)
    next(stream)
    assert len(asked) == 3
    stream.close()


def test_an_error_arrives_where_its_item_would_have() -> None:
    def read(key: int) -> int:
        if key == 2:
            msg = "key 2"
            raise ValueError(msg)
        return key

    stream = prefetched(read, range(5))
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="key 2"):
        next(stream)


def test_nothing_to_read_is_no_error() -> None:
    assert list(prefetched(lambda key: key, [])) == []
