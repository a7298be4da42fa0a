"""Random crops of all channels per second, from one kind of file, in a process of its own.

    python -m benchmarks.crops METHOD SOURCE THREADS CROPS

SOURCE is a folder of TIFFs for `tifffile`, a plate for `zarr` and `cellvim`. The crops are the same for every method.
No method begins with an open file; each keeps the handles that it opens, where it has such, and no pixels but what its
library keeps of itself. The process keeps to so many cores as it has threads. Prints one JSON object.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ingest_runs import list_fields

CROP_PX = 256

Group = tuple[str, str, str]
Crop = tuple[Group, int, int]
Read = Callable[[Group, slice, slice], Any]


def main() -> None:
    method, source, threads, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    groups, side_px, read = METHODS[method](source)
    side = min(CROP_PX, side_px)
    crops = draw_crops(groups, side_px - side, count)

    def take(crop: Crop) -> int:
        group, top, left = crop
        pixels = np.asarray(read(group, slice(top, top + side), slice(left, left + side)))
        return int(pixels[:, 0, 0].sum())

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(take, crops))
    seconds = time.perf_counter() - started
    sys.stdout.write(json.dumps({"crops_per_s": count / seconds, "sum": total}) + "\n")


def draw_crops(groups: list[Group], most: int, count: int) -> list[Crop]:
    """Draw crops, a function of their number alone: every method reads the same pixels."""
    generator = np.random.default_rng(0)
    fields = generator.integers(0, len(groups), count)
    corners = generator.integers(0, most + 1, (count, 2))
    return [(groups[field], int(top), int(left)) for field, (top, left) in zip(fields, corners, strict=True)]


def with_tifffile(images: Path) -> tuple[list[Group], int, Read]:
    import tifffile

    fields = list_fields(images)

    def read(group: Group, rows: slice, columns: slice) -> Any:
        return np.stack([tifffile.imread(path)[rows, columns] for path in fields[group]])

    first = tifffile.imread(next(iter(fields.values()))[0])
    return sorted(fields), len(first), read


def with_zarr(plate: Path) -> tuple[list[Group], int, Read]:
    import zarr

    arrays: dict[Group, Any] = {}

    def array(group: Group) -> Any:
        if group not in arrays:
            arrays[group] = zarr.open_array(plate.joinpath(*group, "0"), mode="r")
        return arrays[group]

    groups = sorted(path.parts[-4:-1] for path in plate.glob("*/*/*/0"))
    side_px = zarr.open_array(plate.joinpath(*groups[0], "0"), mode="r").shape[-1]
    return groups, side_px, lambda group, rows, columns: array(group)[:, rows, columns]


def with_cellvim(plate: Path) -> tuple[list[Group], int, Read]:
    from cellvim.store import PlateReader

    reader = PlateReader(plate)
    fields = {tuple(field.group.split("/")): field for field in reader.fields}

    def read(group: Group, rows: slice, columns: slice) -> Any:
        size = rows.stop - rows.start, columns.stop - columns.start
        return reader.read_crop(fields[group], rows.start, columns.start, *size)

    return sorted(fields), reader.shape(reader.fields[0])[1], read


METHODS: dict[str, Callable[[Path], tuple[list[Group], int, Read]]] = {
    "tifffile": with_tifffile,
    "zarr": with_zarr,
    "cellvim": with_cellvim,
}

if __name__ == "__main__":
    main()
