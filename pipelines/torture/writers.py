"""Eight processes that write the same output at the same moment: one writes, seven say who does."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellvim.errors import ExitCode
from pipelines.torture.kills import SHOWN, environment
from pipelines.torture.page import Row, Section
from pipelines.torture.stages import JOBS, Job, ingest_job

WRITERS = 8
ASKED_ROUNDS = 20
WELLS = 4
PATIENCE_S = 120.0
STAGES = ("embed", "pretrain", "evaluate")
# The command itself, but for a line that it waits for, so that all of them set out at the same moment.
WAIT_AND_RUN = "import sys; import cellvim.cli, {package}; print('ready', flush=True); sys.stdin.readline(); cellvim.cli.main()"
_PID = re.compile(r" is being written by process (\d+) on ")
INGEST = """{writers} processes begin to ingest the same plate into the same folder at the same moment, {rounds} times. The first to
hold the plate's lock is halted until the others have ended, as if it had much to write. One must win; the others must
end with exit code 4 and name the process of the winner. Afterwards `cellvim verify` must find the plate intact, and every
file must be that of an undisturbed run.

| rounds | winners | refused with exit code 4 | of these naming the winner | plates intact and the same | unexpected |
|---|---|---|---|---|---|
{rows}

{footer}
"""
OTHERS = """{writers} processes begin to embed into one table, pretrain into one run folder or evaluate into one report folder, each by
the same command and at the same moment. The first to hold the lock is halted until the others have ended. One must win;
the others must end with exit code 4 and name the process of the winner. Afterwards every file must be that of an
undisturbed run. As each process loads torch first, there are fewer rounds than of ingest.

| stage | rounds | winners | refused with exit code 4 | of these naming the winner | results the same | unexpected |
|---|---|---|---|---|---|---|
{rows}

