"""Compile the C++ kernels when they are first needed, and keep the library for the next process.

The library's name is a hash of all that shapes it: sources, flags, compiler and the CPU's features, as machines of
different types may share a home folder. It is moved into place whole and ends with its own checksum. A library that
someone else could have written is never loaded.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cellvim_kernels.cpp.compiler import MOST_SECONDS, CompilerError, run_compiler
from cellvim_kernels.cpp.runtime import Runtime, find_runtime

CACHE_KEY = "CELLVIM_CACHE"
PACKAGE = Path(__file__).parents[1]
MAIN_SOURCE = Path(__file__).with_name("cellvim.cpp")
CANDIDATES = ("g++", "clang++", "c++")
# Contraction is off because recomputed values must have the same bits; the sources say fma where they mean it.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
)
CHECKSUM_BYTES = hashlib.sha256().digest_size


class CompileUnavailableError(RuntimeError):
    """The C++ kernels cannot be had on this machine; plain torch computes the same.

    Args:
        tried: What was run or looked for.
        output: Last lines of what the compiler said; empty if it never ran.
        reason: `tried` in a line with its cause, if it is long.
    """

    def __init__(self, tried: str, output: str = "", reason: str | None = None) -> None:
        self.tried, self.output, self.reason = tried, output, reason or tried
        super().__init__(f"no C++ kernels: {self.reason}" + (f"\n{output}" if output else ""))


@dataclass(frozen=True)
class Recipe:
    """All that shapes the library.

    Args:
        compiler: Command and its leading arguments, as in CXX.
        version: First line of what it calls itself.
        digest: Hash of sources, flags, compiler and the CPU's features.
    """

    compiler: tuple[str, ...]
    version: str
    digest: str

    @property
    def name(self) -> str:
        """File name of the library."""
        return f"cellvim-{self.digest}.so"


def load() -> ctypes.CDLL:
    """Load the kernels, from the cache if they are there, else compiled now (one to five seconds).

    A failure is remembered: the process does not try again.

    Raises:
        CompileUnavailableError: No compiler, no OpenMP runtime in torch, or the compiler fails.
    """
    return _loaded()[0]


def fingerprint() -> str:
    """Name the library in use, for provenance: 12 hexadecimal digits.

    Raises:
        CompileUnavailableError: As `load`.
    """
    return _loaded()[1].digest[:12]


def why_unavailable() -> str | None:
    """Say what is missing for `load` to have a chance; None if nothing is. Compiles nothing."""
    reason = describe()["reason"]
    return None if reason is None else str(reason)


def describe() -> dict[str, str | bool | None]:
    """Tell compiler, OpenMP runtime and library, or the reason why there is none. Compiles nothing, never raises."""
    try:
        recipe, runtime = _recipe(), _runtime()
    except CompileUnavailableError as error:
        return {"compiler": None, "openmp": None, "library": None, "built": False, "reason": error.reason}
    path = _kept_at(recipe)
    failed = _attempt() if _attempt.cache_info().currsize else None
    return {
        "compiler": f"{shlex.join(recipe.compiler)} ({recipe.version})",
        "openmp": runtime.path,
        "library": None if path is None else str(path),
        "built": path is not None and _is_own(path) and _is_whole(path),
        "reason": failed.reason if isinstance(failed, CompileUnavailableError) else None,
    }


def forget() -> None:
    """Look for compiler and library anew at the next `load`."""
    _attempt.cache_clear()


def cache_folder() -> Path | None:
    """Where libraries are kept: below CELLVIM_CACHE, else the user's cache; None for a user without a home."""
    own = os.environ.get(CACHE_KEY)
    if own:
        return Path(own) / "kernels"
    users = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(users) if users else Path("~/.cache").expanduser()) / "cellvim" / "kernels"
    except RuntimeError:
        return None


def _kept_at(recipe: Recipe) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / recipe.name


def _loaded() -> tuple[ctypes.CDLL, Recipe]:
    outcome = _attempt()
    if isinstance(outcome, CompileUnavailableError):
        raise outcome.with_traceback(None)
    return outcome


@cache
def _attempt() -> tuple[ctypes.CDLL, Recipe] | CompileUnavailableError:
    try:
        recipe, runtime = _recipe(), _runtime()
        library = _open_cached(recipe) or _build_and_open(recipe)
    except CompileUnavailableError as error:
        return error
    library.cellvim_use_runtime(ctypes.c_void_p(runtime.fork))
    return library, recipe


