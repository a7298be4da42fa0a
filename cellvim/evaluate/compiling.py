"""Compiled code of other packages, kept on disk where that is possible, and never in the way where it is not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
from numba.core import dispatcher
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.np.ufunc import ufuncbuilder


@contextmanager
def compiled_code_kept() -> Iterator[None]:
    """Within the block, functions that ask Numba for its cache on disk get one that cannot fail.

    As it is, an import ends where no folder for it can be written to, and a computation where the disk is full or a
    file in it is damaged.
    """
    users: tuple[Any, ...] = (dispatcher, ufuncbuilder)
    for module in users:
        module.FunctionCache = _cache_of
    try:
        yield
    finally:
        for module in users:
            module.FunctionCache = FunctionCache


def _cache_of(function: Callable[..., Any]) -> FunctionCache | NullCache:
    try:
        return _SparingCache(function)
    except (RuntimeError, OSError):
        # Nowhere to write: compiled anew by each process.
        return NullCache()


class _SparingCache(FunctionCache):
    """Compiles again whatever cannot be read, and forgets whatever cannot be written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        # Numba numbers files without a lock: of two kinds of processors that share a folder, as the nodes of a
        # cluster do, one could be given the code of the other.
        name = f"{self._impl.filename_base}-{_made_for()}"
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _CacheFile(self.cache_path, name, stamp)  # type: ignore[no-untyped-call]

    def _guard_against_spurious_io_errors(self) -> Any:
        return suppress(Exception)


class _CacheFile(IndexDataCacheFile):
    """Starts anew where the list of what is kept is damaged, as by a machine that lost its power."""

    def _load_index(self) -> Any:
        try:
            return super()._load_index()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - whatever the bytes of a damaged file amount to
            return {}


@cache
def _made_for() -> str:
    """Short name of this kind of processor, and of the versions that code is compiled by and from."""
    processor = llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()
    versions = (version(package) for package in ("llvmlite", "umap-learn", "pynndescent"))
    return sha256("\0".join((*processor, *versions)).encode()).hexdigest()[:12]
