"""Plate maps at ingest: each plate gets the rows of its wells, and what does not match is said."""

import logging
from collections.abc import Sequence

import polars as pl

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.preflight import Preflight
from cellvim.ingest.sources import some
from cellvim.store import well_position
from cellvim.store.barcodes import is_barcode_list
from cellvim.store.platemap import CONTROL_TYPE, PERTURBATION, WELL, read_platemap, select_plate

logger = logging.getLogger(__name__)


def read_maps(checks: Sequence[Preflight], settings: IngestSettings) -> list[pl.DataFrame | None]:
    """Cut the plate map into one per plate: the rows of wells that the plate names.

    Plates are looked for by name, then by the barcode that their source gives them.

    Raises:
        InputError: The plate map has no such plate, or not one of its wells.
    """
    if settings.platemap is None:
        return [None] * len(checks)
    whole = None if is_barcode_list(settings.platemap) else read_platemap(settings.platemap)
    maps: list[pl.DataFrame | None] = []
    for check in checks:
        name, barcode = check.plate.name, check.plate.barcode
        names = [name, *([barcode] if barcode else [])]
        rows = read_platemap(settings.platemap, names) if whole is None else whole
        rows = select_plate(rows, name, barcode)
        own = rows.filter(pl.col(WELL).is_in(sorted(check.wells)))
        if own.is_empty():
            wells = f"it has {some(rows[WELL].to_list())}, the images are of {some(_sorted(check.wells))}"
            found = f"{settings.platemap} has no well of plate {name}: {wells}"
            raise InputError(found, hint="check that the plate map belongs to this plate")
        _warn_about_map(check, rows)
        _say_what_it_says(check, own)
        maps.append(own)
    return maps


def _warn_about_map(check: Preflight, rows: pl.DataFrame) -> None:
    mapped = set(rows[WELL].to_list())
    _warn_about_wells(check, check.wells - mapped, "have images but are not in the plate map")
    _warn_about_wells(check, mapped - check.wells, "are in the plate map but have no images")


def _say_what_it_says(check: Preflight, rows: pl.DataFrame) -> None:
    """Say how the map was understood while it can still be mended: evaluation may be days away."""
    name = check.plate.name
    if PERTURBATION not in rows.columns:
        columns = some([column.removeprefix("Metadata_") for column in rows.columns], 8)
        message = "%s: the plate map does not say what was done to a well (columns: %s); name one to evaluate with --perturbation"
        logger.warning(message, name, columns)
        return
    types = rows[CONTROL_TYPE] if CONTROL_TYPE in rows.columns else pl.Series([None] * rows.height)
    treated = rows.filter(~types.is_in(["negcon", "empty"]).fill_null(value=False))[PERTURBATION]
    counts = treated.drop_nulls().n_unique(), types.to_list().count("negcon")
    logger.info("%s: plate map: %d wells, %d perturbations, %d negative controls", name, rows.height, *counts)
    if not counts[1]:
        message = (
            "%s: the plate map marks no negative control; name them to evaluate with --control COLUMN=VALUE"
        )
        logger.warning(message, name)


def _warn_about_wells(check: Preflight, wells: set[str], what: str) -> None:
    if wells:
        logger.warning("%s: %d well(s) %s: %s", check.plate.name, len(wells), what, some(_sorted(wells), 6))


def _sorted(wells: set[str]) -> list[str]:
    return sorted(wells, key=well_position)
