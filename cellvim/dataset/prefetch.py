"""Read ahead: the next items are prepared while the current one is used."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


@dataclass
class Waiting:
    """Time that a consumer stood still because the next item was not there yet."""

    seconds: float = 0.0


_waiting: ContextVar[Waiting | None] = ContextVar("waiting", default=None)


@contextmanager
def measured_waiting() -> Iterator[Waiting]:
    """Count, while the block runs, the time for which it waits for items that are read ahead."""
    waiting = Waiting()
    token = _waiting.set(waiting)
    try:
        yield waiting
    finally:
        _waiting.reset(token)


def prefetched(read: Callable[[Key], Item], keys: Iterable[Key], *, ahead: int = 2) -> Iterator[Item]:
    """Yield `read(key)` for each key, in order, with up to `ahead` reads under way in threads."""
    return prefetched_in_parts(
        lambda key, pool: pool.submit(read, key).result, keys, workers=ahead, ahead=ahead
    )


def prefetched_in_parts(
    begin: Callable[[Key, Executor], Callable[[], Item]], keys: Iterable[Key], *, workers: int, ahead: int
) -> Iterator[Item]:
    """Yield one item per key, in order, while threads prepare parts of up to `ahead` later ones.

    Threads, not processes: reading and decompression happen in C++ outside the interpreter's lock, and the
    store's reader must not be forked.

    Args:
        begin: Hands the parts of one item to the threads, and returns what waits for all of them.
        keys: Of the items.
        workers: Threads.
        ahead: Items, which bounds the memory.
    """
    coming: deque[Callable[[], Item]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="cellvim-read")
    try:
        for key in keys:
            coming.append(begin(key, pool))
            if len(coming) > ahead:
                yield _wait(coming.popleft())
        while coming:
            yield _wait(coming.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(item: Callable[[], Item]) -> Item:
    meter = _waiting.get()
    started = time.perf_counter()
    try:
        return item()
    finally:
        if meter is not None:
            meter.seconds += time.perf_counter() - started
