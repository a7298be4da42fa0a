"""One run of one way to bring a plate from TIFFs to another place, in a process of its own.

    python -m benchmarks.ingest_runs CONTENDER IMAGES OUT WORKERS

Run by this project's interpreter, or by that of `.venv-ingest-peers`; whatever a contender does not need is not
imported. The process keeps to so many cores as it has workers. Importing is not timed. Prints one JSON object: the
seconds, the most memory of this process, and versions. Every peer reads its TIFFs by tifffile, as its users do,
and gets our layout as far as it goes: one shard per field, inner chunks (C, 270, 270), blosc zstd-1 with bitshuffle,
no pyramid, OME-Zarr 0.5.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ingest_plate import STAINS, parse_name

Run = Callable[[], None]
Fields = dict[tuple[str, str, str], list[Path]]
"""Row, column and field as an OME-Zarr plate names them, to the image of each channel."""

INNER_PX = 270


def main() -> None:
    contender, images, out, workers = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    packages, prepare = CONTENDERS[contender]
    run = prepare(images, out, workers)
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    found = {"seconds": seconds, "peak_mib": peak_mib(), "versions": versions}
    sys.stdout.write(json.dumps(found) + "\n")


def copy_files(images: Path, out: Path, workers: int) -> Run:
    """Plain `cp`, in as many processes as there are workers."""
    names = "\0".join(str(path) for path in sorted(images.iterdir())).encode()
    command = ["xargs", "-0", "-n", "32", "-P", str(workers), "cp", "-t", str(out)]
    return lambda: void(subprocess.run(command, input=names, check=True))


def decode(images: Path, out: Path, workers: int) -> Run:  # noqa: ARG001 - every contender is called alike
    """Nothing but tifffile: no writer that reads TIFFs by it can be faster."""
    import tifffile

    paths = sorted(images.glob("*.tiff"))
    return lambda: in_threads(tifffile.imread, paths, workers)


def cellvim(images: Path, out: Path, workers: int, **settings: Any) -> Run:
    """The whole stage: pre-flight, checksums, measures of quality, statistics, fsync."""
    from cellvim.config import IngestSettings
    from cellvim.ingest import ingest_plates

    chosen = IngestSettings(sources=(images,), out=out, workers=workers, **settings)
    return lambda: void(ingest_plates(chosen))


def cellvim_lz4(images: Path, out: Path, workers: int) -> Run:
    return cellvim(images, out, workers, codec="lz4")


def cellvim_without_fsync(images: Path, out: Path, workers: int) -> Run:
    """What the peers do not do, we do not do either: wait for the disk."""
    run = cellvim(images, out, workers)
    os.fsync = os.fdatasync = lambda descriptor: None  # noqa: ARG005 - named as the system calls it
    return run


def iohub(images: Path, out: Path, workers: int, implementation: str = "zarrs-python") -> Run:
    from iohub import open_ome_zarr

    fields = list_fields(images)

    def run() -> None:
        with open_ome_zarr(
            out / "plate.ome.zarr",
            layout="hcs",
            mode="w-",
            channel_names=list(STAINS),
            version="0.5",
            implementation=implementation,
        ) as plate:
            positions = plate.create_positions(list(fields))

            def write(pair: tuple[Any, list[Path]]) -> None:
                position, paths = pair
                pixels = read(paths)[None, :, None]
                inner, count = inner_chunks(pixels.shape[-1])
                chunks, ratio = (1, len(paths), 1, inner, inner), (1, 1, 1, count, count)
                position.create_image("0", pixels, chunks=chunks, shards_ratio=ratio)

            in_threads(write, list(zip(positions, fields.values(), strict=True)), workers)

    return run


def iohub_zarr(images: Path, out: Path, workers: int) -> Run:
    return iohub(images, out, workers, "zarr-python")


def iohub_tensorstore(images: Path, out: Path, workers: int) -> Run:
    return iohub(images, out, workers, "tensorstore")


def ome_zarr_py(images: Path, out: Path, workers: int) -> Run:
    import dask
    import zarr
    from ome_zarr.format import FormatV05
    from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata
    from zarr.codecs import BloscCodec

    fields, version = list_fields(images), FormatV05()
    # Its own threads would come on top of the workers.
    dask.config.set(scheduler="synchronous")

    def run() -> None:
        plate = zarr.open_group(str(out / "plate.ome.zarr"), mode="w", zarr_format=3)
        rows, columns = sorted({row for row, _, _ in fields}), sorted({column for _, column, _ in fields})
        sites: dict[str, list[str]] = {}
        for row, column, site in fields:
            sites.setdefault(f"{row}/{column}", []).append(site)
        write_plate_metadata(plate, rows, columns, list(sites), fmt=version)
        for well, names in sites.items():
            write_well_metadata(plate.require_group(well), names, fmt=version)

        def write(item: tuple[tuple[str, str, str], list[Path]]) -> None:
            pixels = read(item[1])
            inner, count = inner_chunks(pixels.shape[-1])
            options = {
                "chunks": (len(pixels), inner, inner),
                "shards": (len(pixels), inner * count, inner * count),
                "compressors": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            }
            group = plate.require_group("/".join(item[0]))
            write_image(pixels, group, scale_factors=[], axes="cyx", fmt=version, storage_options=options)

        in_threads(write, list(fields.items()), workers)

    return run


def fractal(images: Path, out: Path, workers: int, **options: Any) -> Run:
    """Its own reader of Operetta's index, its own compute tasks; with several workers, its processes."""
    from fractal_uzh_converters import OperettaAcquisitionModel, convert_operetta
    from ome_zarr_converters_tools import ConverterOptions
    from ome_zarr_converters_tools.fractal import MultiprocessingRunner, SequentialRunner

    runner = SequentialRunner() if workers == 1 else MultiprocessingRunner(num_processes=workers)
    source = OperettaAcquisitionModel(path=str(images.parent), plate_name="plate")
    chosen = ConverterOptions(**options)
    return lambda: void(
        convert_operetta(zarr_dir=str(out), acquisitions=[source], converter_options=chosen, runner=runner)
    )


