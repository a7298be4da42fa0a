"""Every stage, told to write where nothing can be written."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellvim.errors import ExitCode
from pipelines.torture.disk import ROOM, has_told, mounted, remount, run_on
from pipelines.torture.kills import SHOWN
from pipelines.torture.page import Row, Section
from pipelines.torture.stages import JOBS, Job, ingest_job

MOST_S = 2.0
BODY = """The target of every stage lies on a disk (tmpfs) that is mounted read-only. The command must end with exit code 5 and one
line each of error and hint within {most} s of the processor, the start of Python included; by the clock it takes as much
longer as the machine has other things to do. Each is tried {trials} times, and the slowest counts.

| stage | exit codes | slowest, s of the processor | what it says |
|---|---|---|---|
{rows}

{footer}
"""


@dataclass(frozen=True)
class Refusal:
    """What a stage said of a target that takes nothing.

    Attributes:
        stage: Its name.
        code: Exit status.
        words: What it said on stderr.
        seconds: Of the processor, the start of Python included.
    """

    stage: str
    code: int
    words: str
    seconds: float

    @property
    def failures(self) -> list[str]:
        """Everything that should not be."""
        found = []
        if self.code != ExitCode.DISK or not has_told(self.words):
            found.append(f"exit {self.code}, said {self.words[-SHOWN:]!r}")
        if self.seconds > MOST_S:
            found.append(f"took {self.seconds:.1f} s")
        return [f"{self.stage}, read-only: {line}" for line in found]


def torture_read_only(data: Path | None, out: Path, *, trials: int) -> list[Refusal]:
    """Run every stage `trials` times on a disk that takes nothing.

    Args:
        data: Folder of real plates, for ingest; None leaves that out.
        out: Receives what the stages read.
        trials: How often.

    Raises:
        CannotMountError: Small disks cannot be made here.
    """
    shutil.rmtree(out, ignore_errors=True)
    jobs: list[Job] = [] if data is None else [ingest_job(data, out / "ingest", wells=1)]
    jobs += [build(out / name) for name, build in JOBS.items()]
    found = []
    with mounted(out / "disk", ROOM):
        remount(out / "disk", "ro")
        for job in jobs:
            found += [_refused(job, out / "disk") for _ in range(trials)]
    return found


def read_only_section(found: Sequence[Refusal], footer: str) -> Section:
    """Set what the stages said beside how, where and when they were asked."""
    stages = {
        stage: [each for each in found if each.stage == stage]
        for stage in dict.fromkeys(each.stage for each in found)
    }
    lines, rows = [], []
    for stage, refusals in stages.items():
        codes = ", ".join(str(code) for code in sorted({each.code for each in refusals}))
        slowest = max(each.seconds for each in refusals)
        lines.append(f"| {stage} | {codes} | {slowest:.1f} | {_first_error(refusals[0].words)} |")
        is_met = not any(each.failures for each in refusals)
        row = Row(
            "read-only target",
            f"`{stage}`",
            f"fails within {MOST_S:g} s of the processor",
            f"{slowest:.1f} s, exit {codes}",
            is_met,
        )
        rows.append(row)
    trials = max(len(refusals) for refusals in stages.values())
    body = BODY.format(most=f"{MOST_S:g}", trials=trials, rows="\n".join(lines), footer=footer)
    return Section(
        "A target that is read-only", body, [line for each in found for line in each.failures], tuple(rows)
    )


def _refused(job: Job, disk: Path) -> Refusal:
    code, words, seconds = run_on(job, disk)
    return Refusal(job.name, code, words.replace(str(disk), "DISK"), seconds)


def _first_error(words: str) -> str:
    return next((line for line in words.splitlines() if line.startswith("error: ")), "")
