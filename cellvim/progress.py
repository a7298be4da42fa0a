"""Progress bars on a terminal, silence elsewhere: a log file is no place for a moving bar."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Tell the bar that `units` more are done."""

    def __call__(self, units: int = 1) -> None: ...


@contextmanager
def progress_bar(description: str, *, total: int, is_shown: bool = True) -> Iterator[Advance]:
    """Show one bar on stderr if it is a terminal.

    Args:
        description: What is being done, for example ``"ingest BR00116991"``.
        total: Number of units in all.
        is_shown: Off where another process shows the bar.

    Yields:
        A function that advances the bar.
    """
    if not (is_shown and sys.stderr.isatty()):
        yield lambda units=1: None  # noqa: ARG005 - the protocol names its argument
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda units=1: progress.advance(task, units)
