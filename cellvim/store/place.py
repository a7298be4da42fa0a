"""A folder on a disk or in an object store, whose files are there whole or not at all.

Disks get temporary names, fsync and rename; object stores put whole objects by themselves. tensorstore speaks to
those, since it reads their pixels anyway: no further library, the same credentials for writing and for reading.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from cellvim.atomic import flush_to_disk, locked, remove_leftovers, write_bytes
from cellvim.errors import UsageError
from cellvim.store.object_place import ObjectPlace

SCHEMES = ("s3", "gs", "memory", "file")
# Small files by the thousand wait for the disk or the network, not for the processor.
_AT_ONCE = 16


class Place(Protocol):
    """A folder and everything below it. Names are relative, with forward slashes.

    Attributes:
        location: Path or URL, for messages.
        address: The same as `open_place` takes it: a path, or the URL as text.
        name: Last part of the location.
    """

    location: str
    name: str

    @property
    def address(self) -> Path | str: ...

    def at(self, name: str) -> Self:
        """The folder of that name inside this one; ``../NAME`` is its neighbour."""
        ...

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError if there is no such file."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place in one step, its content on stable storage; its name may need `flush`."""
        ...

    def flush(self) -> None:
        """Put the names of all files on stable storage."""
        ...

    def has(self, name: str, size_bytes: int | None = None) -> bool:
        """Whether there is such a file, on a disk also of that size: an object is there whole or not at all."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """Every file whose name begins with `prefix`, a folder's name with its slash or nothing, sorted."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove a file, or with a slash at the end everything below a folder; no matter if nothing is there."""
        ...

    def sweep(self) -> None:
        """Remove what a killed writer left."""
        ...

    def locked(self) -> AbstractContextManager[int | None]:
        """Hold the folder while the block runs.

        Raises:
            LockedError: Somebody else holds it.
        """
        ...

    def kvstore(self, name: str) -> dict[str, Any]:
        """Where tensorstore finds a folder inside this one."""
        ...


def open_place(location: str | Path) -> Place:
    """Find the place that a path or a URL means.

    Raises:
        UsageError: A URL of a kind that is not spoken here.
    """
    text = str(location)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if not scheme:
        return LocalPlace(Path(location))
    if scheme == "file":
        return LocalPlace(Path(urlsplit(text).path))
    if scheme not in SCHEMES:
        found = f"{text}: {scheme}:// is not supported"
        raise UsageError(found, hint=f"use a path, or one of {', '.join(f'{name}://' for name in SCHEMES)}")
    return ObjectPlace(text)


def read_all(place: Place, names: Sequence[str]) -> Iterator[bytes]:
    """Read many small files, several at a time, in the order of `names`."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(place.read, names)


def write_all(place: Place, contents: Mapping[str, bytes]) -> None:
    """Write many small files, several at a time: each waits for the disk, not for the others."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(place.write, contents, contents.values()):
            pass


class LocalPlace:
    """A folder on a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        self.name = path.name or path.resolve().name

    def __repr__(self) -> str:
        return f"LocalPlace({self.location!r})"

    @property
    def address(self) -> Path:
        return self.path

    def at(self, name: str) -> "LocalPlace":
        is_neighbour = name.startswith("../")
        return LocalPlace(self.path.with_name(name[3:]) if is_neighbour else self.path / name)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        write_bytes(self.path / name, content, flushes_folder=False)

    def flush(self) -> None:
        folders = [self.path.parent, self.path, *self.path.rglob("*/")]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(flush_to_disk, folders):
                pass

    def has(self, name: str, size_bytes: int | None = None) -> bool:
        path = self.path / name
        return path.is_file() and size_bytes in (None, path.stat().st_size)

    def names(self, prefix: str = "") -> list[str]:
        folder = self.path / prefix
        found = (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else iter(())
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def delete(self, prefix: str) -> None:
        path = self.path / prefix
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        if self.path.is_dir():
            for folder in (self.path, *self.path.rglob("*/")):
                remove_leftovers(folder)

    def locked(self) -> AbstractContextManager[int | None]:
        return locked(self.path)

    def kvstore(self, name: str) -> dict[str, Any]:
        # Resolved, as tensorstore refuses a path with `..` in it.
        return {"driver": "file", "path": f"{(self.path / name).resolve()}/"}
