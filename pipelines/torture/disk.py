"""Commands on disks that are too small: what they leave there, and whether they go on once there is room."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from cellvim.atomic import locked
from cellvim.errors import ExitCode, LockedError
from pipelines.torture.kills import SHOWN, environment
from pipelines.torture.stages import Job, all_files, is_temporary

ROOM = "size=1g,nr_inodes=1m"
BALLAST = "ballast"
LOG = "metrics.jsonl"
"""Grows line by line, and is cut back to the checkpoint when a run goes on: any beginning of it is whole."""
LOOK_S = 0.001


class CannotMountError(OSError):
    """A small disk takes a mount, which this process is not allowed to make, or this system does not know."""


@dataclass(frozen=True)
class Trial:
    """One command on one bad disk.

    Attributes:
        stage: Of the command.
        disk: What is bad about it.
        code: Exit status.
        words: What the command said on stderr.
        files: How many files had their final names afterwards.
        truncated: Those of them that are neither an undisturbed run's, nor whole by their own format.
        is_locked: The lock could not be had afterwards.
        is_resumed: With room, the same command ended with the right bytes.
        seconds: Processor time until the command gave up.
    """

    stage: str
    disk: str
    code: int
    words: str
    files: int
    truncated: tuple[str, ...]
    is_locked: bool
    is_resumed: bool
    seconds: float

    @property
    def is_fitting(self) -> bool:
        """The disk was large enough after all."""
        return self.code == 0

    @property
    def failures(self) -> list[str]:
        """Everything that should not be."""
        found = [f"{name} is not what it should be" for name in self.truncated]
        if not self.is_fitting and self.code != ExitCode.DISK:
            found.append(f"exit {self.code}: {self.words[-SHOWN:]}")
        if not self.is_fitting and not has_told(self.words):
            found.append(f"said {self.words[-SHOWN:]!r}")
        if self.is_locked:
            found.append("the lock is still held")
        if not self.is_resumed:
            found.append("not resumed to the same bytes")
        return [f"{self.stage}, disk {self.disk}: {line}" for line in found]


@dataclass(frozen=True)
class Needs:
    """What an undisturbed run takes of a disk at most, and the bytes it leaves there.

    Attributes:
        used_bytes: Most that was taken at any moment, temporary files included.
        inodes: Names at the end.
        files: Content of every result.
    """

    used_bytes: int
    inodes: int
    files: Mapping[str, bytes]


def has_told(words: str) -> bool:
    """Whether a command that failed said what is wrong and what to do, and showed no traceback."""
    lines = words.splitlines()
    told = [sum(line.startswith(f"{label}: ") for line in lines) for label in ("error", "hint")]
    return told == [1, 1] and "Traceback" not in words


def measure_needs(job: Job, disk: Path) -> Needs:
    """Run a stage on a disk of its own that has room.

    Raises:
        CannotMountError: Small disks cannot be made here.
        CalledProcessError: The stage fails even there.
    """
    with mounted(disk, ROOM):
        used = 0
        process = subprocess.Popen(  # noqa: S603
            job.command(disk), env=environment(), stdout=subprocess.DEVNULL
        )
        while process.poll() is None:
            used = max(used, shutil.disk_usage(disk).used)
            time.sleep(LOOK_S)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, job.command(disk))
        files = {name: path.read_bytes() for name, path in job.results(disk).items()}
        return Needs(used, 1 + sum(1 for _ in disk.rglob("*")), files)


def try_disk(
    job: Job, disk: Path, name: str, options: str, needs: Needs, *, room: int | None = None
) -> Trial:
    """Run a stage on a disk that is too small, look at what is there, make room, and run it again.

    Args:
        job: The stage.
        disk: Where the disk is put.
        name: What is bad about it.
        options: It is mounted with these.
        needs: See `measure_needs`.
        room: Bytes that another program leaves, once the writing has begun; None if it leaves the disk alone.
    """
    with mounted(disk, options):
        code, words, seconds = run_on(job, disk, room=room)
        found = {file: path for file, path in all_files(disk).items() if _is_final(file)}
        truncated = tuple(
            sorted(file for file, path in found.items() if not is_right(path, needs.files.get(file)))
        )
        (disk / BALLAST).unlink(missing_ok=True)
        remount(disk, ROOM)
        is_locked = _is_locked((disk / job.lock).parent)
        again, _, _ = run_on(job, disk)
        files = {file: path.read_bytes() for file, path in job.results(disk).items()}
        is_resumed = again == 0 and files == needs.files
    return Trial(job.name, name, code, words, len(found), truncated, is_locked, is_resumed, seconds)


def run_on(job: Job, disk: Path, *, room: int | None = None) -> tuple[int, str, float]:
    """Run a stage on a disk.

    Returns:
        Exit status, what it said on stderr, and seconds of the processor.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(  # noqa: S603
        job.command(disk), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if room is not None:
        _take_room(process, disk, disk / job.lock, room)
    _, words = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return process.returncode, words.decode(), seconds


def is_right(path: Path, wanted: bytes | None) -> bool:
    """Whether a file is the undisturbed run's; or, if that left none of this name, whole by its own format."""
    if wanted is None:
        return is_whole(path)
    content = path.read_bytes()
    return wanted.startswith(content) if path.name == LOG else content == wanted


def is_whole(path: Path) -> bool:
    """Whether a file can be read to its end, by a library that knows its format; no other kind can."""
    try:
        match path.suffix:
            case ".json":
                json.loads(path.read_text())
            case ".parquet":
                pq.read_table(path)
            case ".safetensors":
                with safe_open(path, framework="np") as file:
                    for name in file.keys():  # noqa: SIM118 - not a dict
                        file.get_tensor(name)
            case ".html":
                return path.read_text().rstrip().endswith("</html>")
            case _:
                return False
    except (ValueError, OSError, pa.ArrowException, SafetensorError):
        return False
    return True


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Put a small disk of its own at a folder, for as long as the block runs.

    Raises:
        CannotMountError: Not allowed, or not known here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted disk."""
    _mount("-o", f"remount,{options}", str(folder))


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        message = f"a tmpfs cannot be mounted: {said.decode().strip()}"
        raise CannotMountError(message) from error


def _take_room(process: subprocess.Popen[bytes], disk: Path, lock: Path, room: int) -> None:
    """Halt the command once it holds the lock, and leave it that much of the disk."""
    while process.poll() is None and not lock.exists():
        time.sleep(0.0002)
    process.send_signal(signal.SIGSTOP)
    with (disk / BALLAST).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(disk).free - room))
    process.send_signal(signal.SIGCONT)


def _is_final(name: str) -> bool:
    """Neither a temporary file, nor the lock, which a full disk may leave empty and unheld, nor the other program's."""
    return not is_temporary(name) and not name.endswith("/lock") and name != BALLAST


def _is_locked(folder: Path) -> bool:
    try:
        with locked(folder):
            return False
    except LockedError:
        return True
