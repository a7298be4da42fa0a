"""Run a compiler, with a time limit that also ends what it has started."""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

MOST_SECONDS = 120.0
LAST_LINES = 12


class CompilerError(RuntimeError):
    """A compiler failed, did not start or took too long.

    Args:
        command: Program and arguments.
        ended: How it ended.
        said: All that it said.
    """

    def __init__(self, command: Sequence[str], ended: str, said: str = "") -> None:
        lines = said.strip().splitlines() or [""]
        self.cause = next((line for line in lines if "error" in line.lower()), lines[-1]).strip()
        self.tried, self.output = f"{shlex.join(command)} {ended}", "\n".join(lines[-LAST_LINES:])
        self.reason = f"{Path(command[0]).name} {ended}" + (f": {self.cause}" if self.cause else "")
        super().__init__(f"{self.tried}\n{self.output}")


def run_compiler(command: Sequence[str], most_seconds: float = 20.0) -> str:
    """Run `command` and return what it said.

    Raises:
        CompilerError: It failed, did not start or took longer than `most_seconds`.
    """
    try:
        # A session of its own: the program that CXX names starts the real compiler, which must end with it.
        process = subprocess.Popen(  # noqa: S603 - the user's own compiler
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        raise CompilerError(command, f"did not start: {error}") from error
    with process:
        try:
            output, _ = process.communicate(timeout=most_seconds)
        except subprocess.TimeoutExpired as error:
            raise CompilerError(command, f"took longer than {most_seconds:g} s") from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    said = output.decode(errors="replace")
    if process.returncode != 0:
        raise CompilerError(command, f"failed with status {process.returncode}", said)
    return said
