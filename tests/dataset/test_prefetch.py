"""Reading ahead changes when items are read, never which or in what order."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from cellvim.dataset import measured_waiting, prefetch, prefetched


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


def test_waiting_is_counted_where_it_is_asked_for_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(prefetch, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert list(prefetched(lambda key: key, range(3))) == [0, 1, 2]
    with measured_waiting() as outer:
        assert list(prefetched(lambda key: key, range(2))) == [0, 1]
        with measured_waiting() as inner:
            assert list(prefetched(lambda key: key, range(5))) == list(range(5))
    # Every look at the clock is a second: a wait begins with one and ends with the next.
    assert (outer.seconds, inner.seconds) == (2, 5)
