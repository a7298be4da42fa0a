"""A study of six plates to a report: its commands one after the other, on this machine, and on a Slurm cluster.

    python -m benchmarks.study [--docs docs/study_speed.md] [--rounds 3] [--quick] [--only slurm]

All in turns, each in a new folder, with the same images. The Slurm is the one that answers `scontrol ping`; where none
does, `tests/slurm/cluster.sh start` makes one of this machine, and without it that row is left out. How long Snakemake
thinks about thousands of plates is measured by a dry run.
"""

import argparse
import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import yaml

from benchmarks.cpu import processor_name
from benchmarks.findings import Cell, Findings, Goal, Table, as_markdown, at_most, publish, save
from cellvim.demo.layout import PlateLayout
from cellvim.demo.phenotype import catalogue
from cellvim.demo.synthetic import Acquisition, write_layouts
from cellvim.study import plan_study

ROOT = Path(__file__).parents[1]
SLURM_S = 120.0
WAYS = ("commands", "local", "slurm", "dry-run")
SIDE_PX, STEPS = 96, 10
MANY_PLATES = 2500


@dataclass(frozen=True)
class Turn:
    """One run of one way: seconds of the clock, and of the processor where the commands are children of this process."""

    wall_s: float
    processor_s: float | None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "study", help="receives study.json")
    parser.add_argument("--docs", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two plates, one round")
    parser.add_argument("--only", choices=WAYS, nargs="+", default=list(WAYS), help="ways to go")
    arguments = parser.parse_args()
    plates, rounds = (2, 1) if arguments.quick else (6, arguments.rounds)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cellvim-study-") as work:
        study = write_study(Path(work) / "first", plates)
        turns = take_turns(study, rounds, arguments.only)
        tables = [speed_table(turns, plates)]
        if "dry-run" in arguments.only:
            many = think_of_many(Path(work) / "many", MANY_PLATES if not arguments.quick else 20)
            tables.append(thinking_table(many))
    findings = Findings("study", tables=tables)
    findings.goals = [slurm_goal(turns, plates)]
    findings.seconds = time.perf_counter() - started
    save(findings, arguments.out)
    publish(as_markdown([findings], heading(rounds)), arguments.docs)


def write_study(folder: Path, plates: int) -> Path:
    """Images of twelve small wells per plate, and a study file; the folder is copied for each turn."""
    draw_plates(folder, plates)
    model = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1}
    content = {
        "name": "six plates",
        "plates": "images/*",
        "platemap": "platemap.csv",
        "pretrain": {
            "steps": STEPS,
            "batch_size": 8,
            "device": "cpu",
            "crops": {"crop_px": 64},
            "model": {**model, "position_grid": 8},
        },
        "evaluate": {"tasks": "activity"},
        "jobs": {
            "plates_per_job": -(-plates // 2),
            **{step: {"cpus": 1, "memory_mb": 1500} for step in ("ingest", "pretrain", "embed", "evaluate")},
        },
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def draw_plates(folder: Path, plates: int) -> None:
    """Draw small plates, `S0` and on, of six controls and three treatments twice, each plate with another layout."""
    control, *others = catalogue()
    contents = [control] * 6 + others[:3] * 2
    wells = [f"{row}{column:02d}" for row in "BCD" for column in range(2, 6)]
    layouts = tuple(
        PlateLayout(
            f"S{number}", dict(zip(wells, contents[number:] + contents[:number], strict=True)), missing=None
        )
        for number in range(plates)
    )
    write_layouts(folder, layouts, [control, *others[:3]], Acquisition(side_px=SIDE_PX, sites=1), seed=0)


def take_turns(study: Path, rounds: int, only: Sequence[str]) -> dict[str, list[Turn]]:
    """Every way once per round, so that a slow minute of the machine meets all of them."""
    ways: dict[str, Callable[[Path], None]] = {}
    if "commands" in only:
        ways["commands one after the other"] = by_hand
    if "local" in only:
        ways["cellvim study run"] = partial(run, profile="local")
    if "slurm" in only and has_slurm():
        ways["cellvim study run --profile slurm"] = partial(run, profile="slurm")
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            folder = study.parent / f"{number}-{len(turns[name])}-{list(ways).index(name)}"
            shutil.copytree(study, folder)
            turns[name].append(timed(partial(way, folder), is_here="slurm" not in name))
            if not (folder / "results" / "report" / "report.html").is_file():
                sys.exit(f"{name}: no report")
            shutil.rmtree(folder)
    return turns


def by_hand(folder: Path) -> None:
    plan = plan_study(folder / "study.yaml")
    plan.results.mkdir()
    plan.write_pretrain_file()
    for command in plan.commands():
        call(folder, list(command))


def run(folder: Path, profile: str) -> None:
    call(folder, ["cellvim", "study", "run", "study.yaml", "--profile", profile])


def call(folder: Path, command: Sequence[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: {done.stderr}")


def timed(work: Callable[[], None], *, is_here: bool) -> Turn:
    before, started = processor_s(), time.perf_counter()
    work()
    return Turn(time.perf_counter() - started, processor_s() - before if is_here else None)


def processor_s() -> float:
    """Seconds of the processor that children of this process have taken, and their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def has_slurm() -> bool:
    if shutil.which("scontrol") is None:
        return False
    return "is UP" in subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False).stdout


def think_of_many(folder: Path, plates: int) -> list[tuple[str, int, Turn]]:
    """How long it takes to plan thousands of plates, and Snakemake to see what is to be run."""
    (folder / "images").mkdir(parents=True)
    rows = [f"plate{number:04d},images" for number in range(plates)]
    (folder / "plates.csv").write_text("\n".join(["name,images", *rows]), encoding="utf-8")
    found = []
    for size in (1, 10):
        study = {
            "name": "many",
            "plates": "plates.csv",
            "pretrain": {"steps": 0},
            "jobs": {"plates_per_job": size},
        }
        (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        for words in (["plan"], ["run", "--dry-run"]):
            command = ["cellvim", "study", words[0], "study.yaml", *words[1:]]
            turn = timed(partial(call, folder, command), is_here=True)
            found.append((f"{shlex.join(command)}, {plates:,} plates", size, turn))
    return found


def speed_table(turns: dict[str, list[Turn]], plates: int) -> Table:
    rows: list[list[Cell]] = []
    for name, taken in turns.items():
        walls = [turn.wall_s for turn in taken]
        spent = [turn.processor_s for turn in taken if turn.processor_s is not None]
        rows.append(
            [
                name,
                statistics.median(walls),
                min(walls),
                max(walls),
                statistics.median(spent) if spent else None,
            ]
        )
    return Table(
        f"{plates} plates of 12 wells, {STEPS} training steps, to a report",
        ("way", "seconds, median", "least", "most", "seconds of the processor, median"),
        rows,
        notes=["Jobs on Slurm are no children of this process, so their processor time is not counted."],
    )


def thinking_table(found: list[tuple[str, int, Turn]]) -> Table:
    rows: list[list[Cell]] = [[command, size, turn.wall_s, turn.processor_s] for command, size, turn in found]
    return Table(
        "Thousands of plates, before the first job",
        ("command", "plates_per_job", "seconds", "processor"),
        rows,
    )


def slurm_goal(turns: dict[str, list[Turn]], plates: int) -> Goal:
    taken = [turn.wall_s for name, all_turns in turns.items() if "slurm" in name for turn in all_turns]
    claim = f"{plates} plates and a report on Slurm, seconds, the slowest of the rounds"
    return at_most(claim, max(taken) if taken else None, SLURM_S)


def heading(rounds: int) -> str:
    when = datetime.now(UTC).date().isoformat()
    line = " ".join(["python", "-m", "benchmarks.study", *sys.argv[1:]])
    cores = len(os.sched_getaffinity(0))
    return (
        "# Speed of a study\n\n"
        "Starting a command takes two to three seconds of the processor, which is most of these small plates' time; what\n"
        f"Snakemake and Slurm add is the difference between the rows. {rounds} rounds, all ways in turns, one thread each.\n\n"
        f"`{line}` on {when}: {processor_name()}, {cores} cores, {platform.system()}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
