"""What the shell sees: exit codes, one error line, one hint line, results on stdout."""

import errno
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellvim import __version__
from cellvim.cli import app
from cellvim.errors import ExitCode, InputError, KeyboardStop, PreflightError, SomeFailedError
from cellvim.terminal import run_to_exit_code, show_dict

HEAVY = {"torch", "zarr", "tensorstore", "sklearn", "umap", "altair", "polars", "matplotlib"}


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process; returns exit code, stdout and stderr."""

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cellvim", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run_to_exit_code(app)
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run_command


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, cellvim.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(loaded.stdout.split())


@pytest.mark.parametrize(
    "command",
    ["", "ingest", "pretrain", "embed", "evaluate", "demo", "verify", "info", "import-checkpoint", "doctor"],
)
def test_every_command_has_help(run: Callable[..., tuple[int, str, str]], command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize("command", ["ingest", "pretrain", "embed", "evaluate", "import-checkpoint"])
def test_help_of_a_stage_shows_an_example(run: Callable[..., tuple[int, str, str]], command: str) -> None:
    assert f"cellvim {command} " in run(command, "--help")[1].split("Examples")[1]


def test_version_needs_no_command(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run("--version") == (0, f"cellvim {__version__}\n", "")


@pytest.mark.parametrize("plates", [("P.cellvim/", "P.ome.zarr"), ("P.cellvim",)])
def test_a_shells_pattern_may_name_what_lies_beside_the_plates(
    run: Callable[..., tuple[int, str, str]], plates: tuple[str, ...]
) -> None:
    """The folders beside them are passed over, unless nothing else is named."""
    _, _, err = run("verify", *plates)
    assert plates[-1] in err
    assert (".cellvim" in err) == (len(plates) == 1)


def test_unknown_flag_is_a_usage_error(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run("ingest", "--no-such-flag")[0] == ExitCode.USAGE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ingest", "nowhere", "--out", "plates"), "nowhere"),
        (("pretrain", "nowhere", "--out", "run"), "nowhere"),
        (("embed", "nowhere", "--model", "run", "--out", "e.parquet"), "run"),
        (("evaluate", "nowhere.parquet", "--out", "report"), "nowhere.parquet"),
        (("verify", "nowhere"), "nowhere"),
        (("info", "nowhere"), "nowhere"),
        (("pretrain", "x", "--out", "run", "--config", "none.yaml"), "none.yaml"),
    ],
)
def test_wrong_path_gives_one_line_and_one_hint(
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == ExitCode.BAD_INPUT
    assert out == ""
    error, hint = err.strip().splitlines()
    assert error.startswith("error: ")
    assert expected in error
    assert hint.startswith("hint: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (InputError("found this", hint="do that"), ExitCode.BAD_INPUT, "error: found this\nhint: do that\n"),
        (SomeFailedError("two failed", hint="see"), ExitCode.SOME_FAILED, "error: two failed"),
        (
            OSError(errno.ENOSPC, "No space left on device", "table"),
            ExitCode.DISK,
            "the disk is full (table)",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "table"),
            ExitCode.DISK,
            "Permission denied (table)",
        ),
        (MemoryError(), ExitCode.MEMORY, "out of memory"),
        (KeyboardStop(), ExitCode.KEYBOARD, "error: stopped by the keyboard"),
        (
            ZeroDivisionError("oops"),
            ExitCode.INTERNAL,
            "internal error, please report it: ZeroDivisionError: oops",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_failure_has_its_exit_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(_: list[str]) -> None:
        raise raised

    monkeypatch.setattr(sys, "argv", ["cellvim"])
    with pytest.raises(SystemExit) as stopped:
        run_to_exit_code(fail)
    assert stopped.value.code == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


def test_debug_mode_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["cellvim"])
    monkeypatch.setenv("CELLVIM_DEBUG", "1")
    with pytest.raises(SystemExit):
        run_to_exit_code(fail)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("position", ["before", "after"])
def test_quiet_works_before_and_after_the_command(
    run: Callable[..., tuple[int, str, str]], position: str
) -> None:
    run(*(["-q", "doctor"] if position == "before" else ["doctor", "-q"]))
    assert logging.getLogger("cellvim").level == logging.WARNING


def test_json_is_one_object_on_stdout(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert json.loads(out)["versions"]["python"]


def test_a_long_list_stands_before_the_one_error_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: list[str]) -> None:
        raise PreflightError(
            "P1", [f"B{number:02d} is missing" for number in range(1, 21)], hint="add the files"
        )

    monkeypatch.setattr(sys, "argv", ["cellvim"])
    with pytest.raises(SystemExit) as stopped:
        run_to_exit_code(fail)
    assert stopped.value.code == ExitCode.BAD_INPUT
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  B01 is missing"
    assert lines[12] == "  ... and 8 more (all of them with --dry-run --json)"
    assert lines[13] == "error: plate P1: nothing was written: 20 problems, first: B01 is missing"
    assert lines[14:] == ["hint: add the files"]


def test_names_of_files_cannot_command_the_terminal_nor_break_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a\x1b[2J\n\udcff.tif"

    def fail(_: list[str]) -> None:
        show_dict({name: [name]}, as_json=False)
        show_dict({name: [name]}, as_json=True)
        raise InputError(name, hint=name)

    monkeypatch.setattr(sys, "argv", ["cellvim"])
    with pytest.raises(SystemExit):
        run_to_exit_code(fail)
    captured = capsys.readouterr()
    *people, machine = captured.out.splitlines()
    assert people == ["a?[2J??.tif", "  a?[2J??.tif"]
    assert json.loads(machine) == {name: [name]}
    assert captured.err.splitlines() == ["error: a?[2J ?.tif", "hint: a?[2J ?.tif"]
