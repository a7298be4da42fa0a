"""Run a command and watch how much memory it and all its children take together."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
INTERVAL_S = 0.02


@dataclass(frozen=True)
class Outcome:
    """What a command gave.

    Attributes:
        found: The JSON object on the last line of its output.
        wall_s: Seconds from its start to its end, importing included.
        peak_mib: Most resident memory of the process and its children at one moment, looked at every 20 ms; pages
            that several of them share count for each.
    """

    found: dict[str, Any]
    wall_s: float
    peak_mib: float


class CommandFailedError(Exception):
    """A command ended with an error; the message is the last line that it wrote."""


def run_watched(command: Sequence[str | Path], *, cwd: Path) -> Outcome:
    """Run a command to its end.

    Raises:
        CommandFailedError: It failed.
    """
    started = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    ) as process:
        watch = _Watch(process.pid)
        watch.start()
        printed, complained = process.communicate()
        watch.stop()
    if process.returncode != 0:
        lines = complained.strip().splitlines() or [f"exit code {process.returncode}"]
        raise CommandFailedError(lines[-1][:300])
    found = json.loads(printed.strip().splitlines()[-1])
    peak = max(watch.peak_mib, found.get("peak_mib", 0.0))
    return Outcome(found, time.perf_counter() - started, peak)


class _Watch(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak_mib = 0.0
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(INTERVAL_S):
            self.peak_mib = max(self.peak_mib, resident_mib(self.pid))

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def own_resident_mib(kind: str) -> float:
    """Resident memory of this process now (VmRSS) or at its peak (VmHWM), in MiB; Linux only.

    Not from getrusage: there, the peak begins with that of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith(f"{kind}:"))
    return int(kib) * 1024 / MIB


def resident_mib(pid: int) -> float:
    """Resident memory of a process and its children at this moment; 0 where the system does not tell."""
    total, mapped = 0, set()
    for member in _family(pid):
        try:
            pages = Path(f"/proc/{member}/statm").read_text(encoding="ascii").split()[:2]
        except OSError:
            # It ended in the meantime.
            continue
        # A child that has not begun its program yet still has its parent's memory, to the page.
        if pages[0] not in mapped:
            total += int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
        mapped.add(pages[0])
    return total / MIB


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:
        try:
            threads = list(Path(f"/proc/{member}/task").iterdir())
        except OSError:
            continue
        for thread in threads:
            try:
                members += map(int, (thread / "children").read_text(encoding="ascii").split())
            except OSError:
                continue
    return members