def fractal_alike(images: Path, out: Path, workers: int) -> Run:
    """One image per field and no pyramid, as ours; it leaves its users no choice of codec or shards."""
    from ome_zarr_converters_tools.models import NoTiling, OmeZarrOptions

    written = OmeZarrOptions(num_levels=1, ngff_version="0.5")
    return fractal(images, out, workers, tiling_strategy=NoTiling(), omezarr_options=written)


def list_fields(images: Path) -> Fields:
    fields: Fields = {}
    for path in sorted(images.glob("*.tiff")):
        row, column, field, _ = parse_name(path.name)
        fields.setdefault((chr(ord("A") + row - 1), f"{column:02}", str(field)), []).append(path)
    return fields


def inner_chunks(side_px: int) -> tuple[int, int]:
    """Side of the inner chunks, and how many make a field's side."""
    inner = INNER_PX if side_px % INNER_PX == 0 else side_px
    return inner, side_px // inner


def read(paths: list[Path]) -> np.ndarray:
    import tifffile

    return np.stack([tifffile.imread(path) for path in paths])


def in_threads(run: Callable[[Any], object], items: list[Any], workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run, items):
            pass


def void(_: object) -> None:
    pass


def peak_mib() -> float:
    # Not from getrusage: there, the peak begins with that of the process that started this one.
    (line,) = (
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) / 1024


CONTENDERS: dict[str, tuple[tuple[str, ...], Callable[[Path, Path, int], Run]]] = {
    "copy": ((), copy_files),
    "decode": (("tifffile", "imagecodecs"), decode),
    "cellvim": (("imagecodecs", "numcodecs"), cellvim),
    "cellvim_lz4": (("imagecodecs", "numcodecs"), cellvim_lz4),
    "cellvim_no_fsync": (("imagecodecs", "numcodecs"), cellvim_without_fsync),
    "iohub": (("iohub", "zarrs"), iohub),
    "iohub_zarr": (("iohub", "zarr"), iohub_zarr),
    "iohub_tensorstore": (("iohub", "tensorstore"), iohub_tensorstore),
    "ome_zarr": (("ome-zarr", "dask"), ome_zarr_py),
    "fractal": (("fractal-uzh-converters",), fractal),
    "fractal_alike": (("fractal-uzh-converters",), fractal_alike),
}
"""Contender to the distributions that make its speed, and what prepares its run."""

if __name__ == "__main__":
    main()
