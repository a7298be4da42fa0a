"""Compile the C++ kernels when they are first needed, and keep the library for the next process.

The library's name is a hash of all that shapes it: sources, flags, compiler and the CPU's features, as machines of
different types may share a home folder. It is moved into place whole and ends with its own checksum.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
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
    """

    def __init__(self, tried: str, output: str = "") -> None:
        self.tried, self.output = tried, output
        super().__init__(f"no C++ kernels: {tried}" + (f"\n{output}" if output else ""))


@dataclass(frozen=True)
class Recipe:
    """All that shapes the library.

    Args:
        compiler: Command and its leading arguments, as in CXX.
        version: First line of what it calls itself.
        name: File name of the library.
    """

    compiler: tuple[str, ...]
    version: str
    name: str


def load() -> ctypes.CDLL:
    """Load the kernels, from the cache if they are there, else compiled now (one to five seconds).

    A failure is remembered: the process does not try again.

    Raises:
        CompileUnavailableError: No compiler, no OpenMP runtime in torch, or the compiler fails.
    """
    outcome = _attempt()
    if isinstance(outcome, CompileUnavailableError):
        raise outcome.with_traceback(None)
    return outcome


def why_unavailable() -> str | None:
    """Say what is missing for `load` to have a chance; None if nothing is. Compiles nothing."""
    reason = describe()["reason"]
    return None if reason is None else str(reason)


def describe() -> dict[str, str | bool | None]:
    """Tell compiler, OpenMP runtime and library, or the reason why there is none. Compiles nothing, never raises."""
    try:
        recipe, runtime = _recipe(), _runtime()
    except CompileUnavailableError as error:
        return {"compiler": None, "openmp": None, "library": None, "built": False, "reason": error.tried}
    path = cache_folder() / recipe.name
    failed = _attempt() if _attempt.cache_info().currsize else None
    return {
        "compiler": f"{shlex.join(recipe.compiler)} ({recipe.version})",
        "openmp": runtime.path,
        "library": str(path),
        "built": _is_whole(path),
        "reason": failed.tried if isinstance(failed, CompileUnavailableError) else None,
    }


def forget() -> None:
    """Look for compiler and library anew at the next `load`."""
    _attempt.cache_clear()


def cache_folder() -> Path:
    """Where libraries are kept: below CELLVIM_CACHE, else the user's cache."""
    own = os.environ.get(CACHE_KEY)
    if own:
        return Path(own) / "kernels"
    users = os.environ.get("XDG_CACHE_HOME")
    return (Path(users) if users else Path("~/.cache").expanduser()) / "cellvim" / "kernels"


@cache
def _attempt() -> ctypes.CDLL | CompileUnavailableError:
    try:
        recipe, runtime = _recipe(), _runtime()
        library = _open_cached(recipe)
        if library is None:
            library = _build_and_open(recipe)
    except CompileUnavailableError as error:
        return error
    library.cellvim_use_runtime(ctypes.c_void_p(runtime.fork))
    return library


def _recipe() -> Recipe:
    compiler = _compiler()
    try:
        version = run_compiler([*compiler, "--version"])
    except CompilerError as error:
        raise CompileUnavailableError(error.tried, error.output) from error
    content = hashlib.sha256()
    for source in sorted([*PACKAGE.rglob("*.cpp"), *PACKAGE.rglob("*.hpp")]):
        content.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for part in (*FLAGS, *compiler[1:], version, _cpu_features()):
        content.update(part.encode() + b"\0")
    first_line = version.partition("\n")[0]
    return Recipe(compiler, first_line, f"cellvim-{content.hexdigest()[:24]}.so")


def _compiler() -> tuple[str, ...]:
    wanted = shlex.split(os.environ.get("CXX", ""))
    for name in wanted[:1] or CANDIDATES:
        if shutil.which(name):
            return (name, *wanted[1:])
    missing = f"CXX={wanted[0]} is no program" if wanted else f"none of {', '.join(CANDIDATES)} is installed"
    msg = f"no compiler: {missing}"
    raise CompileUnavailableError(msg)


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


def _is_whole(path: Path) -> bool:
    """Whether the file ends with the checksum of the rest: a truncated one would kill the process that loads it."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-CHECKSUM_BYTES]).digest() == content[-CHECKSUM_BYTES:]


def _open_cached(recipe: Recipe) -> ctypes.CDLL | None:
    for folder in (cache_folder(), MAIN_SOURCE.parent):
        path = folder / recipe.name
        if _is_whole(path):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                # A folder from which nothing may be executed.
                continue
    return None


def _build_and_open(recipe: Recipe) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="cellvim-") as own:
        fresh = Path(own) / recipe.name
        try:
            run_compiler([*recipe.compiler, *FLAGS, str(MAIN_SOURCE), "-o", str(fresh)], MOST_SECONDS)
            content = fresh.read_bytes()
        except CompilerError as error:
            raise CompileUnavailableError(error.tried, error.output) from error
        except OSError as error:
            msg = f"{recipe.compiler[0]} wrote no library: {error}"
            raise CompileUnavailableError(msg) from error
        _keep(content, cache_folder() / recipe.name)
        library = _open_cached(recipe)
        if library is not None:
            return library
        try:
            # Loaded, it lives on when the folder is gone.
            return ctypes.CDLL(str(fresh))
        except OSError as error:
            msg = f"the compiled library does not load: {error}"
            raise CompileUnavailableError(msg) from error


def _keep(content: bytes, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
