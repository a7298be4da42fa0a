"""A prefix in an object store, as a place to write plates to."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import tensorstore as ts

from cellvim.errors import DiskError, LockedError, UsageError

# Seconds, not minutes, before a wrong address is reported.
_RETRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "2s"}
NETWORK = {"s3_request_retries": _RETRIES, "gcs_request_retries": _RETRIES}
_LOCK = "lock"


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
