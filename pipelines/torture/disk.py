"""`cellvim ingest` onto disks that are too small, have too few names, or take nothing at all."""

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

import numpy as np

from cellvim.atomic import locked
from cellvim.errors import ExitCode, LockedError
from pipelines.torture.kills import SHOWN, environment
from pipelines.torture.page import Section
from pipelines.torture.screen import NAME, copy_screen, ingest_command, is_temporary, output_files

WELLS = 8
PAGE_BYTES = 4096
ROOM = "size=1g,nr_inodes=1m"
BALLAST = "ballast"
ROOM_AT_FIRST = "size=64m"
READ_ONLY_S = 2.0
"""Processor time within which a target that takes nothing must be found out, start of Python included."""
BODY = """The real command writes a plate onto disks (tmpfs) that fill up at {sizes} moments spread over the life of its output:
another program takes the room once the writing has begun, as a disk that is too small from the beginning is refused
before anything is written. Two such disks are tried as well, and {names} whose names run out. Every time it must end with exit code 5, an error and a hint; every file that has
its final name must be byte for byte the one of an undisturbed run; nobody may hold the plate's lock. Then the disk is
made larger, and the same command must finish with the same bytes. A target that is read-only is found out within
{read_only} s of the processor, the start of Python included.

| disk | exit code | files there | truncated | lock left | resumed to the same bytes | processor, s |
|---|---|---|---|---|---|---|
{rows}

The plate takes {used} MB and {inodes} names.

{footer}
"""


class CannotMountError(OSError):
    """A small disk takes a mount, which this process is not allowed to make, or this system does not know."""


@dataclass(frozen=True)
class Trial:
    """One ingest onto one bad disk.

    Attributes:
        disk: What is bad about it.
        words: What the command said on stderr.
        files: How many files had their final names afterwards.
        truncated: Those of them that differ from the undisturbed run's.
        is_locked: The lock could not be had afterwards.
        is_resumed: With room, the same command ended with the right bytes; None if that was not tried.
        seconds: Processor time until the command gave up.
    """

    disk: str
    code: int
    words: str
    files: int
    truncated: tuple[str, ...]
    is_locked: bool
    is_resumed: bool | None
    seconds: float

    @property
    def failures(self) -> list[str]:
        """Everything that should not be."""
        found = [f"{name} is not what it should be" for name in self.truncated]
        if self.code != ExitCode.DISK:
            found.append(f"exit {self.code}: {self.words[-SHOWN:]}")
        if "error: " not in self.words or "hint: " not in self.words or "Traceback" in self.words:
            found.append(f"said {self.words[-SHOWN:]!r}")
        if self.is_locked:
            found.append("the lock is still held")
        if self.is_resumed is False:
            found.append("not resumed to the same bytes")
        if self.is_resumed is None and self.seconds > READ_ONLY_S:
            found.append(f"took {self.seconds:.1f} s")
        return [f"{self.disk}: {line}" for line in found]


@dataclass(frozen=True)
class Needs:
    """What an undisturbed run takes of a disk, and the bytes it leaves there."""

    used_bytes: int
    inodes: int
    files: Mapping[str, bytes]


