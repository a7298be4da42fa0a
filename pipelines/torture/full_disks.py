"""Every stage onto disks that fill up."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.torture.disk import Needs, Trial, measure_needs, try_disk
from pipelines.torture.page import Row, Section
from pipelines.torture.stages import JOBS, Job, ingest_job

WELLS = 8
PAGE_BYTES = 4096
ASKED_SIZES = 10
ROOM_AT_FIRST = "size=64m"
INGEST = """The real command writes a plate onto disks (tmpfs) that fill up at {sizes} moments spread over the life of its output:
another program takes the room once the writing has begun, as a disk that is too small from the beginning is refused
before anything is written. Two such disks are tried as well, and {names} whose names run out. Every time it must end with
exit code 5, an error and a hint; every file that has its final name must be byte for byte the one of an undisturbed run;
nobody may hold the plate's lock. Then the disk is made larger, and the same command must finish with the same bytes.

| disk | exit code | files there | truncated | lock left | resumed to the same bytes |
|---|---|---|---|---|---|
{rows}

The plate takes {used} MB and {inodes} names.

{footer}
"""
STAGES = """The real command of each stage writes onto {sizes} disks (tmpfs) whose sizes are spread over what it takes at most,
temporary files included. Where the disk is too small it must end with exit code 5, an error and a hint. Every file that
has its final name must be byte for byte the one of an undisturbed run; those that a finished run no longer has
(checkpoints, finished plates) and those that tell the time must be read to their end by the library of their format; of
`metrics.jsonl`, which grows line by line, any beginning is whole. Nobody may hold the stage's lock. Then the disk is
made larger, and the same command must finish with the same bytes.

| stage | takes, MB | disks, MB | exit code 5 | fitted | files there | truncated | locks left | resumed to the same bytes |
|---|---|---|---|---|---|---|---|---|
{rows}

{footer}
"""
Trials = Mapping[str, tuple[Needs, Sequence[Trial]]]
"""By stage."""


def torture_ingest_disk(
    data: Path, out: Path, *, sizes: int, wells: int = WELLS
) -> tuple[Needs, list[Trial]]:
    """Ingest onto disks of `sizes` sizes; with more than two, also onto disks without names.

    Raises:
        CannotMountError: Small disks cannot be made here.
    """
    shutil.rmtree(out, ignore_errors=True)
    job = ingest_job(data, out, wells=wells)
    needs = measure_needs(job, out / "disk")
    shares, pages = spread(sizes), sizes_of(needs, sizes)
    trials = [
        try_disk(job, out / "disk", f"full at {megabytes(room)} MB", ROOM_AT_FIRST, needs, room=room)
        for room in pages
    ]
    options = {}
    if sizes > 2:
        for room in (pages[0], pages[-1]):
            options[f"of {megabytes(room)} MB"] = f"size={room}"
        for share in shares[:: max(1, sizes // 3)]:
            inodes = max(2, int(share * needs.inodes))
            options[f"room for {inodes} names"] = f"size=1g,nr_inodes={inodes}"
    trials += [try_disk(job, out / "disk", disk, option, needs) for disk, option in options.items()]
    return needs, trials


def torture_disks(out: Path, *, sizes: int, stages: Sequence[str] = tuple(JOBS)) -> Trials:
    """Run every other stage on disks of `sizes` sizes.

    Raises:
        CannotMountError: Small disks cannot be made here.
    """
    shutil.rmtree(out, ignore_errors=True)
    return {name: _torture(JOBS[name](out / name), out / name / "disk", sizes) for name in stages}


def ingest_disk_section(needs: Needs, trials: Sequence[Trial], footer: str) -> Section:
    """Set what became of the plate beside how, where and when it was tried."""
    rows = [
        f"| {trial.disk} | {trial.code} | {trial.files} | {len(trial.truncated)} | "
        f"{_told(trial.is_locked)} | {_told(trial.is_resumed)} |"
        for trial in trials
    ]
    body = INGEST.format(
        sizes=sum(trial.disk.startswith("full") for trial in trials),
        names=sum("names" in trial.disk for trial in trials),
        rows="\n".join(rows),
        used=megabytes(needs.used_bytes),
        inodes=needs.inodes,
        footer=footer,
    )
    failures = [line for trial in trials for line in trial.failures]
    return Section("Ingest onto a full disk", body, failures, (_row("ingest", trials),))


def disks_section(found: Trials, footer: str) -> Section:
    """Set what became of the stages' outputs beside how, where and when it was tried."""
    lines = []
    for stage, (needs, trials) in found.items():
        sizes = f"{trials[0].disk} to {trials[-1].disk}"
        counts = (
            sum(not trial.is_fitting for trial in trials),
            sum(trial.is_fitting for trial in trials),
            sum(trial.files for trial in trials),
            sum(len(trial.truncated) for trial in trials),
            sum(trial.is_locked for trial in trials),
            sum(trial.is_resumed for trial in trials),
        )
        lines.append(
            f"| {stage} | {megabytes(needs.used_bytes)} | {sizes} | {' | '.join(map(str, counts))} |"
        )
    count = max(len(trials) for _, trials in found.values())
    body = STAGES.format(sizes=count, rows="\n".join(lines), footer=footer)
    failures = [line for _, trials in found.values() for trial in trials for line in trial.failures]
    rows = tuple(_row(stage, trials) for stage, (_, trials) in found.items())
    return Section("Every stage onto a full disk", body, failures, rows)


def spread(sizes: int) -> np.ndarray:
    """The middles of equal parts of 1: the first disk is full at once, the last one just before the end."""
    return (np.arange(sizes) + 0.5) / sizes


def sizes_of(needs: Needs, sizes: int) -> list[int]:
    """Sizes of disks, in bytes: whole pages, of which a tmpfs is made."""
    return [max(1, int(share * needs.used_bytes / PAGE_BYTES)) * PAGE_BYTES for share in spread(sizes)]


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _torture(job: Job, disk: Path, sizes: int) -> tuple[Needs, list[Trial]]:
    needs = measure_needs(job, disk)
    trials = [try_disk(job, disk, megabytes(size), f"size={size}", needs) for size in sizes_of(needs, sizes)]
    return needs, trials


def _row(stage: str, trials: Sequence[Trial]) -> Row:
    full = [trial for trial in trials if not trial.is_fitting]
    truncated = sum(len(trial.truncated) for trial in trials)
    codes = sorted({trial.code for trial in full})
    found = (
        f"{len(trials)} disks, {len(full)} full: {truncated} truncated, exit {', '.join(map(str, codes))}, "
        f"{sum(trial.is_resumed for trial in trials)} resumed to the same bytes"
    )
    is_met = len(full) >= ASKED_SIZES and not any(trial.failures for trial in trials)
    asked = f"{ASKED_SIZES} full ones: 0 truncated final files, exit 5"
    return Row("disk full", f"`{stage}` onto small tmpfs", asked, found, is_met)


def _told(is_so: bool) -> str:  # noqa: FBT001 - a word for a claim
    return "yes" if is_so else "no"
