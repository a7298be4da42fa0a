"""Between the command line and the person or script that called it: results, errors and exit codes."""

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Protocol

import typer

from cellvim.errors import CellvimError, ExitCode, InterruptedRunError, KeyboardStop


class Summary(Protocol):
    """What a stage returns: `str()` for people, a dict for machines."""

    def as_dict(self) -> dict[str, Any]: ...


def run_to_exit_code(app: Callable[[list[str]], object]) -> None:
    """Run the command line; every failure becomes one `error:` line, one `hint:` line and an exit code."""
    signal.signal(signal.SIGTERM, _stop_on_sigterm)
    signal.signal(signal.SIGINT, _stop_on_sigint)
    # Threads spin while they wait for each other. Unlimited, a step is many times slower as soon as another program
    # wants the core; not at all, it is 1.4 times slower on an idle one. See kernels/README.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app(_global_flags_first(sys.argv[1:]))
    except (KeyboardStop, Exception) as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        if isinstance(error, CellvimError):
            for line in error.details:
                typer.echo(f"  {line}", err=True)
        _fail(*explain_failure(error))


def explain_failure(error: BaseException) -> tuple[str, str, ExitCode]:
    """What was found, what to do about it, and the exit code: the same words wherever a failure is told."""
    match error:
        case CellvimError():
            return error.found, error.hint, error.exit_code
        case KeyboardStop():
            return error.found, error.hint, ExitCode.KEYBOARD
        case MemoryError():
            return "out of memory", "use a smaller batch, or fewer workers", ExitCode.MEMORY
        case OSError():
            return *_explain_os_error(error), ExitCode.DISK
    kind = f"{type(error).__name__}: {error}".splitlines()[0]
    found = f"internal error, please report it: {kind}"
    return found, "CELLVIM_DEBUG=1 shows the traceback", ExitCode.INTERNAL


def show(summary: Summary, *, as_json: bool) -> None:
    """Print a stage's result to stdout."""
    typer.echo(json.dumps(summary.as_dict(), ensure_ascii=False) if as_json else str(summary))


def show_dict(content: dict[str, Any], *, as_json: bool) -> None:
    """Print named facts to stdout."""
    if as_json:
        typer.echo(json.dumps(content, ensure_ascii=False))
        return
    for name, value in content.items():
        typer.echo(name)
        for line in _lines(value):
            typer.echo(f"  {line}")


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        lines = []
        for key, entry in value.items():
            is_nested = isinstance(entry, dict)
            lines += (
                [f"{key}:", *(f"  {line}" for line in _lines(entry))] if is_nested else [f"{key}: {entry}"]
            )
        return lines
    return [str(entry) for entry in value] if isinstance(value, list | tuple) else [str(value)]


def _global_flags_first(arguments: list[str]) -> list[str]:
    """Let `cellvim ingest ... -q` mean what `cellvim -q ingest ...` does."""
    flags = {"-q", "--quiet", "-v", "--verbose"}
    return sorted(arguments, key=lambda argument: argument not in flags)


def _explain_os_error(error: OSError) -> tuple[str, str]:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"the disk is full{where}",
            "free some space and run the same command again; what is done is kept",
        )
    return f"{error.strerror or error}{where}", "check that the path exists and that you may read or write it"


def _stop_on_sigterm(_number: int, _frame: FrameType | None) -> NoReturn:
    found = "asked to stop (SIGTERM)"
    raise InterruptedRunError(found, hint="run the same command again to resume")


def _stop_on_sigint(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardStop


def _fail(found: str, hint: str, code: ExitCode) -> NoReturn:
    if os.environ.get("CELLVIM_DEBUG") == "1":
        traceback.print_exc()
    typer.echo(f"error: {found}", err=True)
    typer.echo(f"hint: {hint}", err=True)
    sys.exit(int(code))
