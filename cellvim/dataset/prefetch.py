"""Read ahead: the next item is prepared while the current one is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


def prefetched(read: Callable[[Key], Item], keys: Iterable[Key], *, ahead: int = 2) -> Iterator[Item]:
    """Yield `read(key)` for each key, in order, with up to `ahead` reads under way in threads.

    Threads, not processes: reading and decompression happen in C++ outside the interpreter's lock, and the
    store's reader must not be forked.
    """
    waiting: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(max_workers=ahead, thread_name_prefix="cellvim-read") as pool:
        try:
            for key in keys:
                waiting.append(pool.submit(read, key))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
