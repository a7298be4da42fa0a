"""Find the OpenMP runtime that torch has loaded: the kernels use its threads and bring no runtime of their own."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

ENTRY = "GOMP_parallel"
"""Runs a function on a team of threads. GNU's, LLVM's and Intel's runtimes offer it."""


@dataclass(frozen=True)
class Runtime:
    """An OpenMP runtime in this process.

    Args:
        fork: Address of its `GOMP_parallel`.
        path: File that it was loaded from.
    """

    fork: int
    path: str


def find_runtime() -> Runtime | None:
    """Look for the runtime among what torch shares with the process, then among all that is loaded."""
    for name in (None, *_loaded_runtimes()):
        fork = _entry(name)
        if fork is not None:
            return Runtime(fork, _file_at(fork))
    return None


def _entry(library: str | None) -> int | None:
    try:
        return ctypes.cast(getattr(ctypes.CDLL(library), ENTRY), ctypes.c_void_p).value
    except (OSError, AttributeError, TypeError):  # Windows opens no library without a name
        return None


def _loaded_runtimes() -> list[str]:
    """OpenMP runtimes in the process, torch's own first."""
    own = str(Path(torch.__file__).parent)
    files = {path for _, _, path in _mappings() if "omp" in Path(path).name}
    return sorted(files, key=lambda path: (not path.startswith(own), path))


def _file_at(address: int) -> str:
    return next((path for start, end, path in _mappings() if start <= address < end), "unknown")


def _mappings() -> Iterator[tuple[int, int, str]]:
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            start, end = (int(bound, 16) for bound in fields[0].split("-"))
            yield start, end, fields[5]
