"""A stored plate at a glance, without reading pixels."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from cellvim.errors import InputError
from cellvim.store.platemap import CONTROL_TYPE, PERTURBATION, name_compounds
from cellvim.store.reader import PlateReader
from cellvim.store.records import load_json
from cellvim.store.signature import RUN_FILE
from cellvim.store.writer import PLATE_RECORD


def describe_plate(path: Path | str) -> dict[str, Any]:
    """Facts about a plate, JSON-able, without reading pixels.

    Raises:
        NotFoundError: No plate there.
        InputError: The plate is unfinished, or its companion folder is lost or damaged.
    """
    reader = PlateReader(path)
    try:
        return _facts(reader)
    except (
        ArithmeticError,
        AttributeError,
        FileNotFoundError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        pl.exceptions.PolarsError,
    ) as error:
        if isinstance(error, InputError):
            raise
        found = f"{reader.companion.location} is damaged: {str(error).splitlines()[0][:200]}"
        raise InputError(found, hint="`cellvim verify` lists all damage; ingest again") from error


def _facts(reader: PlateReader) -> dict[str, Any]:
    shapes = sorted({reader.shape(field) for field in reader.fields})
    filled = {
        str(field): [
            channel for channel, is_valid in zip(reader.channels, valid, strict=True) if not is_valid
        ]
        for field in reader.fields
        if not (valid := reader.is_valid(field)).all()
    }
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
        "filled_planes": sum(map(len, filled.values())),
        "filled": filled,
        "skipped": reader.skipped_units,
        "fields_per_well": dict(Counter(field.well for field in reader.fields)),
        **_platemap_facts(reader.platemap),
        **_run_facts(reader),
    }


def _platemap_facts(platemap: pl.DataFrame | None) -> dict[str, Any]:
    if platemap is None:
        return {"platemap_columns": [], "perturbations": 0, "controls": {}}
    names = platemap[PERTURBATION] if PERTURBATION in platemap.columns else name_compounds(platemap)
    controls = (
        platemap[CONTROL_TYPE].drop_nulls()
        if CONTROL_TYPE in platemap.columns
        else pl.Series(dtype=pl.String)
    )
    return {
        "platemap_columns": platemap.columns,
        "perturbations": names.drop_nulls().n_unique(),
        "controls": dict(sorted(Counter(controls.cast(pl.String).to_list()).items())),
    }


def _run_facts(reader: PlateReader) -> dict[str, Any]:
    """What the record of the ingest says; a plate of another writer has none."""
    record = load_json(reader.companion, PLATE_RECORD)
    facts: dict[str, Any] = {}
    if reader.companion.has(RUN_FILE):
        facts = json.loads(reader.companion.read(RUN_FILE))["facts"]
    return {
        "codec": record["codec"],
        "illumination": (record.get("illumination") or {}).get("use"),
        "source": facts.get("source"),
        "acquired": facts.get("acquired"),
        "barcode": facts.get("barcode"),
        "wavelengths": facts.get("wavelengths") or {},
    }
