"""The stage itself: from vendor folders to one OME-Zarr plate each."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from cellvim.config import IngestSettings
from cellvim.errors import InputError, UsageError
from cellvim.ingest.detect import read_source
from cellvim.ingest.preflight import Preflight, check_plate
from cellvim.ingest.sources import SourcePlate, some
from cellvim.ingest.summary import IngestSummary
from cellvim.ingest.writing import disk_errors, foresee, write_plate
from cellvim.store import safe_name, well_position
from cellvim.store.platemap import WELL, read_platemap, select_plate

logger = logging.getLogger(__name__)


def ingest_plates(settings: IngestSettings) -> IngestSummary:
    """Turn folders of vendor images into plates.

    All plates are checked before the first byte of any is written.

    Raises:
        PreflightError: Files are missing or damaged, and `on_missing` is ``stop``.
        OutputExistsError: A plate is there from other files or settings.
        FieldsFailedError: Some fields could not be decoded; everything else is done.
        DiskError: The output cannot be written. What is finished is kept.
    """
    refuse_overlap(settings)
    checks = check_sources(settings)
    maps = read_maps(checks, settings)
    if settings.dry_run:
        return IngestSummary(tuple(foresee(check, settings) for check in checks), is_dry_run=True)
    refuse_problems(checks, settings)
    with disk_errors(settings.out):
        results = [write_plate(check, rows, settings) for check, rows in zip(checks, maps, strict=True)]
    summary = IngestSummary(tuple(results))
    summary.refuse_failures()
    return summary


def refuse_overlap(settings: IngestSettings) -> None:
    """Keep the output out of the source folders, where a later ingest would look for images.

    Raises:
        UsageError: `out` is a source folder or lies in one.
    """
    out = settings.out.resolve()
    for source in settings.sources:
        if out.is_relative_to(source.resolve()):
            found = f"--out {settings.out} lies inside of the source {source}"
            raise UsageError(found, hint="choose a folder outside of the images")


def check_sources(settings: IngestSettings) -> list[Preflight]:
    """Recognise every source and check every plate in it, sorted by plate name.

    Raises:
        InputError: Two plates of one name.
        UsageError: A name for one plate, and several plates.
    """
    plates = [plate for source in settings.sources for plate in read_source(source, settings)]
    if settings.plate:
        plates = [replace(_only(plates), name=safe_name(settings.plate))]
    name, count = Counter(plate.name for plate in plates).most_common(1)[0]
    if count > 1:
        found = f"{count} plates are named {name} (all: {some([plate.name for plate in plates], 6)})"
        raise InputError(found, hint="ingest them one by one, each with its own --plate")
    return [check_plate(plate, settings) for plate in sorted(plates, key=lambda plate: plate.name)]


def _only(plates: Sequence[SourcePlate]) -> SourcePlate:
    if len(plates) > 1:
        found = (
            f"--plate names one plate, the sources hold {len(plates)}: {some([p.name for p in plates], 6)}"
        )
        raise UsageError(found, hint="leave --plate out, or ingest them one by one")
    return plates[0]


def read_maps(checks: Sequence[Preflight], settings: IngestSettings) -> list[pl.DataFrame | None]:
    """Cut the plate map into one per plate: the rows of wells that the plate names.

    Raises:
        InputError: The plate map has no such plate, or not one of its wells.
    """
    if settings.platemap is None:
        return [None] * len(checks)
    whole = read_platemap(settings.platemap)
    maps: list[pl.DataFrame | None] = []
    for check in checks:
        rows = select_plate(whole, check.plate.name)
        own = rows.filter(pl.col(WELL).is_in(sorted(check.wells)))
        if own.is_empty():
            found = f"{settings.platemap} has no well of plate {check.plate.name}"
            raise InputError(found, hint="check that the plate map belongs to this plate")
        _warn_about_map(check, rows)
        maps.append(own)
    return maps


def refuse_problems(checks: Sequence[Preflight], settings: IngestSettings) -> None:
    """Stop before anything is written, unless the user chose to go on without what is damaged.

    Raises:
        PreflightError: Files are missing or damaged, and `on_missing` is ``stop``.
        InputError: No field of a plate is usable.
    """
    for check in checks:
        check.refuse(on_missing=settings.on_missing)
    for check in checks:
        for line in (*check.notes, *check.problems):
            logger.warning("%s: %s", check.plate.name, line)


def _warn_about_map(check: Preflight, rows: pl.DataFrame) -> None:
    mapped = set(rows[WELL].to_list())
    _warn_about_wells(check, check.wells - mapped, "have images but are not in the plate map")
    _warn_about_wells(check, mapped - check.wells, "are in the plate map but have no images")


def _warn_about_wells(check: Preflight, wells: set[str], what: str) -> None:
    if wells:
        names: list[str] = sorted(wells, key=well_position)
        logger.warning("%s: %d well(s) %s: %s", check.plate.name, len(wells), what, some(names, 6))
