"""A long screen, compressed: plate after plate in one process, and beside it commands that are killed and resumed.

python -m pipelines.torture.soak --out out/soak --docs docs/reliability.md
python -m pipelines.torture.soak --out out/soak --minutes 3
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from pipelines.torture import page
from pipelines.torture.kills import environment
from pipelines.torture.page import Row, Section
from pipelines.torture.soak_commands import Killed, kill_plates
from pipelines.torture.soak_picture import draw_soak
from pipelines.torture.soak_process import Sample

MINUTES = 30.0
WARM_UP = 0.2
"""Share of the plates that is not judged: modules are imported and pools filled in it."""
MOST_GROWTH_MB = 20.0
"""MiB an hour, at the upper end of the interval."""
CONFIDENCE = 0.95
BODY = """One process ran ingest, embed and evaluate for plate after plate, as a night at a microscope would, for
{minutes:.0f} minutes: {plates} plates, {wells:,} wells; in turn drawn ones, real ImageXpress ones and real ones of BBBC013 with their own plate map, each
with a report. After every plate its memory (resident set), open files and threads were counted, and
temporary files, locks and parts looked for in the outputs, in `TMPDIR` and in `/dev/shm` (but for the empty folder
`torchinductor_USER` that torch makes once). At the same time, every command
of {rounds} further plates was killed at random moments ({kills} signals, SIGKILL and SIGTERM) and started again until it was done.

![Memory, open files and threads of the process after each plate](images/soak.png)

| after a warm-up of {warm} plates | found | allowed |
|---|---|---|
| growth of memory, MiB an hour (Theil and Sen; 95 % interval) | {slope:.1f} ({low:.1f} to {high:.1f}) | {allowed:.0f} at the upper end |
| memory, MiB: median of the first and of the last quarter | {first:.0f}, {last:.0f} | |
| open files: least and most | {handles} | of the last quarter no more than of the first |
| threads: least and most | {threads} | of the last quarter at most 2 more than of the first |
| leftover temporary files, locks and parts | {leftovers} | 0 |
| the same of the killed plates, once they were resumed | {killed_leftovers} | 0 |
| killed plates that did not end well | {unfinished} | 0 |

The process has one arena of the allocator for all threads (`MALLOC_ARENA_MAX=1`), so that what threads have given back is
not counted as held. The allowance: an hour of this soak is as many plates as a screen has in about {hours:.0f} hours, at two minutes a plate. One plate's
images kept per plate would be hundreds of MiB an hour; one of its tables, some 10 KiB, would not stand out from what
was found, whose cause is not known. The stages are called in one process, as a program that uses cellvim would; the
command line is a process per command, and keeps nothing.

