"""Files that exist whole or not at all, and one writer at a time."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellvim.errors import LockedError

TEMPORARY_MARK = ".tmp-"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place in one step.

    A crash, a full disk or an exception leaves either the old file or none; never a truncated one.

    Args:
        path: Final name. Its folder is made if needed.
        write: Called once with the temporary path, which it must fill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_MARK}{os.getpid()}-{path.name}"
    try:
        write(temporary)
        flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_to_disk(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: object) -> None:
    write_bytes(path, json_bytes(content))


def json_bytes(content: object) -> bytes:
    """Spell JSON with sorted keys, so that the same content is the same bytes."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def flush_to_disk(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer left of `write_atomically` in a folder."""
    for leftover in folder.glob(f"{TEMPORARY_MARK}*"):
        leftover.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder/lock` while the block runs; a second writer is refused and told who holds it.

    A lock left by a process of this machine that no longer lives is taken over.

    Raises:
        LockedError: Another live process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    _acquire(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _acquire(lock: Path) -> None:
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    for _ in range(2):
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            _drop_if_stale(lock)
            continue
        with os.fdopen(descriptor, "w") as file:
            file.write(holder)
        return
    raise LockedError(lock, holder="another process")


def _drop_if_stale(lock: Path) -> None:
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        pid, host = int(holder["pid"]), str(holder["host"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise LockedError(lock, holder="a process that did not say its name") from None
    if host != socket.gethostname() or _is_alive(pid):
        raise LockedError(lock, holder=f"process {pid} on {host}")
    lock.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
