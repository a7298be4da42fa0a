"""Read ahead: the next items are prepared while the current one is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


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
    waiting: deque[Callable[[], Item]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="cellvim-read")
    try:
        for key in keys:
            waiting.append(begin(key, pool))
            if len(waiting) > ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
    finally:
        pool.shutdown(cancel_futures=True)
