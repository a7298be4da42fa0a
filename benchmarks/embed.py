"""Embedding: tiles a second with the time spent waiting for pixels, memory over plates, and a plate of JUMP's size.

    python -m benchmarks.embed [--device auto] [--docs docs/embed_speed.md] [--quick]

Plates are synthetic: discs under a camera's noise, written by cellvim's store. Reading, encoding and both take turns
in this process; memory and workers are measured in processes of their own. A plate of JUMP's size, 384 wells x 9
fields x 5 channels of 1080 x 1080, is embedded for real where there is a GPU; its files are hard links to 27 distinct
fields, so that it takes 300 MB on disk. `--quick` shows on tiny plates that everything runs.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu import processor_name
from benchmarks.embed_plates import JUMP, PlateSize, write_model, write_plate
from benchmarks.embed_speed import Case, Speed, measure_speed, reading_table, speed_table
from benchmarks.findings import Cell, Findings, Goal, Table, as_markdown, at_most, publish, save
from benchmarks.processes import Outcome, run_watched
from cellvim.config import Preset
from cellvim.model import choose_device, name_kernels

ROOT = Path(__file__).parents[1]
FLATNESS = 1.1
"""How much more memory twenty plates may take than one: footers of tables, and noise."""
JUMP_S = 60.0
PRESETS: tuple[Preset, ...] = ("nano", "tiny", "small")
SPEED = PlateSize(wells=4, sites=4, side_px=448, distinct=16)
SLOW = PlateSize(wells=2, sites=2, side_px=448, distinct=4)
READING = PlateSize(wells=3, sites=4, side_px=1080, distinct=12)
MEMORY = PlateSize(wells=4, sites=3, side_px=256, distinct=12)
MANY_ROWS = {"level": "crop", "tile_px": 32, "device": "cpu"}
"""Tiles of 32 px as rows: what a plate gives is then large beside the encoder, as in a real screen."""


@dataclass(frozen=True)
class Bench:
    """What is measured, and how long."""

    work: Path
    device: torch.device
    turns: int = 5
    seconds: float = 30.0
    presets: tuple[Preset, ...] = PRESETS
    batches: tuple[int, ...] = (16, 64)
    speed: PlateSize = SPEED
    slow: PlateSize = SLOW
    """For the larger models on a CPU."""
    reading: PlateSize = READING
    memory: PlateSize = MEMORY
    plates: tuple[int, ...] = (1, 5, 20)
    rounds: int = 2
    jump: PlateSize = JUMP

    @property
    def readers(self) -> int:
        return min(8, max(2, len(os.sched_getaffinity(0))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "embed", help="receives embed.json")
    parser.add_argument("--docs", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--quick", action="store_true", help="tiny plates, the smallest model")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    with tempfile.TemporaryDirectory(prefix="cellvim-embed-") as work:
        bench = (quick if arguments.quick else full)(Path(work), device)
        head = heading(bench)
        findings = measure(bench)
    page = as_markdown([findings], head)
    save(findings, arguments.out)
    publish(page, arguments.docs)


def full(work: Path, device: torch.device) -> Bench:
    if device.type == "cpu":
        return Bench(work, device)
    large = PlateSize(wells=12, sites=4, side_px=1080, distinct=12)
    return Bench(work, device, batches=(16, 64, 256), speed=large, slow=large)


def quick(work: Path, device: torch.device) -> Bench:
    tiny = PlateSize(wells=2, sites=2, side_px=64, distinct=2)
    return Bench(
        work, device, turns=3, seconds=1, presets=("nano",), batches=(4,), speed=tiny, slow=tiny,
        reading=tiny, memory=tiny, plates=(1, 2), rounds=1, jump=tiny,
    )  # fmt: skip


def measure(bench: Bench) -> Findings:
    started = time.perf_counter()
    findings = Findings("embed")
    table, fields_per_s = reading_table(
        write_plate(bench.work, "reading", bench.reading),
        sorted({1, 2, bench.readers}),
        turns=bench.turns,
        seconds=bench.seconds,
    )
    speeds = measure_speed(
        speed_cases(bench), bench.device, readers=bench.readers, turns=bench.turns, seconds=bench.seconds
    )
    model = write_model(bench.work, "nano")
    peaks = measure_memory(bench, model)
    findings.tables = [
        table,
        speed_table(speeds, bench.device),
        memory_table(peaks),
        workers_table(bench, model),
    ]
    jump_table, seconds = measure_jump(bench, model, speeds, fields_per_s)
    findings.tables.append(jump_table)
    findings.goals = [
        memory_goal(peaks),
        at_most("seconds for a plate of JUMP's size on a GPU, nano, reading included", seconds, JUMP_S),
    ]
    findings.seconds = time.perf_counter() - started
    return findings


def speed_cases(bench: Bench) -> list[Case]:
    """Every batch size with the smallest model; the first with the others, which on a CPU get fewer fields."""
    speed = write_plate(bench.work, "speed", bench.speed)
    slow = write_plate(bench.work, "slow", bench.slow)
    first, *others = bench.presets
    is_gpu = bench.device.type == "cuda"
    cases = [Case(first, batch, speed) for batch in bench.batches]
    return cases + [
        Case(preset, batch, slow)
        for preset in others
        for batch in (bench.batches if is_gpu else bench.batches[:1])
    ]


def measure_memory(bench: Bench, model: Path) -> dict[int, Outcome]:
    """Embed one plate, then more of them, each time in a process of its own."""
    folder = bench.work / "memory"
    plates = [write_plate(folder, f"M{number:02d}", bench.memory) for number in range(max(bench.plates))]
    outcomes = {}
    for count in bench.plates:
        outcomes[count] = run(model, bench.work / f"memory{count}.parquet", 1, MANY_ROWS, plates[:count])
    return outcomes


def memory_table(outcomes: dict[int, Outcome]) -> Table:
    rows: list[list[Cell]] = [
        [count, outcome.found["rows"], outcome.peak_mib, outcome.found["seconds"]]
        for count, outcome in outcomes.items()
    ]
    note = (
        "Rows are tiles of 32 px here, so that a plate's table is large. Python with PyTorch take most of it."
    )
    return Table("Memory over plates", ("plates", "rows", "peak MiB", "s"), rows, [note])


def memory_goal(outcomes: dict[int, Outcome]) -> Goal:
    fewest, most = min(outcomes), max(outcomes)
    growth = outcomes[most].peak_mib / outcomes[fewest].peak_mib
    return at_most(f"peak memory with {most} plates to that with {fewest}", growth, FLATNESS)


def workers_table(bench: Bench, model: Path) -> Table:
    """Four plates on the CPU: one process with all cores, or several that share them."""
    folder = bench.work / "workers"
    plates = [write_plate(folder, f"W{number}", bench.speed) for number in range(4)]
    cores = len(os.sched_getaffinity(0))
    taken: dict[int, list[Outcome]] = {1: [], 2: []}
    for turn in range(bench.rounds):
        for workers, outcomes in taken.items():
            out = bench.work / f"workers{workers}-{turn}.parquet"
            more = {"workers": workers, "device": "cpu"}
            outcomes.append(run(model, out, cores, more, plates))
    rows: list[list[Cell]] = []
    for workers, outcomes in taken.items():
        seconds = sorted(outcome.found["seconds"] for outcome in outcomes)
        shown = ", ".join(f"{value:.1f}" for value in seconds)
        tiles = len(plates) * bench.speed.tiles
        waiting = max(outcome.found["waiting_share"] for outcome in outcomes)
        peak = max(outcome.peak_mib for outcome in outcomes)
        rows.append([workers, max(1, cores // workers), shown, tiles / seconds[0], f"{waiting:.0%}", peak])
    columns = (
        "processes",
        "threads each",
        "s of each run",
        "tiles/s, fastest",
        "waiting share",
        "peak MiB, all",
    )
    note = "Starting the processes is part of the time: each imports PyTorch."
    return Table(f"Four plates of {bench.speed.tiles} tiles on the CPU, nano", columns, rows, [note])


def measure_jump(
    bench: Bench, model: Path, speeds: dict[Case, Speed], fields_per_s: float
) -> tuple[Table, float | None]:
    """Embed a plate of JUMP's size on a GPU; on a CPU, say from the rates above how long it would take."""
    size = bench.jump
    columns = ("model", "tiles", "s", "tiles/s", "waiting share", "how")
    title = f"A plate of {size.wells} wells x {size.sites} fields x 5 channels, {size.side_px} px"
    if bench.device.type == "cpu":
        best: dict[str, float] = {}
        for case, speed in speeds.items():
            best[case.preset] = max(best.get(case.preset, 0.0), speed.tiles_per_s or 0.0)
        rows: list[list[Cell]] = [
            [preset, size.tiles, size.tiles / rate, rate, None, "extrapolated"]
            for preset, rate in best.items()
            if rate
        ]
        note = (
            "Not measured: no GPU on this machine. Extrapolated from the tiles per second of both, above; reading "
            f"alone would take {size.fields / fields_per_s:,.0f} s."
        )
        return Table(title, columns, rows, [note]), None
    plate = write_plate(bench.work, "jump", size)
    more = {"device": "cuda", "batch_size": max(bench.batches), "readers": bench.readers}
    outcome = run(model, bench.work / "jump.parquet", bench.readers, more, [plate])
    seconds = outcome.found["seconds"]
    waiting = f"{outcome.found['waiting_share']:.0%}"
    row: list[Cell] = ["nano", size.tiles, seconds, size.tiles / seconds, waiting, "measured"]
    note = "Loading the model and writing the table included, importing not; files in the page cache."
    return Table(title, columns, [row], [note]), seconds


def run(model: Path, out: Path, threads: int, more: dict[str, Any], plates: list[Path]) -> Outcome:
    """Run embed in a process of its own."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "benchmarks.embed_runs",
        model,
        out,
        str(threads),
        json.dumps(more),
    ]
    return run_watched([*command, *plates], cwd=ROOT)


def heading(bench: Bench) -> str:
    """Say what was run where; written down before the run, so that the load is that of the others."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else processor_name()
    return f"""# Speed of embedding

`{" ".join(["python -m benchmarks.embed", *sys.argv[1:]])}` on {datetime.now(tz=UTC):%Y-%m-%d}:
{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__},
{torch.get_num_threads()} threads, kernels: {name_kernels(bench.device, 16)}; load {load} (1, 5, 15 min) at the start.

Untrained encoders, float32, tiles of 224 px and 5 channels. The waiting share is the part of the time for which the
encoder stands still because no field is ready; it includes the wait for the first. Encoding alone takes fields that
are read and normalised already; both is what `cellvim embed` does with a plate, thumbnails and table included, with
{bench.readers} threads that read ahead. Files are in the page cache."""


if __name__ == "__main__":
    main()
