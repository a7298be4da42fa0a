"""One process that works through plate after plate until it is told to stop. Started by `soak`.

After every plate it says on stdout, one JSON line each, what it holds: memory, file handles, threads, and files that
should not be there.
"""

import argparse
import json
import logging
import os
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cellvim.atomic import TEMPORARY_MARK
from cellvim.config import EmbedSettings, EvaluateSettings, IngestSettings
from cellvim.ingest import ingest_plates
from pipelines.torture.soak_plates import SoakPlate, make_plate, write_models

TASKS = ("activity", "replicate_retrieval")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
# As multiprocessing, torch and joblib name them.
_OF_WORKERS = re.compile(r"psm_|sem\.|torch_|pym-|joblib_|loky-")


@dataclass(frozen=True)
class Sample:
    """What a process holds after a plate.

    Attributes:
        plate: Number of the plate, from 0.
        kind: See `SoakPlate`.
        seconds: Since the start.
        resident_bytes: Memory in use, as the kernel counts it.
        handles: Open files, sockets and pipes.
        threads: Of the process.
        leftovers: Temporary files and locks that lie about.
        wells: Finished so far.
    """

    plate: int
    kind: str
    seconds: float
    resident_bytes: int
    handles: int
    threads: int
    leftovers: tuple[str, ...]
    wells: int


def run_stages(plate: SoakPlate, model: Path, out: Path) -> None:
    """The stages themselves, from images to a report.

    Not by the command line: to build that anew for each plate, as nobody does, leaves some 75 kB behind each time.
    """
    from cellvim.embed import embed_plates
    from cellvim.evaluate import evaluate_tables

    table = out / "tables/wells.parquet"
    ingest = {**plate.settings, "sources": [plate.source], "out": out / "plates", "workers": 2}
    ingest_plates(IngestSettings.checked(ingest))
    embed = {"plates": [out / "plates"], "model": model, "out": table, "device": "cpu"}
    embed_plates(EmbedSettings.checked(embed))
    evaluate = {"tables": [table], "out": out / "report", "tasks": TASKS, "null_size": 500, "bootstraps": 50}
    evaluate_tables(EvaluateSettings.checked(evaluate))


def stage_commands(plate: SoakPlate, model: Path, out: Path) -> list[list[str]]:
    """Arguments of `cellvim`, from images to a report."""
    table = out / "tables/wells.parquet"
    return [
        ["--quiet", "ingest", str(plate.source), "--out", str(out / "plates"), *plate.flags, "--workers", "2"],
        ["--quiet", "embed", str(out / "plates"), "--model", str(model), "--out", str(table), "--device", "cpu"],
        [
            "--quiet", "evaluate", str(table), "--out", str(out / "report"), "--tasks", ",".join(TASKS),
            "--null-size", "500", "--bootstraps", "50",
        ],
    ]  # fmt: skip


def list_leftovers(*folders: Path) -> tuple[str, ...]:
    """Temporary files, locks and folders of parts below some folders."""
    found = []
    for folder in folders:
        for root, inner, names in os.walk(folder):
            found += [f"{root}/{name}" for name in names if TEMPORARY_MARK in name or name == "lock"]
            found += [f"{root}/{name}" for name in inner if name == "tmp" or name.endswith(".parts")]
    return tuple(sorted(found))


def list_temporary(folder: Path) -> set[str]:
    """What lies in a folder of temporary files, but for the folder of torch."""
    return {
        str(path)
        for path in folder.iterdir()
        # Torch makes it once for each user, as soon as an operator of ours is called, and leaves it empty.
        if not (path.name.startswith("torchinductor_") and not any(path.iterdir()))
    }


def list_shared() -> set[str]:
    """Shared memory and semaphores of worker processes, whoever's they are; other programs' files are not ours to judge."""
    if not SHARED_MEMORY.is_dir():
        return set()
    return {str(path) for path in SHARED_MEMORY.iterdir() if _OF_WORKERS.match(path.name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    models = write_models(chosen.out / "models")
    started, number, wells = time.monotonic(), 0, 0
    temporary, before = Path(os.environ["TMPDIR"]), list_shared()
    while time.monotonic() - started < 60 * chosen.minutes:
        folder = chosen.out / f"plate-{number}"
        plate = make_plate(chosen.data, folder, number)
        run_stages(plate, models[plate.kind], folder)
        wells += plate.wells
        leftovers = list_leftovers(folder) + tuple(
            sorted(list_temporary(temporary) | (list_shared() - before))
        )
        shutil.rmtree(folder)
        sample = _sample(number, plate.kind, time.monotonic() - started, leftovers, wells)
        sys.stdout.write(json.dumps(asdict(sample)) + "\n")
        sys.stdout.flush()
        number += 1


def _sample(number: int, kind: str, seconds: float, leftovers: tuple[str, ...], wells: int) -> Sample:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # The folder itself is open while it is listed.
    handles = sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    return Sample(number, kind, round(seconds, 2), resident, handles, threads, leftovers, wells)


if __name__ == "__main__":
    main()
