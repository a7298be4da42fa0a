"""Compiling the C++ kernels: every way in which it can fail, and what the next process finds."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cellvim_kernels.cpp import CompileUnavailableError, build, compiler, runtime
from cellvim_kernels.cpp.compiler import CompilerError, run_compiler

SMALL_CPP = """
extern "C" __attribute__((visibility("default"))) void cellvim_use_runtime(void*) {}
extern "C" __attribute__((visibility("default"))) long answer() { return 42; }
"""
LOAD = "from cellvim_kernels.cpp import build; assert build.load().answer() == 42"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(build.CACHE_KEY, str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    build.forget()
    yield
    build.forget()


@pytest.fixture
def small_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that compiles in a moment, in place of the kernels."""
    if not any(shutil.which(name) for name in build.CANDIDATES):
        pytest.skip("needs a C++ compiler")
    package = tmp_path / "package"
    package.mkdir()
    source = package / "small.cpp"
    source.write_text(SMALL_CPP)
    monkeypatch.setattr(build, "MAIN_SOURCE", source)
    monkeypatch.setattr(build, "PACKAGE", package)
    return source


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def libraries() -> list[Path]:
    return sorted(build.cache_folder().glob("*"))


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent")
    with pytest.raises(CompileUnavailableError, match="no compiler: CXX=/nonexistent") as caught:
        build.load()
    assert caught.value.tried == build.why_unavailable() == build.describe()["reason"]
    assert build.describe()["built"] is False
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nonexistent")
    build.forget()
    with pytest.raises(CompileUnavailableError, match=r"none of g\+\+, clang\+\+, c\+\+ is installed"):
        build.load()


def test_a_failing_compiler_is_asked_once(
    tmp_path: Path, small_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    failing = (
        f'[ "$1" = --version ] && echo mine 1.0 && exit; echo x >> {asked}; echo "first\nno room" >&2; exit 3'
    )
    monkeypatch.setenv("CXX", script(tmp_path / "failing", failing))
    assert build.why_unavailable() is None
    for _ in range(2):
        with pytest.raises(CompileUnavailableError, match="failed with status 3") as caught:
            build.load()
        assert caught.value.output == "first\nno room"
        assert str(small_source) in caught.value.tried
    assert asked.read_text() == "x\n"
    assert libraries() == []
    told = build.describe()
    assert "mine 1.0" in str(told["compiler"])
    assert "failed with status 3" in str(told["reason"])


def test_a_compiler_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    hanging = script(tmp_path / "hanging", f"sleep 60 & echo $! > {tmp_path / 'child'}; wait")
    with pytest.raises(CompilerError, match=r"took longer than 2 s"):
        run_compiler([hanging], 2.0)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_a_compiler_that_writes_nothing_or_rubbish_is_an_error(
    tmp_path: Path, small_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "silent", "echo silent 1.0"))
    with pytest.raises(CompileUnavailableError, match="wrote no library"):
        build.load()
    rubbish = 'for last; do :; done; echo rubbish > "$last"'
    monkeypatch.setenv("CXX", script(tmp_path / "rubbish", rubbish))
    build.forget()
    with pytest.raises(CompileUnavailableError, match="does not load"):
        build.load()
    assert small_source.exists()


@pytest.mark.usefixtures("small_source")
def test_the_library_is_kept_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.describe()["built"] is False
    assert build.load().answer() == 42
    told = build.describe()
    assert told["built"] is True
    assert [str(path) for path in libraries()] == [told["library"]]
    build.forget()
    monkeypatch.setattr(build, "run_compiler", lambda command, _=0: run_compiler([*command[:1], "--version"]))
    assert build.load().answer() == 42


@pytest.mark.usefixtures("small_source")
@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_library_is_compiled_again(damage: bytes | None) -> None:
    build.load()
    (path,) = libraries()
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert build.describe()["built"] is False
    build.forget()
    assert build.load().answer() == 42
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("small_source")
def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(build.CACHE_KEY, str(tmp_path / "file"))
    assert build.load().answer() == 42
    assert (tmp_path / "file").read_text() == "no folder"


def test_two_processes_may_compile_at_once(small_source: Path) -> None:
    prepare = "\n".join(
        (
            "from pathlib import Path",
            "from cellvim_kernels.cpp import build",
            f"build.MAIN_SOURCE, build.PACKAGE = Path({str(small_source)!r}), Path({str(small_source.parent)!r})",
            LOAD,
        )
    )
    other = subprocess.Popen([sys.executable, "-c", prepare], env=os.environ.copy())
    while other.poll() is None:
        build.forget()
        for path in libraries():
            path.unlink(missing_ok=True)
        assert build.load().answer() == 42
    assert other.returncode == 0
    build.forget()
    assert build.load().answer() == 42
    assert [path.suffix for path in libraries()] == [".so"]


def test_the_name_tells_apart_sources_flags_compilers_and_machines(
    tmp_path: Path, small_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [build.describe()["library"]]
    small_source.write_text(SMALL_CPP + "\n")
    names.append(build.describe()["library"])
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DX"))
    names.append(build.describe()["library"])
    monkeypatch.setenv("CXX", script(tmp_path / "other", "echo other 1.0"))
    names.append(build.describe()["library"])
    monkeypatch.setattr(build, "_cpu_features", lambda: "another machine")
    names.append(build.describe()["library"])
    assert len(set(names)) == 5
    assert build.describe()["library"] == names[-1]


def test_caches_lie_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build.CACHE_KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", "/users/cache")
    assert build.cache_folder() == Path("/users/cache/cellvim/kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/users/me")
    assert build.cache_folder() == Path("/users/me/.cache/cellvim/kernels")


def test_the_kernels_use_the_runtime_of_torch_and_bring_none() -> None:
    if build.why_unavailable() is not None:
        pytest.skip(str(build.why_unavailable()))
    before = set(runtime._loaded_runtimes())
    build.load()
    found = runtime.find_runtime()
    assert found is not None
    assert set(runtime._loaded_runtimes()) == before
    assert found.path in before
    beside_torch = [path for path in before if path.startswith(str(Path(torch.__file__).parent))]
    assert not beside_torch or found.path in beside_torch


def test_without_an_openmp_runtime_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "ENTRY", "no_such_function")
    if any(shutil.which(name) for name in build.CANDIDATES):
        with pytest.raises(CompileUnavailableError, match="no OpenMP runtime"):
            build.load()


def test_the_compiler_gets_two_minutes() -> None:
    assert compiler.MOST_SECONDS == 120
