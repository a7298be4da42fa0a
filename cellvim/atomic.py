"""Files that exist whole or not at all, and one writer at a time."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvim.errors import DiskError, LockedError

if TYPE_CHECKING:
    import polars as pl

TEMPORARY_MARK = ".tmp-"

_MOST_HOLDER_BYTES = 4096
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def write_atomically(path: Path, write: Callable[[Path], object], *, flushes_folder: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place in one step.

    A crash, a full disk or an exception leaves either the old file or none; never a truncated one.

    Args:
        path: Final name. Its folder is made if needed.
        write: Called once with the temporary path, which it must fill.
        flushes_folder: Whether the name is on stable storage, too, on return; the content always is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_MARK}{os.getpid()}-{path.name}"
    try:
        write(temporary)
        flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if flushes_folder:
        flush_to_disk(path.parent)


def write_bytes(path: Path, content: bytes, *, flushes_folder: bool = True) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content), flushes_folder=flushes_folder)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: object) -> None:
    write_bytes(path, json_bytes(content))


def write_parquet(path: Path, table: "pl.DataFrame") -> None:
    """Write a table with zstd."""
    write_atomically(path, lambda temporary: table.write_parquet(temporary, compression="zstd"))


def json_bytes(content: object, *, is_indented: bool = True) -> bytes:
    """Spell JSON with sorted keys, so that the same content is the same bytes.

    Args:
        content: JSON-able.
        is_indented: For people; on one line it takes a twentieth of the time.
    """
    indent = 2 if is_indented else None
    text = json.dumps(content, indent=indent, sort_keys=True, ensure_ascii=False) + "\n"
    # Bytes of a file name that are no text are escaped, as JSON does it.
    return text.encode(errors="backslashreplace")


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


def require_writable(path: Path) -> None:
    """Find out that an output cannot be written before anything is read or computed for it.

    Nothing is made: the nearest folder that exists, `path` or above it, is asked. Its disk may still be full.

    Args:
        path: File or folder that is to be written.

    Raises:
        DiskError: That folder takes no files.
    """
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        found = f"{path} cannot be written: the disk of {folder} is read-only"
        raise DiskError(found, hint="choose another place, or have that disk mounted for writing")
    found = f"{path} cannot be written: {folder} is not yours to write into"
    raise DiskError(found, hint="choose another place, or have its owner give you the right to write there")


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold `folder/lock` while the block runs; a second writer is refused and told who holds it.

    The kernel holds the lock and drops it with the process, however that ends: a lock file that a killed
    process left, here or on a lost machine, blocks nobody. What the file says is only for the message.

    Yields:
        The open file that holds it: a child process that inherits it holds the folder until it ends, too.

    Raises:
        LockedError: Another live process holds the folder, or another thread of this one.
        DiskError: The file system offers no locks.
    """
    lock = folder / "lock"
    descriptor = _acquire(lock)
    try:
        yield descriptor
    finally:
        _release(lock, descriptor)


def is_locked(folder: Path) -> bool:
    """Whether some process holds `locked(folder)`; one that looks for it in this very moment may be refused."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(lock: Path) -> int:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            # The former holder removed the folder between the two steps.
            continue
        try:
            _lock(lock, descriptor)
            if _is_at(lock, descriptor):
                _sign(lock, descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The former holder removed this very file after it was opened: it locks nothing any more.
        os.close(descriptor)


def _lock(lock: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(lock, holder=_holder(descriptor)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        found = (
            f"{lock} cannot be locked: the file system of {lock.parent} offers no locks ({error.strerror})"
        )
        hint = "write to another disk, or have this one mounted with locks (Lustre: -o flock)"
        raise DiskError(found, hint=hint) from error


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, _MOST_HOLDER_BYTES, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, LookupError, TypeError):
        # It has not signed yet.
        return "another process"


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(lock: Path, descriptor: int) -> None:
    """Say who holds the lock; where there is no room for that, there is none for the output either."""
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
    except OSError:
        lock.unlink(missing_ok=True)
        raise


def _release(lock: Path, descriptor: int) -> None:
    try:
        # Only while it is held, and only this one: a file put there by somebody else is not ours to remove.
        if _is_at(lock, descriptor):
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
