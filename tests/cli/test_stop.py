"""Ctrl-C and SIGTERM through the real command line: the exit code, one error line, one hint, and a saved place."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellvim.errors import ExitCode
from cellvim.pretrain.state import list_checkpoints
from cellvim.terminal import run_to_exit_code

SCRIPT = """
import os
from cellvim.cli import main
from cellvim.pretrain import loop
take = loop.Trainer._take_step
def take_and_signal(self, batch, metrics):
    take(self, batch, metrics)
    if self.state.step == 3:
        os.kill(os.getpid(), int(os.environ["SENT"]))
loop.Trainer._take_step = take_and_signal
main()
"""
SETTINGS = """
steps: 9
batch_size: 2
model: {width: 16, depth: 1, patch_px: 8, decoder_width: 16, decoder_depth: 1, position_grid: 4}
crops: {crop_px: 32}
"""


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, ExitCode.KEYBOARD), (signal.SIGTERM, ExitCode.INTERRUPTED)]
)
def test_a_stopped_run_says_so_and_how_to_go_on(
    make_plate: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
    code: ExitCode,
) -> None:
    plate = make_plate()
    (tmp_path / "run.yaml").write_text(SETTINGS)
    monkeypatch.setenv("SENT", str(int(sent)))
    command = [
        "pretrain",
        str(plate.path),
        "--out",
        str(tmp_path / "run"),
        "--config",
        str(tmp_path / "run.yaml"),
    ]
    stopped = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode == code
    assert stopped.stdout == ""
    error, hint = stopped.stderr.splitlines()[-2:]
    assert error == "error: stopped after step 3 of 9"
    assert hint.startswith("hint: run the same command again")
    assert [path.name for path in list_checkpoints(tmp_path / "run/checkpoints")] == [
        "step-00000003.safetensors"
    ]


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, ExitCode.KEYBOARD), (signal.SIGTERM, ExitCode.INTERRUPTED)]
)
def test_a_stop_that_a_library_takes_for_a_failure_of_its_own_is_still_a_stop(
    sent: signal.Signals, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("sys.argv", ["cellvim"])

    def import_something(_: list[str]) -> None:
        try:
            signal.raise_signal(sent)
        except BaseException:  # noqa: BLE001 - as a library may
            message = "initialization failed"
            raise ImportError(message) from None

    def fail(_: list[str]) -> None:
        message = "initialization failed"
        raise ImportError(message)

    try:
        for app, expected in ((import_something, code), (fail, ExitCode.INTERNAL)):
            with pytest.raises(SystemExit) as ended:
                run_to_exit_code(app)
            assert ended.value.code == expected
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "hint: run the same command again to resume" in capsys.readouterr().err
