"""Between the command line and the person or script that called it: results, errors and exit codes."""

import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Protocol

import typer

from cellvim.errors import CellvimError, ExitCode, KeyboardStop, TerminationStop

_asked: list[TerminationStop | KeyboardStop] = []
"""The stops that were asked for. One that meets a library may come out as an error of that library."""
_IMPORT_PAUSE_S = 0.05


class Summary(Protocol):
    """What a stage returns: `str()` for people, a dict for machines."""

    def as_dict(self) -> dict[str, Any]: ...


def run_to_exit_code(app: Callable[[list[str]], object]) -> None:
    """Run the command line; every failure becomes one `error:` line, one `hint:` line and an exit code."""
    _asked.clear()
    signal.signal(signal.SIGTERM, _stop_on_sigterm)
    signal.signal(signal.SIGINT, _stop_on_sigint)
    # Threads spin while they wait for each other. Unlimited, a step is many times slower as soon as another program
    # wants the core; not at all, it is 1.4 times slower on an idle one. See kernels/README.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        app(_global_flags_first(sys.argv[1:]))
    except (KeyboardStop, TerminationStop, Exception) as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        if isinstance(error, CellvimError):
            for line in error.details:
                typer.echo(f"  {printable(line)}", err=True)
        is_own = isinstance(error, (CellvimError, KeyboardStop, TerminationStop))
        _fail(*explain_failure(_asked[-1] if _asked and not is_own else error))


def explain_failure(error: BaseException) -> tuple[str, str, ExitCode]:
    """What was found, what to do about it, and the exit code: the same words wherever a failure is told."""
    match error:
        case CellvimError():
            return error.found, error.hint, error.exit_code
        case KeyboardStop():
            return error.found, error.hint, ExitCode.KEYBOARD
        case TerminationStop():
            return error.found, error.hint, ExitCode.INTERRUPTED
        case MemoryError():
            return "out of memory", "use a smaller batch, or fewer workers", ExitCode.MEMORY
        case OSError():
            return *_explain_os_error(error), ExitCode.DISK
    kind = f"{type(error).__name__}: {error}".splitlines()[0]
    found = f"internal error, please report it: {kind}"
    return found, "CELLVIM_DEBUG=1 shows the traceback", ExitCode.INTERNAL


def show(summary: Summary, *, as_json: bool) -> None:
    """Print a stage's result to stdout."""
    if as_json:
        _show_json(summary.as_dict())
        return
    for line in str(summary).split("\n"):
        typer.echo(printable(line))


def show_dict(content: dict[str, Any], *, as_json: bool) -> None:
    """Print named facts to stdout."""
    if as_json:
        _show_json(content)
        return
    for name, value in content.items():
        typer.echo(printable(name))
        for line in _lines(value):
            typer.echo(f"  {printable(line)}")


def printable(text: str) -> str:
    """Names come from strangers' files: what a terminal would obey is shown as a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _show_json(content: dict[str, Any]) -> None:
    # A byte of a file's name that is no UTF-8 becomes an escape, which JSON has a spelling for.
    text = json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace")
    typer.echo(text.decode())


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


def _stop_on_sigterm(number: int, frame: FrameType | None) -> None:
    _stop(TerminationStop(), number, frame)


def _stop_on_sigint(number: int, frame: FrameType | None) -> None:
    _stop(KeyboardStop(), number, frame)


def _stop(asked: TerminationStop | KeyboardStop, number: int, frame: FrameType | None) -> None:
    """Raise what was asked for, once no library is being imported: the C++ of some aborts at any exception there."""
    if _is_importing(frame):
        again = threading.Timer(_IMPORT_PAUSE_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    _asked.append(asked)
    raise asked


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _fail(found: str, hint: str, code: ExitCode) -> NoReturn:
    if os.environ.get("CELLVIM_DEBUG") == "1":
        traceback.print_exc()
    for label, text in (("error", found), ("hint", hint)):
        typer.echo(f"{label}: {printable(' '.join(text.split(chr(10))))}", err=True)
    sys.exit(int(code))
