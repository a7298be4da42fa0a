"""Do one thing to many files, several at a time, and show how far it has come."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cellvim.progress import progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], *, label: str, workers: int
) -> Iterator[Result]:
    """Yield the results in the order of the items. Whoever stops listening stops the work."""
    with ThreadPoolExecutor(workers) as pool, progress_bar(label, total=len(items)) as advance:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
                advance()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
