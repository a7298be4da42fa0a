"""From RxRx3-core's shards of JPEG 2000 images to a folder of TIFFs per plate, and a plate map."""

import logging
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import imagecodecs
import pyarrow.parquet as pq
import tifffile

from cellvim.atomic import write_atomically
from cellvim.errors import InputError, NotFoundError
from cellvim.store import parse_well
from pipelines.published.rxrx3_core.wells import read_wells
from pipelines.published.study_folder import StudyTables
from pipelines.published.tables import tables_below

logger = logging.getLogger(__name__)

SHARDS = "train-*.parquet"
ROWS_AT_ONCE = 256
_KEY = re.compile(
    r"(?P<experiment>[a-z]+-\d+)/Plate(?P<plate>\d+)/(?P<address>[A-Z]{1,2}\d{2})_s(?P<site>\d+)_(?P<channel>\d)"
)
_BROKEN = (imagecodecs.Jpeg2kError, ValueError)


def prepare(
    source: Path, out: Path, experiments: Collection[str] = (), plates: Collection[int] = ()
) -> StudyTables:
    """Write the images of the wells that are asked for and there, OUT/images/EXPERIMENT_PLATE/WELL_s1_w1.tif.

    Args:
        source: Folder with metadata_rxrx3_core.csv, and some of the shards, anywhere below it.
        out: Folder of the study.
        experiments: Names such as ``gene-001``; all if none.
        plates: Numbers of plates within experiments; all if none.

    Raises:
        NotFoundError: The table of wells or shards are not there.
        InputError: The shards hold something else, or a damaged image.
    """
    tables = tables_below(source)
    shards = sorted(path for name, paths in tables.items() if fnmatchcase(name, SHARDS) for path in paths)
    if not shards:
        hint = "the README.md beside the study file says which shards to fetch"
        raise NotFoundError(source / SHARDS, expected="shard of images", hint=hint)
    wells = read_wells(tables, experiments, plates)
    wanted = set(wells.select("Metadata_Plate", "Metadata_Well").iter_rows()) if wells.height else set()
    found: set[str] = set()
    for shard in shards:
        count = 0
        for (plate, well, file), image in images_of(shard, wanted):
            folder = out / "images" / plate
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{well}_{file}.tif", image)
            found.add(plate)
            count += 1
        logger.info("%s: %d images", shard.name, count)
    platemap = wells.filter(wells["Metadata_Plate"].is_in(sorted(found))) if wells.height else wells
    return StudyTables({plate: out / "images" / plate for plate in found}, platemap)


def images_of(
    shard: Path, wanted: Collection[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str, str], bytes]]:
    """Yield plate, well and rest of the name of each image of the wells that are wanted, and its bytes.

    Keys are read first, so that row groups without such wells are passed over.
    """
    with pq.ParquetFile(shard) as file:
        missing = {"__key__", "jp2"} - set(file.schema_arrow.names)
        if missing:
            found = f"{shard} has no column {' and '.join(sorted(missing))}"
            raise InputError(found, hint="fetch a file of the folder data of RxRx3-core")
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, columns=["__key__"])["__key__"].to_pylist()
            if any(place_of(key, shard)[:2] in wanted for key in keys):
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=["__key__", "jp2"]):
                    for row in batch.to_pylist():
                        place = place_of(row["__key__"], shard)
                        if place[:2] in wanted:
                            yield place, _bytes_of(row["jp2"], place, shard)


def place_of(key: str, shard: Path) -> tuple[str, str, str]:
    """``gene-001/Plate9/AA02_s1_3`` to ``("gene-001_9", "AA02", "s1_w3")``."""
    match = _KEY.fullmatch(key)
    if match is None:
        found = f"{shard} names an image {key!r}, expected one such as gene-001/Plate9/AA02_s1_3"
        raise InputError(found, hint="fetch a file of the folder data of RxRx3-core")
    plate = f"{match['experiment']}_{int(match['plate'])}"
    return plate, parse_well(match["address"]), f"s{match['site']}_w{match['channel']}"


def write_image(path: Path, content: bytes) -> None:
    """Turn a JPEG 2000 image into a TIFF of the same 8-bit grey values; one that is there already is kept."""
    if path.exists():
        return
    try:
        pixels = imagecodecs.jpeg2k_decode(content)
    except _BROKEN as error:
        found = f"the image for {path.name} of plate {path.parent.name} is damaged: {error}"
        raise InputError(found, hint="fetch its shard again") from error
    write_atomically(path, lambda place: _write_tiff(place, pixels), flushes_folder=False)


def _write_tiff(path: Path, pixels: Any) -> None:
    """Write neither a date nor a program's name, so that the same image gives the same bytes."""
    tifffile.imwrite(path, pixels, compression="zlib", metadata=None, software=False, datetime=False)


def _bytes_of(image: Any, place: tuple[str, str, str], shard: Path) -> bytes:
    """Images are stored as bytes, or as bytes beside a name."""
    content = image["bytes"] if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        found = f"{shard} holds no image for {'/'.join(place)}"
        raise InputError(found, hint="fetch it again")
    return content
