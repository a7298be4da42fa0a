"""Errors a user can act on. Every one says what was found and what was expected, and hints at what to do."""

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the shell, Slurm and Snakemake see. Scripts rely on these numbers: they never change meaning."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    EXISTS = 4
    DISK = 5
    MEMORY = 6
    INTERNAL = 70
    INTERRUPTED = 75
    KEYBOARD = 130


class CellvimError(Exception):
    """Base class: the command line prints `error:` and `hint:`, one line each, and exits with `exit_code`.

    Args:
        found: What was found, where, and what was expected instead.
        hint: What the user can do about it.
    """

    exit_code = ExitCode.BAD_INPUT
    details: tuple[str, ...] = ()
    """Lines that the command line prints before `error:`, where one line cannot hold all that was found."""

    def __init__(self, found: str, *, hint: str) -> None:
        super().__init__(found)
        self.found = found
        self.hint = hint


class UsageError(CellvimError, ValueError):
    """The command was asked for something that it does not offer."""

    exit_code = ExitCode.USAGE


class InputError(CellvimError, ValueError):
    """A file or table does not hold what the command needs."""


class NotFoundError(CellvimError, FileNotFoundError):
    """Nothing usable lies at the given path."""

    def __init__(self, path: Path | str, *, expected: str, hint: str) -> None:
        self.path = path
        super().__init__(f"no {expected} at {path}", hint=hint)


class PreflightError(InputError):
    """A plate's files are not what they should be; nothing has been written.

    Args:
        plate: Name of the plate.
        problems: One line per problem, worst first.
    """

    shown = 12

    def __init__(self, plate: str, problems: Sequence[str], *, hint: str) -> None:
        self.plate = plate
        self.problems = tuple(problems)
        self.details = self.problems[: self.shown]
        if len(self.problems) > self.shown:
            rest = len(self.problems) - self.shown
            self.details += (f"... and {rest} more (all of them with --dry-run --json)",)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems, first"
        super().__init__(f"plate {plate}: nothing was written: {count}: {self.problems[0]}", hint=hint)


class OutputExistsError(CellvimError, FileExistsError):
    """The output is already there, and was made from other inputs or settings."""

    exit_code = ExitCode.EXISTS

    def __init__(
        self, path: Path | str, *, why: str, hint: str = "choose another --out, or pass --overwrite"
    ) -> None:
        self.path = path
        super().__init__(f"{path} already exists and {why}", hint=hint)


class LockedError(CellvimError):
    """Another process is writing the same output."""

    exit_code = ExitCode.EXISTS

    def __init__(self, lock: Path | str, *, holder: str) -> None:
        self.lock, self.holder = str(lock), holder
        hint = f"wait for it to end; if that process is gone for good, delete {lock}"
        super().__init__(f"{self.lock.rpartition('/')[0]} is being written by {holder}", hint=hint)


class DiskError(CellvimError, OSError):
    """The disk is full, or a path cannot be read or written."""

    exit_code = ExitCode.DISK


class OutOfMemoryError(CellvimError, MemoryError):
    """The computation does not fit into the memory of the GPU or of the machine."""

    exit_code = ExitCode.MEMORY


class NonFiniteLossError(CellvimError, ArithmeticError):
    """Training produced NaN or infinity; the last good checkpoint is kept."""

    exit_code = ExitCode.BAD_INPUT


class SomeFailedError(CellvimError):
    """Some units failed; all others are done and kept."""

    exit_code = ExitCode.SOME_FAILED


class KeyboardStop(BaseException):
    """Ctrl-C, told in our own words: KeyboardInterrupt is swallowed by the command-line library."""

    def __init__(self, found: str = "stopped by the keyboard") -> None:
        super().__init__(found)
        self.found = found
        self.hint = "run the same command again to resume"


class TerminationStop(BaseException):
    """SIGTERM, wherever it comes: no `except Exception` may take it for the failure of what it happens to meet."""

    def __init__(self, found: str = "asked to stop (SIGTERM)") -> None:
        super().__init__(found)
        self.found = found
        self.hint = "run the same command again to resume"


class InterruptedRunError(CellvimError):
    """The run was asked to stop, and saved its place first."""

    exit_code = ExitCode.INTERRUPTED
