"""A signal is no failure of what it happens to meet: code that tries things out must not swallow it."""

import signal
import subprocess
import sys
from pathlib import Path

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


# As the C++ of a library does that may let no exception through.
ABORTS = """
import os
try:
    {sends}
except BaseException:
    os.abort()
"""
IMPORT = """
import os, signal, sys, time
from cellvim.terminal import run_to_exit_code
sys.path.insert(0, sys.argv[1])

def app(arguments):
    import library
    print("imported", flush=True)
    time.sleep(20)
    print("went on")

run_to_exit_code(app)
"""


@pytest.mark.parametrize(("sent", "code"), [("SIGTERM", ExitCode.INTERRUPTED), ("SIGINT", ExitCode.KEYBOARD)])
def test_a_signal_waits_for_the_import_that_it_meets(sent: str, code: ExitCode, tmp_path: Path) -> None:
    sends = f"import signal, time; os.kill(os.getpid(), signal.{sent}); time.sleep(0.3)"
    (tmp_path / "library.py").write_text(ABORTS.format(sends=sends))
    command = [sys.executable, "-c", IMPORT, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (code, "imported\n")
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()] == ["error", "hint"]
