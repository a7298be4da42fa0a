"""Compiling the C++ kernels: every way in which it can fail, and what the next process finds."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cellvim_kernels.cpp import CompileUnavailableError, build, runtime
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
    folder = build.cache_folder()
    assert folder is not None
    return sorted(folder.glob("*"))


def compiler_that(path: Path, does: str) -> str:
    """A compiler that has a version, and does what it is told to when it is asked to compile."""
    return script(path, f'[ "$1" = --version ] && echo mine 1.0 && exit\n{does}')


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent")
    with pytest.raises(CompileUnavailableError, match="no compiler: CXX=/nonexistent") as caught:
        build.load()
    assert caught.value.reason == build.why_unavailable() == build.describe()["reason"]
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
    failing = f'echo x >> {asked}; echo "first\nno room" >&2; exit 3'
    monkeypatch.setenv("CXX", compiler_that(tmp_path / "failing", failing))
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


@pytest.mark.usefixtures("small_source")
def test_the_first_line_tells_what_the_compiler_found_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = '"In file a.cpp:\na.cpp:3:1: fatal error: no b.h\nanother error\n$(seq 20)"'
    monkeypatch.setenv("CXX", compiler_that(tmp_path / "failing", f"echo {said}; exit 1"))
    with pytest.raises(CompileUnavailableError) as caught:
        build.load()
    first = "failing failed with status 1: a.cpp:3:1: fatal error: no b.h"
    assert str(caught.value).partition("\n")[0] == f"no C++ kernels: {first}"
    assert caught.value.reason == build.why_unavailable() == first
    assert f"{tmp_path / 'failing'} -std=c++17" in caught.value.tried


def test_a_compiler_without_a_version_fails_and_is_not_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(tmp_path / "broken", "echo error: no license; exit 1")
    monkeypatch.setenv("CXX", f"{broken} -q")
    reason = f"CXX={broken} -q is set, but `{broken} -q --version` fails: broken failed with status 1: error: no license"
    assert build.why_unavailable() == reason
    with pytest.raises(CompileUnavailableError, match=f"no C[+][+] kernels: {re.escape(reason)}"):
        build.load()


def test_a_cxx_that_is_no_command_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "'g++")
    assert build.why_unavailable() == "no compiler: CXX='g++ is no command: No closing quotation"
    with pytest.raises(CompileUnavailableError, match="No closing quotation"):
        build.load()


def test_a_stub_that_would_open_an_installer_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    has_tools, asked = False, []

    def run(command: list[str], _: float = 0) -> str:
        asked.append(command[0])
        if command[0] == "xcode-select" and not has_tools:
            raise CompilerError(command, "failed with status 2")
        return "Apple clang 17"

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(build, "run_compiler", run)
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(CompileUnavailableError, match="is installed"):
        build._recipe()
    assert set(asked) == {"xcode-select"}
    has_tools = True
    assert build._recipe().version == "Apple clang 17"
    monkeypatch.setattr(sys, "platform", "linux")
    asked.clear()
    build._recipe()
    assert asked == ["g++"]


@pytest.mark.usefixtures("small_source")
def test_a_compiler_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler_that(tmp_path / "slow", "sleep 60"))
    monkeypatch.setattr(build, "MOST_SECONDS", 0.2)
    with pytest.raises(CompileUnavailableError, match=r"slow took longer than 0\.2 s"):
        build.load()


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
    monkeypatch.setenv("CXX", compiler_that(tmp_path / "rubbish", rubbish))
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
@pytest.mark.parametrize("mode", [0o777, 0o775])
@pytest.mark.parametrize("part", ["file", "folder"])
def test_a_library_that_others_may_write_is_not_loaded(part: str, mode: int) -> None:
    build.load()
    (path,) = libraries()
    writable = path if part == "file" else path.parent
    writable.chmod(mode)
    assert build.describe()["built"] is False
    build.forget()
    library = build.load()
    assert library.answer() == 42
    assert (library._name == str(path)) == (part == "file")
    assert path.stat().st_mode & 0o777 == 0o755  # compiled anew, or as it was


@pytest.mark.usefixtures("small_source")
def test_a_library_of_another_user_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    build.load()
    is_roots = os.geteuid() == 0
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert build.describe()["built"] is is_roots  # root may, as it could change the user's files anyway
    (path,) = libraries()
    monkeypatch.setattr(
        type(path), "lstat", lambda _: os.stat_result((0o100700, 1, 1, 1, 54321, 0, 1, 0, 0, 0))
    )
    assert build.describe()["built"] is False


@pytest.mark.usefixtures("small_source")
def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", find_nobody)
    for key in (build.CACHE_KEY, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(key, raising=False)
    assert build.cache_folder() is None
    assert build.why_unavailable() is None
    assert build.describe()["library"] is None
    assert build.load().answer() == 42


@pytest.mark.usefixtures("small_source")
def test_the_fingerprint_names_the_library_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.fingerprint()
    assert len(first) == 12
    assert first in libraries()[0].name
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DX"))
    assert build.fingerprint() == first  # still loaded
    build.forget()
    assert build.fingerprint() != first
    monkeypatch.setenv("CXX", "/nonexistent")
    build.forget()
    with pytest.raises(CompileUnavailableError):
        build.fingerprint()


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
