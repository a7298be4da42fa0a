"""A stored plate at a glance, without reading pixels."""

from pathlib import Path
from typing import Any

from cellvim.store.reader import PlateReader


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