{footer}
"""


@dataclass(frozen=True)
class Flatness:
    """What the samples say after the warm-up.

    Attributes:
        slope: Growth of memory in MiB an hour.
        low: Lower end of its interval.
        high: Upper end.
        quarters: Median memory in MiB of the first and of the last quarter.
        handles: Least and most open files.
        threads: Least and most threads.
        is_level: Neither files nor threads grow.
    """

    slope: float
    low: float
    high: float
    quarters: tuple[float, float]
    handles: tuple[int, int]
    threads: tuple[int, int]
    is_level: bool

    @property
    def is_flat(self) -> bool:
        return self.high < MOST_GROWTH_MB and self.is_level


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.torture.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument(
        "--docs", type=Path, help="page to write the section to; the picture goes to images/ beside it"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of real plates")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    chosen = parser.parse_args(arguments)
    line = " ".join(["python", "-m", "pipelines.torture.soak", *(arguments or sys.argv[1:])])
    samples, killed = soak(chosen.data, chosen.out, minutes=chosen.minutes, seed=chosen.seed)
    picture = (chosen.docs.parent / "images" if chosen.docs else chosen.out) / "soak.png"
    draw_soak(samples, warm_up(len(samples)), picture)
    packages = ("torch", "tensorstore", "zarr", "polars", "pyarrow")
    section = soak_section(samples, killed, chosen.minutes, page.footer(line, packages))
    if chosen.docs is not None:
        page.update_page(chosen.docs, section)
    sys.stdout.write(section.body + "\n")
    if section.complaints:
        sys.exit("\n".join(section.complaints))


def soak(data: Path, out: Path, *, minutes: float, seed: int) -> tuple[list[Sample], list[Killed]]:
    """Let a process work through plates, and kill and resume the commands of others beside it.

    Raises:
        RuntimeError: The process gave up on a plate.
    """
    shutil.rmtree(out, ignore_errors=True)
    temporary = out.absolute() / "tmp"
    temporary.mkdir(parents=True)
    command = [sys.executable, "-m", "pipelines.torture.soak_process", "--data", str(data)]
    command += ["--out", str(out / "process"), "--minutes", str(minutes)]
    with (out / "samples.jsonl").open("wb") as told, (out / "process.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=told,
            stderr=log,
            env={**environment(), "TMPDIR": str(temporary), "MALLOC_ARENA_MAX": "1"},
        )
        killed = kill_plates(data, out / "killed", until=lambda: process.poll() is not None, seed=seed)
        code = process.wait()
    if code:
        message = f"the soak ended with {code}: {(out / 'process.log').read_text()[-2000:]}"
        raise RuntimeError(message)
    lines = (out / "samples.jsonl").read_text().splitlines()
    samples = [
        Sample(**{**json.loads(line), "leftovers": tuple(json.loads(line)["leftovers"])}) for line in lines
    ]
    return samples, killed


def warm_up(plates: int) -> int:
    return max(1, int(WARM_UP * plates))


def judge_flatness(samples: Sequence[Sample]) -> Flatness:
    """Fit a line that single plates cannot bend, and compare the ends.

    Source:
        Sen 1968, "Estimates of the regression coefficient based on Kendall's tau".
    """
    kept = samples[warm_up(len(samples)) :]
    memory = np.array([one.resident_bytes for one in kept]) / 2**20
    hours = np.array([one.seconds for one in kept]) / 3600
    slope, _, low, high = stats.theilslopes(memory, hours, alpha=CONFIDENCE)
    quarter = max(1, len(kept) // 4)
    first, last = kept[:quarter], kept[-quarter:]
    handles, threads = [one.handles for one in kept], [one.threads for one in kept]
    # Threads of pools that have just been left may still be ending when they are counted.
    allowed = {"handles": 0, "threads": 2}
    is_level = all(
        max(getattr(one, name) for one in last) <= max(getattr(one, name) for one in first) + slack
        for name, slack in allowed.items()
    )
    return Flatness(
        float(slope), float(low), float(high),
        (float(np.median(memory[:quarter])), float(np.median(memory[-quarter:]))),
        (min(handles), max(handles)), (min(threads), max(threads)), is_level,
    )  # fmt: skip


def soak_section(samples: Sequence[Sample], killed: Sequence[Killed], minutes: float, footer: str) -> Section:
    """Set what was counted beside how, where and when it was."""
    flat = judge_flatness(samples)
    leftovers = [name for one in samples for name in one.leftovers]
    killed_leftovers = [name for one in killed for name in one.leftovers]
    unfinished = [one.problem for one in killed if one.problem]
    body = BODY.format(
        minutes=minutes, plates=len(samples), wells=samples[-1].wells, rounds=len(killed),
        kills=sum(one.kills for one in killed), warm=warm_up(len(samples)), slope=flat.slope, low=flat.low, high=flat.high,
        allowed=MOST_GROWTH_MB, first=flat.quarters[0], last=flat.quarters[1], handles=_range(flat.handles),
        threads=_range(flat.threads), leftovers=len(leftovers), killed_leftovers=len(killed_leftovers),
        unfinished=len(unfinished), hours=len(samples) / samples[-1].seconds * 3600 * 2 / 60, footer=footer,
    )  # fmt: skip
    failures = [f"left over: {name}" for name in (*leftovers, *killed_leftovers)][:20] + unfinished
    if not flat.is_level:
        failures.append(f"open files or threads grow: {flat}")
    row = Row(
        "soak",
        f"{len(samples)} plates through ingest, embed and evaluate in one process in {minutes:.0f} minutes, {len(killed)} killed and resumed beside it",
        f"{MINUTES:.0f} minutes: memory flat (< {MOST_GROWTH_MB:.0f} MiB an hour), open files flat, no leftover files",
        f"{flat.slope:.1f} MiB an hour ({flat.low:.1f} to {flat.high:.1f}), open files {_range(flat.handles)}, "
        f"{len(leftovers) + len(killed_leftovers)} leftover files",
        flat.is_flat and minutes >= MINUTES and not failures,
    )
    return Section("Soak", body, failures, (row,))


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
