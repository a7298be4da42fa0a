"""A folder on a disk or in an object store, whose files are there whole or not at all.

Disks get temporary names, fsync and rename; object stores put whole objects by themselves. tensorstore speaks to
those, since it reads their pixels anyway: no further library, the same credentials for writing and for reading.
"""

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import tensorstore as ts

from cellvim.atomic import flush_to_disk, locked, remove_leftovers, write_bytes
from cellvim.errors import DiskError, LockedError, UsageError

SCHEMES = ("s3", "gs", "memory", "file")
# Seconds, not minutes, before a wrong address is reported.
_RETRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "2s"}
NETWORK = {"s3_request_retries": _RETRIES, "gcs_request_retries": _RETRIES}
# Small files by the thousand wait for the disk or the network, not for the processor.
_AT_ONCE = 16
_LOCK = "lock"


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

    def locked(self) -> AbstractContextManager[None]:
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

    def locked(self) -> AbstractContextManager[None]:
        return locked(self.path)

    def kvstore(self, name: str) -> dict[str, Any]:
        # Resolved, as tensorstore refuses a path with `..` in it.
        return {"driver": "file", "path": f"{(self.path / name).resolve()}/"}


class ObjectPlace:
    """A prefix in an object store: S3 and what speaks its language, Google Cloud Storage, or this process's memory.

    Credentials, region and ``AWS_ENDPOINT_URL`` come from the environment, as everywhere.
    """

    def __init__(self, url: str) -> None:
        self.location = url.rstrip("/")
        self.name = self.location.rpartition("/")[2]
        self._spec = _spec_of(self.location)

    def __repr__(self) -> str:
        return f"ObjectPlace({self.location!r})"

    @property
    def address(self) -> str:
        return self.location

    def at(self, name: str) -> "ObjectPlace":
        if name.startswith("../"):
            return ObjectPlace(f"{self.location.rpartition('/')[0]}/{name[3:]}")
        return ObjectPlace(f"{self.location}/{name}" if name else self.location)

    def read(self, name: str) -> bytes:
        with self._errors(name):
            found = self._store.read(name).result()
        if found.state != "value":
            raise FileNotFoundError(errno.ENOENT, "there is no such object", f"{self.location}/{name}")
        return bytes(found.value)

    def write(self, name: str, content: bytes) -> None:
        with self._errors(name):
            self._store.write(name, content).result()

    def has(self, name: str, size_bytes: int | None = None) -> bool:  # noqa: ARG002 - the protocol
        with self._errors(name):
            return bool(self._store.list(ts.KvStore.KeyRange(name, f"{name}\0")).result())

    def flush(self) -> None:
        """What was accepted is there."""

    def names(self, prefix: str = "") -> list[str]:
        with self._errors(prefix):
            return sorted(key.decode() for key in self._store.list(_range(prefix)).result())

    def delete(self, prefix: str) -> None:
        with self._errors(prefix):
            if prefix and not prefix.endswith("/"):
                self._store.write(prefix, None).result()
            else:
                self._store.delete_range(_range(prefix)).result()

    def sweep(self) -> None:
        """Nothing is ever half there."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold an object that only one can create. It outlives a killed process: then somebody has to delete it."""
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        with self._errors(_LOCK):
            absent = self._store.read(_LOCK).result()
            ours = (
                absent.state == "missing"
                and self._store.write(_LOCK, holder, if_equal=absent.stamp.generation).result().generation
            )
        if not ours:
            lock = f"{self.location}/{_LOCK}"
            raise LockedError(lock, holder=self._holder())
        try:
            yield
        finally:
            # Only this one: somebody may have taken us for dead, deleted it, and put their own there.
            with self._errors(_LOCK):
                self._store.write(_LOCK, None, if_equal=ours).result()

    def kvstore(self, name: str) -> dict[str, Any]:
        return {**self._spec, "path": f"{self._spec['path']}{name}/" if name else self._spec["path"]}

    @property
    def _store(self) -> Any:
        return _open_store(json.dumps(self._spec))

    def _holder(self) -> str:
        try:
            holder = json.loads(self.read(_LOCK))
            return f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, LookupError, TypeError):
            return "another process"

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Say what tensorstore reports as an error a user can act on."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            # What follows in brackets is the server's whole answer.
            found = f"{self.location}/{name}: {str(error).splitlines()[0].partition(' [')[0]}"
            hint = "check the address, the credentials (AWS_ACCESS_KEY_ID ...) and the network"
            raise DiskError(found, hint=f"{hint}, then run the same command again: it resumes") from error


@lru_cache
def context() -> Any:
    """What all stores of this process share; ``memory://`` lives in it."""
    return ts.Context(NETWORK)


@lru_cache(maxsize=256)
def _open_store(spec: str) -> Any:
    return ts.KvStore.open(json.loads(spec), context=context()).result()


def _spec_of(url: str) -> dict[str, Any]:
    try:
        spec: dict[str, Any] = ts.KvStore.Spec(f"{url}/").to_json()
    except ValueError as error:
        found = f"{url} is no address of an object store: {str(error).splitlines()[0]}"
        raise UsageError(found, hint="write it like s3://bucket/folder") from error
    if spec["driver"] == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        # A server of one's own has no regions to look up.
        spec |= {"endpoint": endpoint, "aws_region": os.environ.get("AWS_REGION", "us-east-1")}
    if spec["driver"] == "s3" and "AWS_ACCESS_KEY_ID" in os.environ:
        # Otherwise all other ways to get credentials are set up first, and complain aloud of files that are not there.
        spec |= {"aws_credentials": {"type": "environment"}}
    return spec


def _range(prefix: str) -> Any:
    if not prefix:
        return ts.KvStore.KeyRange()
    return ts.KvStore.KeyRange(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))
