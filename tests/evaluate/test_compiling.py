"""Numba's cache on disk: a help where there is a disk, and never the end of an evaluation."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core import caching, dispatcher

from cellvim.evaluate.compiling import compiled_code_kept

CODE = "def doubled(x):\n    return 2 * x\n"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A new dispatcher of the same function on each call, as in another process, with its cache in `tmp_path`."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "source.py"
    source.write_text(CODE)

    def new() -> Any:
        found: dict[str, Any] = {}
        exec(compile(CODE, str(source), "exec"), found)  # noqa: S102 - the line above
        with compiled_code_kept():
            return numba.njit(cache=True)(found["doubled"])

    return new


def test_what_was_compiled_is_loaded_by_the_next_process(make: Callable[[], Any]) -> None:
    first, second = make(), make()
    assert (first(3), second(3)) == (6, 6)
    assert (sum(first.stats.cache_hits.values()), sum(second.stats.cache_hits.values())) == (0, 1)
    assert dispatcher.FunctionCache is caching.FunctionCache, "others keep Numba's own"


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_compiled_again_and_mended(
    suffix: str, make: Callable[[], Any], tmp_path: Path
) -> None:
    assert make()(3) == 6
    (damaged,) = tmp_path.rglob(f"*.{suffix}")
    damaged.write_bytes(b"")
    assert make()(3) == 6
    third = make()
    assert third(3) == 6
    assert sum(third.stats.cache_hits.values()) == 1


def test_a_full_disk_stops_nothing(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", is_full)
    assert make()(3) == 6


def test_without_any_folder_to_write_to_nothing_is_kept(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert make()(3) == 6


def test_processors_of_another_kind_have_files_of_their_own(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make()(3) == 6
    monkeypatch.setattr("cellvim.evaluate.compiling._made_for", lambda: "another")
    other = make()
    assert other(3) == 6
    assert not other.stats.cache_hits
