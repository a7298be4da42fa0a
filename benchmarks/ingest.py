"""Ingest beside its peers: seconds, memory and bytes for one 480-file plate, and random crops of the result.

    python -m benchmarks.ingest [--rounds 3] [--peers .venv-ingest-peers] [--docs docs/ingest_speed.md] [--quick]

All ways take turns, with one worker on one core and with two on two; every run is a process of its own, and its
memory that of the process and its children. Before a run the plate's files are read once and the last output is
deleted and flushed, so that nobody waits for another's bytes. `make ingest-peers` installs the peers; a peer that is
not there is named as such. `--quick` shows on a plate of 20 small files that everything runs.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.findings import Cell, Findings, Goal, Table, as_markdown, at_least, at_most, publish, save
from benchmarks.ingest_plate import FULL, QUICK, make_plate
from benchmarks.ingest_turns import (
    CROP_WAYS,
    FRACTAL,
    OURS,
    OURS_THERE,
    REPEATS,
    ROOT,
    WRITERS,
    Bench,
    Sample,
    Samples,
    measure_crops,
    measure_memory,
    take_turns,
)

MOST_MIB = 500
FLATNESS = 1.25
"""How much more memory a plate of four times the size may take: what the lists of its files and fields do."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-ingest-peers")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="real planes")
    parser.add_argument("--work", type=Path, help="folder for plates, kept; 12 GB; default: a temporary one")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "ingest", help="receives ingest.json")
    parser.add_argument("--docs", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--quick", action="store_true", help="one round of one worker on a tiny plate")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="cellvim-ingest-") as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        images = make_plate(work / f"plate-{size.files}", size, arguments.shared)
        bench = Bench(images, work, arguments.peers.absolute(), size, arguments.rounds)
        if arguments.quick:
            bench = replace(bench, rounds=1, workers=(1,), crops=20)
        head = heading(bench)
        findings = measure(bench)
    page = as_markdown([findings], head)
    save(findings, arguments.out)
    publish(page, arguments.docs)


def measure(bench: Bench) -> Findings:
    started = time.perf_counter()
    samples = take_turns(bench)
    memory = measure_memory(bench)
    findings = Findings("ingest")
    findings.tables = [
        speed_table(samples, bench),
        memory_table(memory),
        crops_table(measure_crops(bench), bench),
    ]
    findings.goals = [*speed_goals(samples), *memory_goals(memory)]
    findings.seconds = time.perf_counter() - started
    return findings


def heading(bench: Bench) -> str:
    """Say what was run where; written down before the run, so that the load is that of the others."""
    from benchmarks.cpu import processor_name  # brings torch, which nothing else here needs

    size = bench.size
    stored = sum(path.stat().st_size for path in bench.images.glob("*.tiff"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"""# Speed of ingest

`{" ".join(["python -m benchmarks.ingest", *sys.argv[1:]])}` on {datetime.now(tz=UTC):%Y-%m-%d}:
{processor_name()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()};
load {load} (1, 5, 15 min) at the start. Medians of {bench.rounds} rounds, in brackets the fastest and the slowest.

The plate: {size.wells} wells x {size.fields} fields x 5 channels = {size.files} LZW TIFFs of {size.side_px} x {size.side_px}
uint16, {size.pixel_bytes / 1e6:,.0f} MB of pixels in {stored / 1e6:,.0f} MB of files, real planes with a camera's noise
(`benchmarks/ingest_plate.py`). Files are in the page cache. Seconds do not include importing. One worker has one core,
two have two. Memory is that of the process and all its children; pages that they share count for each.
All writers get one shard per field, inner chunks of all channels x 270 x 270, and blosc zstd-1 with bitshuffle; only
fractal-uzh-converters leaves no choice of either (a file per plane, plain zstd). Only cellvim checks headers, hashes
files, pixels and shards, measures quality, and waits for the disk (fsync).
The peers' Python is another, with newer releases of the decoder: compare rows of one Python."""


def speed_table(samples: Samples, bench: Bench) -> Table:
    columns = ("way", "workers", "s", "MB of pixels/s", "peak MiB", "files", "MB written", "versions")
    rows: list[list[Cell]] = []
    for (way, workers), sample in samples.items():
        if sample.median is None:
            rows.append([way.label, workers, sample.failure, None, None, None, None, None])
            continue
        rate = bench.size.pixel_bytes / 1e6 / sample.median
        megabytes = sample.written / 1e6
        row: list[Cell] = [way.label, workers, spread(sample.seconds), rate, sample.peak_mib, sample.files]
        rows.append([*row, megabytes, sample.versions])
    return Table("From TIFFs to a plate", columns, rows)


def memory_table(peaks: dict[int, float]) -> Table:
    rows: list[list[Cell]] = [[times, peak] for times, peak in peaks.items()]
    return Table("Memory of cellvim ingest, two workers", ("times the wells", "peak MiB"), rows)


def crops_table(found: dict[tuple[str, int], list[float]], bench: Bench) -> Table:
    rows: list[list[Cell]] = [
        [label, *(spread(found[label, threads]) for threads in bench.workers)] for label, _, _ in CROP_WAYS
    ]
    title = f"Random crops of 256 x 256 x 5 per second, {bench.crops} crops from files never opened before"
    return Table(title, ("from", *(f"{threads} thread(s)" for threads in bench.workers)), rows)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def speed_goals(samples: Samples) -> list[Goal]:
    goals = []
    for workers in sorted({workers for _, workers in samples}):
        peers = [samples[way, workers].median for way in WRITERS]
        fastest = min((seconds for seconds in peers if seconds is not None), default=None)
        for way in (OURS_THERE, OURS):
            own = samples[way, workers].median
            claim = f"{way.label}, seconds to those of the fastest peer, {workers} worker(s)"
            goals.append(at_most(claim, ratio(own, fastest), 1))
        claim = f"fractal-uzh-converters, seconds to those of cellvim ingest, {workers} worker(s)"
        goals.append(
            at_least(claim, ratio(samples[FRACTAL, workers].median, samples[OURS, workers].median), 3)
        )
    gain = ratio(samples[OURS, 1].median, samples.get((OURS, 2), Sample()).median)
    return [*goals, at_least("cellvim ingest, seconds of one worker to those of two", gain, 1.6)]


def memory_goals(peaks: dict[int, float]) -> list[Goal]:
    growth = peaks[REPEATS] / peaks[1]
    return [
        *(
            at_most(f"peak MiB of cellvim ingest, {times} x the wells", peak, MOST_MIB)
            for times, peak in peaks.items()
        ),
        at_most(f"peak memory with {REPEATS} x the wells to that with one", growth, FLATNESS),
    ]


def ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or under is None else over / under


if __name__ == "__main__":
    main()
