"""Run a compiler, with a time limit that also ends what it has started."""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence

MOST_SECONDS = 120.0
LAST_LINES = 12


class CompilerError(RuntimeError):
    """A compiler failed, did not start or took too long.

    Args:
        tried: Its command and how it ended.
        output: Last lines of what it said.
    """

    def __init__(self, tried: str, output: str) -> None:
        self.tried, self.output = tried, output
        super().__init__(f"{tried}\n{output}")


def run_compiler(command: Sequence[str], most_seconds: float = 20.0) -> str:
    """Run `command` and return what it said.

    Raises:
        CompilerError: It failed, did not start or took longer than `most_seconds`.
    """
    shown = shlex.join(command)
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
        msg = f"{shown} did not start: {error}"
        raise CompilerError(msg, "") from error
    with process:
        try:
            output, _ = process.communicate(timeout=most_seconds)
        except subprocess.TimeoutExpired as error:
            msg = f"{shown} took longer than {most_seconds:g} s"
            raise CompilerError(msg, "") from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    said = output.decode(errors="replace")
    if process.returncode != 0:
        lines = said.strip().splitlines()[-LAST_LINES:]
        msg = f"{shown} failed with status {process.returncode}"
        raise CompilerError(msg, "\n".join(lines))
    return said
