"""Ctrl-C and SIGTERM ask a run to stop after the step it is in, so that its place can be saved."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from cellvim.errors import InterruptedRunError, KeyboardStop


class StopRequest:
    """While the block runs, the first signal sets a flag; a second Ctrl-C stops at once.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def is_requested(self) -> bool:
        return self.received is not None

    def raise_interrupt(self, found: str) -> NoReturn:
        if self.received == signal.SIGINT:
            raise KeyboardStop(found)
        raise InterruptedRunError(found, hint="run the same command again to go on from there")

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardStop
        self.received = number
