"""Kill a command at random moments, start it again, and compare every byte with a run that nobody disturbed.

After a random share of the time that an undisturbed run takes, whatever it is doing then (every fifth time: once it
writes a file), it gets a signal, and the same command is started again. One to three kills later the run may finish;
then its files are compared, and the next run begins, until enough kills have met a living process. Delays are drawn
from the seed; the moments they hit are the machine's.
"""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cellvim.errors import ExitCode
from pipelines.torture.page import Row, Section

logger = logging.getLogger(__name__)

MOST_KILLS = 3
"""Kills of one run: some runs are killed again while they resume, and enough of them are begun."""
SHOWN = 500
"""Characters of a failed command's last words."""
# What a signal may end in: the signal itself, as before the command has put up its handlers, or our own exit code.
EXPECTED_CODES: Mapping[signal.Signals, tuple[int, ...]] = {
    signal.SIGKILL: (-signal.SIGKILL,),
    signal.SIGTERM: (-signal.SIGTERM, ExitCode.INTERRUPTED),
    signal.SIGINT: (-signal.SIGINT, ExitCode.KEYBOARD),
}


@dataclass(frozen=True)
class Stage:
    """A command to be killed.

    Attributes:
        name: As the page calls it.
        command: From the folder of a run, the number of the run and that of the attempt, to the command line.
        results: Every file, by name, that two runs must have in common.
        phase: What a run had come to, as its folder tells.
        writing: The phase in which a file is being written.
    """

    name: str
    command: Callable[[Path, int, int], list[str]]
    results: Callable[[Path], Mapping[str, Path]]
    phase: Callable[[Path], str]
    writing: str


@dataclass(frozen=True)
class Kill:
    """One signal that met a living process.

    Attributes:
        delay_s: Seconds after the start of the process.
        sent: Name of the signal.
        code: Exit status.
        phase: See `Stage.phase`.
        lasted_s: Seconds by the clock from the signal to the end of the process.
    """

    delay_s: float
    sent: str
    code: int
    phase: str
    lasted_s: float


@dataclass
class Campaign:
    """All kills of one stage, and what they did to its results."""

    stage: str
    undisturbed_s: float
    compared: tuple[str, ...] = ()
    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    differing_bytes: int = 0
    differing_files: set[str] = field(default_factory=set)
    """Files that differ, are missing, or should not be there, such as temporary ones."""
    finished: dict[str, list[float]] = field(default_factory=dict)
    """Signals that met a process which finished its work nonetheless, and the seconds that it took."""
    unexpected: list[str] = field(default_factory=list)
    """Ends of a process that are neither a kill nor success."""

    @property
    def is_passed(self) -> bool:
        return not (self.differing_bytes or self.differing_files or self.unexpected)

    def count(self, sent: str) -> int:
        return sum(kill.sent == sent for kill in self.kills)

    def longest_s(self, sent: str) -> float:
        """Longest time from such a signal to the end of the process, however it ended."""
        lasted = [kill.lasted_s for kill in self.kills if kill.sent == sent]
        return max([0.0, *lasted, *self.finished.get(sent, [])])