{footer}
"""


@dataclass(frozen=True)
class Round:
    """One race.

    Attributes:
        writers: Processes that took part.
        winners: Those that ended well.
        refused: Processes that ended with exit code 4.
        named: Those of them that named the winner's process.
        is_intact: Every file is the right one, and of a plate `verify` found no damage.
        unexpected: Other ends.
    """

    writers: int
    winners: int
    refused: int
    named: int
    is_intact: bool
    unexpected: tuple[str, ...]

    @property
    def is_passed(self) -> bool:
        others = self.writers - 1
        return (self.winners, self.refused, self.named, self.is_intact) == (1, others, others, True)


def torture_writers(data: Path, out: Path, *, rounds: int, wells: int = WELLS) -> list[Round]:
    """Let eight processes write one plate, `rounds` times."""
    shutil.rmtree(out, ignore_errors=True)
    return race(ingest_job(data, out, wells=wells), out, rounds=rounds)


def torture_other_writers(
    out: Path, *, rounds: int, stages: Sequence[str] = STAGES, writers: int = WRITERS
) -> dict[str, list[Round]]:
    """Let eight processes write one table, one run and one report, each `rounds` times."""
    shutil.rmtree(out, ignore_errors=True)
    return {name: race(JOBS[name](out / name), out / name, rounds=rounds, writers=writers) for name in stages}


def race(job: Job, out: Path, *, rounds: int, writers: int = WRITERS) -> list[Round]:
    """Let several processes do the same job, and compare what the winner leaves with an undisturbed run."""
    subprocess.run(job.command(out / "whole"), check=True, env=environment(), stdout=subprocess.DEVNULL)  # noqa: S603
    wanted = {name: path.read_bytes() for name, path in job.results(out / "whole").items()}
    found = []
    for number in range(rounds):
        found.append(_race(job, out / f"round-{number}", wanted, writers))
        if found[-1].is_passed:
            shutil.rmtree(out / f"round-{number}")
    return found


def writers_section(rounds: Sequence[Round], footer: str) -> Section:
    """Set how the races of ingest ended beside how, where and when they were run."""
    body = INGEST.format(writers=WRITERS, rounds=len(rounds), rows=f"| {_counts(rounds)} |", footer=footer)
    row = _row("ingest", rounds, f"{WRITERS} processes x {ASKED_ROUNDS} rounds", ASKED_ROUNDS)
    return Section("Eight writers on one plate", body, _failures("ingest", rounds), (row,))


def other_writers_section(found: Mapping[str, Sequence[Round]], footer: str) -> Section:
    """Set how the races of the other stages ended beside how, where and when they were run."""
    lines = [f"| {stage} | {_counts(rounds)} |" for stage, rounds in found.items()]
    body = OTHERS.format(writers=WRITERS, rows="\n".join(lines), footer=footer)
    failures = [line for stage, rounds in found.items() for line in _failures(stage, rounds)]
    rows = tuple(_row(stage, rounds, f"{WRITERS} processes", 1) for stage, rounds in found.items())
    return Section("Eight writers of one table, run or report", body, failures, rows)


def _counts(rounds: Sequence[Round]) -> str:
    counts = (
        len(rounds),
        sum(one.winners for one in rounds),
        sum(one.refused for one in rounds),
        sum(one.named for one in rounds),
        sum(one.is_intact for one in rounds),
        sum(len(one.unexpected) for one in rounds),
    )
    return " | ".join(map(str, counts))


def _failures(stage: str, rounds: Sequence[Round]) -> list[str]:
    return [f"{stage}, round {number}: {one}" for number, one in enumerate(rounds) if not one.is_passed]


def _row(stage: str, rounds: Sequence[Round], asked: str, least: int) -> Row:
    winners, refused = sum(one.winners for one in rounds), sum(one.refused for one in rounds)
    found = f"{len(rounds)} rounds: {winners} winners, {refused} exit 4, {sum(one.is_intact for one in rounds)} intact"
    is_met = len(rounds) >= least and all(one.is_passed for one in rounds)
    return Row(
        "two writers",
        f"`{stage}` into one output",
        f"{asked}: 1 winner each, the others exit 4",
        found,
        is_met,
    )


def _race(job: Job, out: Path, wanted: Mapping[str, bytes], writers: int) -> Round:
    command = [sys.executable, "-c", WAIT_AND_RUN.format(package=job.package), *job.command(out)[3:]]
    processes = [
        subprocess.Popen(  # noqa: S603
            command, env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(writers)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None  # noqa: S101 - asked for above
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None  # noqa: S101 - asked for above
        process.stdin.write("go\n")
        process.stdin.flush()
    winner = _halt_the_first(processes, out / job.lock)
    ends = [(process, process.communicate()[1]) for process in processes if process is not winner]
    if winner is not None:
        winner.send_signal(signal.SIGCONT)
        ends.append((winner, winner.communicate()[1]))
    return _judge(job, ends, out, wanted)


def _halt_the_first(processes: list[subprocess.Popen[str]], lock: Path) -> subprocess.Popen[str] | None:
    """Stop the process that holds the lock; None if nobody ever did."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        try:
            holder = re.search(r'"pid": (\d+)', lock.read_text())
        except OSError:
            holder = None
        for process in processes:
            if holder is not None and process.pid == int(holder[1]):
                process.send_signal(signal.SIGSTOP)
                return process
        time.sleep(0.0002)
    return None


def _judge(
    job: Job, ends: Sequence[tuple[subprocess.Popen[str], str]], out: Path, wanted: Mapping[str, bytes]
) -> Round:
    winners = [process.pid for process, _ in ends if process.returncode == 0]
    refused = [words for process, words in ends if process.returncode == ExitCode.EXISTS]
    names = [match for words in refused if (match := _PID.search(words)) is not None]
    files = {name: path.read_bytes() for name, path in job.results(out).items()}
    return Round(
        writers=len(ends),
        winners=len(winners),
        refused=len(refused),
        named=sum([int(name[1])] == winners for name in names),
        is_intact=files == wanted and (job.name != "ingest" or _is_verified(out)),
        unexpected=tuple(
            f"exit {process.returncode}: {words.strip()[-SHOWN:]}"
            for process, words in ends
            if process.returncode not in (0, ExitCode.EXISTS)
        ),
    )


def _is_verified(out: Path) -> bool:
    verify = [sys.executable, "-m", "cellvim", "verify", str(out / "plates")]
    return not subprocess.run(verify, check=False, env=environment(), capture_output=True).returncode  # noqa: S603
