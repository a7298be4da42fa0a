"""A signal is no failure of what it happens to meet: code that tries things out must not swallow it."""

import signal
import subprocess
import sys

import pytest

from cellvim.errors import ExitCode

# As the choice of kernels does, which took SIGTERM for kernels that do not work, and went on with others.
TRY_OUT = """
import os, sys
from cellvim.terminal import run_to_exit_code

def app(arguments):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
    except Exception:
        pass
    print("went on")

run_to_exit_code(app)
"""


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, ExitCode.INTERRUPTED), (signal.SIGINT, ExitCode.KEYBOARD)]
)
def test_a_signal_is_not_taken_for_a_failure(sent: signal.Signals, code: ExitCode) -> None:
    command = [sys.executable, "-c", TRY_OUT, str(int(sent))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()] == ["error", "hint"]
