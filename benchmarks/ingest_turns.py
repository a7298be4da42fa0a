"""Every way to ingest takes its turn, in a process of its own: what is run, and what a run gives."""

import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ingest_plate import PlateSize, repeat_plate
from benchmarks.processes import CommandFailedError, Outcome, run_watched

ROOT = Path(__file__).parents[1]
REPEATS = 4
"""How many times the wells the larger plate has, whose memory is compared."""
NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Way:
    """One row: a contender, and whose Python runs it."""

    label: str
    contender: str
    is_peers_python: bool = False


OURS = Way("cellvim ingest", "cellvim")
OURS_THERE = Way("cellvim ingest, peers' Python", "cellvim", is_peers_python=True)
WRITERS = (
    Way("iohub, zarrs (its default)", "iohub", is_peers_python=True),
    Way("iohub, tensorstore", "iohub_tensorstore", is_peers_python=True),
    Way("iohub, zarr-python", "iohub_zarr", is_peers_python=True),
    Way("ome-zarr-py", "ome_zarr", is_peers_python=True),
)
FRACTAL = Way("fractal-uzh-converters, one level, an image per field", "fractal_alike", is_peers_python=True)
WAYS = (
    Way("plain copy (cp)", "copy"),
    Way("tifffile alone", "decode"),
    Way("tifffile alone, peers' Python", "decode", is_peers_python=True),
    OURS,
    Way("cellvim ingest, fsync left out", "cellvim_no_fsync"),
    Way("cellvim ingest, lz4", "cellvim_lz4"),
    OURS_THERE,
    *WRITERS,
    FRACTAL,
    Way("fractal-uzh-converters, its defaults", "fractal", is_peers_python=True),
)
CROP_WAYS = (
    ("LZW TIFF, tifffile", "tifffile", "tiff"),
    ("zarr-python, zstd", "zarr", "zstd"),
    ("cellvim's reader (tensorstore), zstd", "cellvim", "zstd"),
    ("zarr-python, lz4", "zarr", "lz4"),
    ("cellvim's reader (tensorstore), lz4", "cellvim", "lz4"),
)


@dataclass
class Sample:
    """All runs of one way with one number of workers."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    files: int = 0
    written: int = 0
    versions: str = ""
    failure: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds and self.failure is None else None


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    images: Path
    work: Path
    peers: Path
    size: PlateSize
    rounds: int = 3
    workers: tuple[int, ...] = (1, 2)
    crops: int = 400

    def interpreter(self, way: Way) -> Path:
        return self.peers / "bin" / "python" if way.is_peers_python else Path(sys.executable)


Samples = dict[tuple[Way, int], Sample]


def take_turns(bench: Bench) -> Samples:
    """Run every way in every round; what disturbs the machine hits all of them."""
    samples = {(way, workers): Sample() for way in WAYS for workers in bench.workers}
    for _ in range(bench.rounds):
        for (way, workers), sample in samples.items():
            if sample.failure is None:
                run_once(way, workers, sample, bench)
    return samples


def run_once(way: Way, workers: int, sample: Sample, bench: Bench) -> None:
    if not bench.interpreter(way).is_file():
        sample.failure = NOT_INSTALLED
        return
    with empty_folder(bench.work / "out") as out:
        try:
            outcome = run_way(way, bench.images, out, workers, bench)
        except CommandFailedError as error:
            sample.failure = NOT_INSTALLED if "No module named" in str(error) else f"failed: {error}"
            return
        written = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    sample.seconds.append(outcome.found["seconds"])
    sample.peak_mib = max(sample.peak_mib, outcome.peak_mib)
    sample.files, sample.written = len(written), sum(written)
    sample.versions = outcome.found["versions"]


def run_way(way: Way, images: Path, out: Path, workers: int, bench: Bench) -> Outcome:
    for path in images.iterdir():
        path.read_bytes()
    command = [bench.interpreter(way), "-m", "benchmarks.ingest_runs", way.contender, images, out]
    return run_watched([*map(str, command), str(workers)], cwd=ROOT)


@contextmanager
def empty_folder(path: Path) -> Iterator[Path]:
    """Make a folder for one output; afterwards it is gone, and nothing of others waits to be written to disk."""
    path.mkdir(parents=True)
    os.sync()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def measure_memory(bench: Bench) -> dict[int, float]:
    """Most memory of cellvim with two workers: times the wells to MiB."""
    larger = bench.work / "larger"
    peaks = {}
    try:
        sources = {1: bench.images, REPEATS: repeat_plate(bench.images, larger, REPEATS)}
        for times, images in sources.items():
            with empty_folder(bench.work / "out") as out:
                peaks[times] = run_way(OURS, images, out, 2, bench).peak_mib
    finally:
        shutil.rmtree(larger, ignore_errors=True)
    return peaks


def measure_crops(bench: Bench) -> dict[tuple[str, int], list[float]]:
    """Random crops a second: label and threads to one number per round."""
    folders = {"tiff": bench.images}
    for codec, contender in (("zstd", "cellvim"), ("lz4", "cellvim_lz4")):
        out = bench.work / f"crops-{codec}"
        out.mkdir()
        run_way(Way(codec, contender), bench.images, out, 2, bench)
        (folders[codec],) = out.glob("*.ome.zarr")
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(bench.rounds):
        for label, method, kind in CROP_WAYS:
            for threads in bench.workers:
                command = [sys.executable, "-m", "benchmarks.crops", method, str(folders[kind])]
                outcome = run_watched([*command, str(threads), str(bench.crops)], cwd=ROOT)
                found.setdefault((label, threads), []).append(outcome.found["crops_per_s"])
    for codec in ("zstd", "lz4"):
        shutil.rmtree(bench.work / f"crops-{codec}")
    return found
