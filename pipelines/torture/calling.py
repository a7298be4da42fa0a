"""The command line, called in this process: hundreds of calls cost one start of Python."""

import contextlib
import io
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Exit code.
        words: What it said on stdout and stderr.
    """

    code: int
    words: str

    @property
    def is_told(self) -> bool:
        """Whether a failure was told as all are: an error and a hint come last, and there is no traceback."""
        last = [line.partition(": ")[0] for line in self.words.splitlines()[-2:]]
        return last == ["error", "hint"] and "Traceback" not in self.words


def call(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
    """Call `cellvim` with arguments; signal handlers and everything else global stay as they were."""
    from cellvim.cli import main

    words = io.StringIO()
    with (
        _handlers_kept(),
        mock.patch.object(sys, "argv", ["cellvim", *arguments]),
        mock.patch.dict("os.environ", environment or {}),
        contextlib.redirect_stderr(words),
        contextlib.redirect_stdout(words),
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, words.getvalue())


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
