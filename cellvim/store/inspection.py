"""Look a stored plate over: what is in it, and whether it still is what ingest wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellvim.errors import InputError, NotFoundError
from cellvim.store.checksums import damaged_files
from cellvim.store.intensity import FIELDS_FILE
from cellvim.store.naming import FieldKey
from cellvim.store.place import LocalPlace, open_place
from cellvim.store.reader import HINT, PlateReader
from cellvim.store.records import load_table, plane_sha256


def verify_plate(path: Path | str) -> list[str]:
    """Compare every file's checksum with the one taken when it was written, then every pixel's.

    Returns:
        One line per problem, also where the plate is unfinished or its checksums are lost; empty if it is whole.

    Raises:
        NotFoundError: No plate there.
    """
    place = open_place(path)
    if isinstance(place, LocalPlace) and not place.path.is_dir():
        raise NotFoundError(path, expected="OME-Zarr plate", hint=HINT)
    try:
        return _problems(path)
    except InputError as error:
        return [error.found]


def describe_plate(path: Path | str) -> dict[str, Any]:
    """Facts about a plate, JSON-able, without reading pixels.

    Raises:
        NotFoundError: No plate there.
        InputError: The plate is unfinished, or its companion folder is lost.
    """
    reader = PlateReader(path)
    shapes = sorted({reader.shape(field) for field in reader.fields})
    return {
        "path": reader.place.location,
        "name": reader.name,
        "channels": list(reader.channels),
        "wells": len(reader.wells),
        "fields": len(reader.fields),
        "shapes_px": [list(shape) for shape in shapes],
        "dtype": reader.dtype.name,
        "pixel_size_um": reader.pixel_size_um,
        "bytes": reader.size_bytes,
        "percentiles": {channel: dict(values) for channel, values in reader.intensity.percentiles.items()},
        "filled_planes": sum(int((~reader.is_valid(field)).sum()) for field in reader.fields),
        "skipped": reader.skipped_units,
        "platemap_columns": [] if reader.platemap is None else reader.platemap.columns,
    }


def _problems(path: Path | str) -> list[str]:
    if problems := damaged_files(open_place(path)):
        return problems
    reader = PlateReader(path)
    problems = _missing_from_metadata(reader)
    recorded = load_table(reader.companion, FIELDS_FILE)
    for field in reader.fields:
        rows = recorded.filter(Metadata_Well=field.well, Metadata_Site=field.site)
        problems += _field_problems(reader, field, rows["pixels_sha256"].to_list())
    return problems


def _missing_from_metadata(reader: PlateReader) -> list[str]:
    """Fields that the records and the OME metadata do not both name."""
    named = set(reader.fields_in_metadata())
    recorded = set(reader.fields)
    lost = [f"field {field} is recorded but not named in the plate's metadata" for field in recorded - named]
    extra = [f"field {field} is named in the plate's metadata but not recorded" for field in named - recorded]
    return sorted(lost) + sorted(extra)


def _field_problems(reader: PlateReader, field: FieldKey, expected: Sequence[str]) -> list[str]:
    try:
        pixels = reader.read_field(field, raw=True)
    except InputError as error:
        return [f"field {field}: {error.found}"]
    if len(pixels) != len(expected):
        return [f"field {field} has {len(pixels)} channels, {len(expected)} are recorded"]
    return [
        f"field {field} channel {channel}: pixels differ from those written"
        for channel, plane, sha256 in zip(reader.channels, pixels, expected, strict=True)
        if plane_sha256(plane) != sha256
    ]