def torture_disk(data: Path, out: Path, *, sizes: int, wells: int = WELLS) -> tuple[Needs, list[Trial]]:
    """Ingest onto disks of `sizes` sizes; with more than two, also onto disks without names, and a read-only one.

    Raises:
        CannotMountError: Small disks cannot be made here.
    """
    shutil.rmtree(out, ignore_errors=True)
    source = copy_screen(data, out / "source", wells=wells)
    needs = measure_needs(source, out / "disk")
    # The middles of equal parts: the first disk is full at once, the last one just before the end.
    shares = (np.arange(sizes) + 0.5) / sizes
    pages = [max(1, int(share * needs.used_bytes / PAGE_BYTES)) * PAGE_BYTES for share in shares]
    trials = [
        try_disk(source, out / "disk", f"full at {room / 1e6:.2f} MB", ROOM_AT_FIRST, needs, room=room)
        for room in pages
    ]
    options = {}
    if sizes > 2:
        for room in (pages[0], pages[-1]):
            options[f"of {room / 1e6:.2f} MB"] = f"size={room}"
        for share in shares[:: max(1, sizes // 3)]:
            inodes = max(2, int(share * needs.inodes))
            options[f"room for {inodes} names"] = f"size=1g,nr_inodes={inodes}"
    trials += [try_disk(source, out / "disk", disk, option, needs) for disk, option in options.items()]
    return needs, [*trials, *([try_read_only(source, out / "disk")] if sizes > 2 else [])]


def disk_section(needs: Needs, trials: list[Trial], footer: str) -> Section:
    """Set what became of the plate beside how, where and when it was tried."""
    rows = [
        f"| {trial.disk} | {trial.code} | {trial.files} | {len(trial.truncated)} | "
        f"{'yes' if trial.is_locked else 'no'} | {_answer(trial)} | {trial.seconds:.1f} |"
        for trial in trials
    ]
    body = BODY.format(
        sizes=sum(trial.disk.startswith("full") for trial in trials),
        names=sum(trial.disk.startswith("room") for trial in trials),
        read_only=f"{READ_ONLY_S:.0f}",
        rows="\n".join(rows),
        used=f"{needs.used_bytes / 1e6:.1f}",
        inodes=needs.inodes,
        footer=footer,
    )
    failures = [line for trial in trials for line in trial.failures]
    return Section("Ingest onto a full disk", body, failures)


def measure_needs(source: Path, disk: Path) -> Needs:
    """Ingest onto a disk with room for everything."""
    with mounted(disk, ROOM):
        out = disk / "plates"
        subprocess.run(ingest_command(source, out), check=True, env=environment(), stdout=subprocess.DEVNULL)  # noqa: S603
        listed = shutil.disk_usage(disk)
        files = {name: path.read_bytes() for name, path in output_files(out).items()}
        inodes = 1 + sum(1 for _ in disk.rglob("*"))
    return Needs(listed.used, inodes, files)


def try_disk(
    source: Path, disk: Path, name: str, options: str, needs: Needs, *, room: int | None = None
) -> Trial:
    """Ingest onto a disk that is too small, look at what is there, make room, and ingest again.

    Args:
        source: The plate's images.
        disk: Where the disk is put.
        name: What is bad about it.
        options: It is mounted with these.
        needs: See `measure_needs`.
        room: Bytes that another program leaves, once the writing has begun; None if it leaves the disk alone.
    """
    with mounted(disk, options):
        code, words, seconds = _ingest(source, disk, room=room)
        found = {
            file: path.read_bytes() for file, path in output_files(disk / "plates").items() if _is_final(file)
        }
        truncated = tuple(sorted(file for file in found if found[file] != needs.files.get(file)))
        (disk / BALLAST).unlink(missing_ok=True)
        remount(disk, ROOM)
        is_locked = _is_locked(disk / "plates" / f"{NAME}.cellvim")
        again, _, _ = _ingest(source, disk)
        files = {file: path.read_bytes() for file, path in output_files(disk / "plates").items()}
        is_resumed = again == 0 and files == needs.files
    return Trial(name, code, words, len(found), truncated, is_locked, is_resumed, seconds)


def try_read_only(source: Path, disk: Path) -> Trial:
    """Ingest onto a disk that takes nothing."""
    with mounted(disk, ROOM):
        remount(disk, "ro")
        code, words, seconds = _ingest(source, disk)
        return Trial("read-only", code, words, 0, (), is_locked=False, is_resumed=None, seconds=seconds)


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


def _ingest(source: Path, disk: Path, *, room: int | None = None) -> tuple[int, str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(  # noqa: S603
        ingest_command(source, disk / "plates"),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if room is not None:
        _take_room(process, disk, room)
    _, words = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return process.returncode, words.decode(), seconds


def _take_room(process: subprocess.Popen[bytes], disk: Path, room: int) -> None:
    """Halt the command once it holds the plate's lock, and leave it that much of the disk."""
    lock = disk / "plates" / f"{NAME}.cellvim" / "lock"
    while process.poll() is None and not lock.exists():
        time.sleep(0.0002)
    process.send_signal(signal.SIGSTOP)
    with (disk / BALLAST).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(disk).free - room))
    process.send_signal(signal.SIGCONT)


def _is_final(name: str) -> bool:
    """Neither a temporary file nor the lock, which a full disk may leave empty and unheld."""
    return not is_temporary(name) and not name.endswith("/lock")


def _is_locked(companion: Path) -> bool:
    try:
        with locked(companion):
            return False
    except LockedError:
        return True


def _answer(trial: Trial) -> str:
    return {True: "yes", False: "no", None: "not tried"}[trial.is_resumed]