def torture(stage: Stage, out: Path, signals: Sequence[signal.Signals], *, seed: int) -> Campaign:
    """Send each of the signals to a living run, and compare every run that was finished."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    whole, started = out / "whole", time.perf_counter()
    subprocess.run(  # noqa: S603
        stage.command(whole, 0, 0), check=True, env=environment(), stdout=subprocess.DEVNULL
    )
    campaign = Campaign(stage.name, time.perf_counter() - started)
    wanted = hash_files(whole, stage)
    campaign.compared = tuple(wanted)
    generator = np.random.default_rng(seed)
    while len(campaign.kills) < len(signals):
        run, attempt = out / f"run-{campaign.runs}", 0
        for _ in range(min(int(generator.integers(1, MOST_KILLS + 1)), len(signals) - len(campaign.kills))):
            sent = signals[len(campaign.kills)]
            delay_s = float(generator.uniform(0, campaign.undisturbed_s))
            if not is_killed(stage, run, attempt, sent, campaign, delay_s=delay_s):
                break
            attempt += 1
        finish_run(stage.command(run, campaign.runs, attempt), campaign)
        campaign.differing_bytes += differing_bytes(whole, run, stage)
        differing = {name for name, _ in wanted.items() ^ hash_files(run, stage).items()}
        campaign.differing_files |= differing
        if not differing:
            shutil.rmtree(run)
        campaign.runs += 1
        logger.info(
            "%s: %d of %d kills, %d bytes differ",
            stage.name, len(campaign.kills), len(signals), campaign.differing_bytes,
        )  # fmt: skip
    return campaign


def shuffled(counts: Mapping[signal.Signals, int], *, seed: int) -> list[signal.Signals]:
    """So many signals of each kind, in an order drawn from the seed."""
    signals = [sent for sent, count in counts.items() for _ in range(count)]
    return [signals[place] for place in np.random.default_rng(seed).permutation(len(signals))]


def campaign_section(
    campaign: Campaign, title: str, body: str, phases: Sequence[str], rows: tuple[Row, ...], **facts: object
) -> Section:
    """Set what a campaign found beside how, where and when it was found.

    Args:
        body: Text of the section, with the names that all campaigns give, and those of `facts`, in braces.
        facts: What else the text tells, its footer among them.
    """
    found = body.format(
        killed=campaign.count("SIGKILL"),
        terminated=campaign.count("SIGTERM"),
        stopped=campaign.count("SIGINT"),
        runs=campaign.runs,
        files=len(campaign.compared),
        differing_files=len(campaign.differing_files),
        differing=campaign.differing_bytes,
        unexpected=len(campaign.unexpected),
        seconds=campaign.undisturbed_s,
        finished=finished_words(campaign),
        phases=phase_table(campaign, phases),
        **facts,
    )
    differing = [f"{campaign.stage}: {name} differs" for name in sorted(campaign.differing_files)]
    return Section(title, found, [*differing, *campaign.unexpected], rows)


def is_killed(
    stage: Stage, run: Path, attempt: int, sent: signal.Signals, campaign: Campaign, *, delay_s: float
) -> bool:
    """Start a run and send it a signal after some time; False if it came to its end nonetheless."""
    process = subprocess.Popen(  # noqa: S603
        stage.command(run, campaign.runs, attempt),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    sent_at = None
    try:
        _, error = process.communicate(timeout=delay_s)
    except subprocess.TimeoutExpired:
        if len(campaign.kills) % 5 == 4:
            _wait_for_a_write(process, run, stage)
        sent_at = time.perf_counter()
        process.send_signal(sent)
        _, error = process.communicate()
    lasted_s = time.perf_counter() - sent_at if sent_at else 0.0
    if process.returncode == 0:
        if sent_at:
            campaign.finished.setdefault(sent.name, []).append(lasted_s)
        return False
    words = error.decode().strip()
    if not _is_expected(process.returncode, sent, words):
        campaign.unexpected.append(f"{sent.name}, exit {process.returncode}: {words[-SHOWN:]}")
        return process.returncode < 0
    campaign.kills.append(Kill(delay_s, sent.name, process.returncode, stage.phase(run), lasted_s))
    return True


def finish_run(command: list[str], campaign: Campaign) -> None:
    """Start a killed run again and let it end; the campaign remembers if it did not."""
    resumed = subprocess.run(  # noqa: S603
        command, check=False, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if resumed.returncode:
        end = resumed.stderr.decode().strip()[-SHOWN:]
        campaign.unexpected.append(f"resumed, exit {resumed.returncode}: {end}")


def hash_files(run: Path, stage: Stage) -> dict[str, str]:
    """SHA-256 of every result of a run."""
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(stage.results(run).items())
    }


def differing_bytes(left: Path, right: Path, stage: Stage) -> int:
    """Count the bytes in which the results of two runs differ; a missing file differs in all of its own."""
    total = 0
    ours, theirs = stage.results(left), stage.results(right)
    for name in ours.keys() | theirs.keys():
        first, second = _content(ours.get(name)), _content(theirs.get(name))
        shared = min(len(first), len(second))
        total += int(np.count_nonzero(first[:shared] != second[:shared])) + abs(len(first) - len(second))
    return total


def phase_table(campaign: Campaign, phases: Sequence[str]) -> str:
    """One row per phase and one column per signal: how many met a run there."""
    sent = list(dict.fromkeys(kill.sent for kill in campaign.kills))
    count = Counter((kill.phase, kill.sent) for kill in campaign.kills)
    asked = Counter(kill.phase for kill in campaign.kills if kill.code > 0)
    rows = [
        f"| {phase} | {' | '.join(str(count[phase, name]) for name in sent)} | {asked[phase]} |"
        for phase in phases
    ]
    head = f"| where the signal found it | {' | '.join(sent)} | of these with an exit code of ours |"
    return "\n".join([head, "|---" * (len(sent) + 2) + "|", *rows])


def kill_row(campaign: Campaign, *, asked: int, test: str) -> Row:
    """The figure of a stage: how many kills, and whether anything differs after them."""
    count = campaign.count("SIGKILL")
    found = (
        f"{count} kills: {campaign.differing_bytes} bytes differ, {len(campaign.unexpected)} unexpected ends"
    )
    return Row(
        "kill -9",
        f"{test} at random moments, then resumed",
        f"{asked} kills: byte-identical to an undisturbed run",
        found,
        is_met=campaign.is_passed and count >= asked,
    )


def finished_words(campaign: Campaign) -> str:
    """Say how many signals came too late to stop anything."""
    told = [f"{len(lasted)} {name}" for name, lasted in campaign.finished.items()]
    return f"Besides, {', '.join(told)} met a run that was about to end, and did." if told else ""


def environment() -> dict[str, str]:
    """Environment of every command: one thread of computation, so that two runs have the same bytes."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _content(path: Path | None) -> np.ndarray:
    return np.frombuffer(path.read_bytes() if path is not None else b"", dtype=np.uint8)


def _is_expected(code: int, sent: signal.Signals, words: str) -> bool:
    """The right code; and where the command still had a say, an error and a hint, not a traceback."""
    if code not in EXPECTED_CODES[sent]:
        return False
    return code < 0 or ("error: " in words and "hint: " in words and "Traceback" not in words)


def _wait_for_a_write(process: subprocess.Popen[bytes], run: Path, stage: Stage) -> None:
    """Writing takes a small share of a run's life, so a fifth of the kills go on to the next write."""
    while process.poll() is None and stage.phase(run) != stage.writing:
        time.sleep(0.0002)
