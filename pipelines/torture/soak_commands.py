"""Commands of whole plates, killed at random moments and started again until they are done."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellvim.errors import ExitCode
from pipelines.torture.kills import environment
from pipelines.torture.soak_plates import make_plate, write_models
from pipelines.torture.soak_process import list_leftovers, list_temporary, stage_commands

MOST_KILLS = 2
"""Of one command."""
LONGEST_S = 6.0
"""A kill comes at a random moment before this."""
EXPECTED = (-signal.SIGKILL, -signal.SIGTERM, ExitCode.INTERRUPTED)


@dataclass(frozen=True)
class Killed:
    """One plate whose commands were killed.

    Attributes:
        kills: Signals that met a living command.
        leftovers: Temporary files, locks and parts, once all commands were done.
        problem: How a command ended that should have ended well; None if all did.
    """

    kills: int
    leftovers: tuple[str, ...]
    problem: str | None


def kill_plates(data: Path, out: Path, *, until: Callable[[], bool], seed: int) -> list[Killed]:
    """Take plate after plate through the stages, and kill every command once or twice, until told to stop."""
    draw, found = np.random.default_rng(seed), list[Killed]()
    temporary = out.absolute() / "tmp"
    temporary.mkdir(parents=True)
    models = write_models(out / "models")
    while not until():
        folder = out / f"plate-{len(found)}"
        plate = make_plate(data, folder, len(found))
        kills, problem = 0, None
        for arguments in stage_commands(plate, models[plate.kind], folder):
            met, problem = _finish(arguments, temporary, draw)
            kills += met
            if problem is not None:
                break
        leftovers = list_leftovers(folder) + tuple(sorted(list_temporary(temporary)))
        found.append(Killed(kills, leftovers, problem))
        if problem is None and not leftovers:
            shutil.rmtree(folder)
    return found


def _finish(arguments: list[str], temporary: Path, draw: np.random.Generator) -> tuple[int, str | None]:
    """Kill a command as often as is drawn, then let it end; how often it was met, and what went wrong."""
    met = 0
    for _ in range(int(draw.integers(0, MOST_KILLS + 1))):
        sent = signal.SIGTERM if draw.integers(2) else signal.SIGKILL
        code, words = _run(arguments, temporary, sent=sent, after_s=float(draw.uniform(0.2, LONGEST_S)))
        if code == 0:
            return met, None
        if code not in EXPECTED:
            return met, f"{sent.name}, exit {code}: {words[-500:]}"
        met += 1
    code, words = _run(arguments, temporary)
    return met, None if code == 0 else f"resumed, exit {code}: {words[-500:]}"


def _run(
    arguments: list[str], temporary: Path, *, sent: signal.Signals | None = None, after_s: float | None = None
) -> tuple[int, str]:
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "cellvim", *arguments],
        env={**environment(), "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        _, words = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        if sent is not None:
            process.send_signal(sent)
        _, words = process.communicate()
    return process.returncode, words.decode().strip()