def _recipe() -> Recipe:
    compiler = _compiler()
    try:
        version = run_compiler([*compiler, "--version"])
    except CompilerError as error:
        cxx = os.environ.get("CXX")
        reason = (
            f"CXX={cxx} is set, but `{shlex.join(compiler)} --version` fails: {error.reason}"
            if cxx
            else error.reason
        )
        raise CompileUnavailableError(error.tried, error.output, reason) from error
    content = hashlib.sha256()
    for source in sorted([*PACKAGE.rglob("*.cpp"), *PACKAGE.rglob("*.hpp")]):
        content.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for part in (*FLAGS, *compiler[1:], version, _cpu_features()):
        content.update(part.encode() + b"\0")
    first_line = version.partition("\n")[0]
    return Recipe(compiler, first_line, content.hexdigest()[:24])


def _compiler() -> tuple[str, ...]:
    cxx = os.environ.get("CXX", "")
    try:
        wanted = shlex.split(cxx)
    except ValueError as error:
        msg = f"no compiler: CXX={cxx} is no command: {error}"
        raise CompileUnavailableError(msg) from error
    for name in wanted[:1] or CANDIDATES:
        path = shutil.which(name)
        if path and not _opens_an_installer(path):
            return (name, *wanted[1:])
    missing = f"CXX={wanted[0]} is no program" if wanted else f"none of {', '.join(CANDIDATES)} is installed"
    msg = f"no compiler: {missing}"
    raise CompileUnavailableError(msg)


def _opens_an_installer(path: str) -> bool:
    """Whether the compiler is a stub, as on a Mac without developer tools: to run it would open a window."""
    if sys.platform == "darwin" and path.startswith("/usr/bin/"):
        try:
            run_compiler(["xcode-select", "-p"])
        except CompilerError:
            return True
    return False


def _runtime() -> Runtime:
    runtime = find_runtime()
    if runtime is None:
        msg = "torch has loaded no OpenMP runtime that offers GOMP_parallel"
        raise CompileUnavailableError(msg)
    return runtime


def _cpu_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    named = (line.partition(":") for line in lines)
    features = next((value for name, _, value in named if name.strip() in ("flags", "Features")), "")
    return f"{platform.machine()} {' '.join(sorted(features.split()))}"


def _is_own(path: Path) -> bool:
    """Whether only the user (or root) could have written the file and its folder."""
    try:
        found = path.parent.stat(), path.lstat()
    except OSError:
        return False
    return all(map(_is_private, found)) and stat.S_ISREG(found[1].st_mode)


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_whole(path: Path) -> bool:
    """Whether the file ends with the checksum of the rest: a truncated one would kill the process that loads it."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-CHECKSUM_BYTES]).digest() == content[-CHECKSUM_BYTES:]


def _open_cached(recipe: Recipe) -> ctypes.CDLL | None:
    path = _kept_at(recipe)
    if path is None or not (_is_own(path) and _is_whole(path)):
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        # A folder from which nothing may be executed.
        return None


def _build_and_open(recipe: Recipe) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="cellvim-") as own:
        fresh = Path(own) / recipe.name
        try:
            run_compiler([*recipe.compiler, *FLAGS, str(MAIN_SOURCE), "-o", str(fresh)], MOST_SECONDS)
            content = fresh.read_bytes()
        except CompilerError as error:
            raise CompileUnavailableError(error.tried, error.output, error.reason) from error
        except OSError as error:
            msg = f"{recipe.compiler[0]} wrote no library: {error}"
            raise CompileUnavailableError(msg) from error
        path = _kept_at(recipe)
        if path is not None:
            _keep(content, path)
        try:
            # Loaded, it lives on when the folder is gone.
            return _open_cached(recipe) or ctypes.CDLL(str(fresh))
        except OSError as error:
            msg = f"the compiled library does not load: {error}"
            raise CompileUnavailableError(msg) from error


def _keep(content: bytes, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(path.parent.stat()):
            return
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content + hashlib.sha256(content).digest())
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o755)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError:
        # Full disk, no permission: this process uses its own copy, the next one compiles again.
        return
