"""The stage itself: from vendor folders to one OME-Zarr plate each."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import polars as pl

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError, UsageError
from cellvim.ingest.estimate import refuse_full_disk
from cellvim.ingest.maps import read_maps
from cellvim.ingest.preflight import Preflight, check_plate
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.sources import SourcePlate, some
from cellvim.ingest.summary import IngestSummary, PlateResult
from cellvim.ingest.writing import disk_errors, foresee, write_plate
from cellvim.store import safe_name
from cellvim.store.place import LocalPlace, open_place

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
    checks, failed = check_sources(settings)
    maps = read_maps(checks, settings)
    if settings.dry_run:
        reports = tuple(foresee(check, settings, is_tried=True) for check in checks)
        return IngestSummary(reports, failed=failed, is_dry_run=True)
    failed |= refuse_problems(checks, settings)
    kept = [(check, rows) for check, rows in zip(checks, maps, strict=True) if check.plate.name not in failed]
    refuse_full_disk([check for check, _ in kept], settings)
    with disk_errors(settings.out):
        results, unwritten = _write_plates(kept, settings)
    summary = IngestSummary(tuple(results), failed=failed | unwritten)
    summary.refuse_failures()
    return summary


def refuse_overlap(settings: IngestSettings) -> None:
    """Keep the output out of the source folders, where a later ingest would look for images.

    Raises:
        UsageError: `out` is a source folder or lies in one.
    """
    place = open_place(settings.out)
    if not isinstance(place, LocalPlace):
        return
    out = place.path.resolve()
    for source in settings.sources:
        if out.is_relative_to(source.resolve()):
            found = f"--out {settings.out} lies inside of the source {source}"
            raise UsageError(found, hint="choose a folder outside of the images")


def check_sources(settings: IngestSettings) -> tuple[list[Preflight], dict[str, str]]:
    """Recognise every source and check every plate in it.

    Returns:
        Checked plates, sorted by name; and source or plate to the reason why it cannot be checked, where the others
        shall be gone on with.

    Raises:
        InputError: Two plates of one name; or a source or plate that cannot be checked, if all shall stop then.
        UsageError: A name for one plate, and several plates.
    """
    failed: dict[str, InputError] = {}
    plates: list[SourcePlate] = []
    for source in settings.sources:
        with _tolerated(str(source), failed, settings):
            plates += read_source(source, settings)
    if settings.plate and plates:
        plates = [replace(_only(plates), name=safe_name(settings.plate))]
    _refuse_same_names(plates)
    checks = []
    for plate in sorted(plates, key=lambda plate: plate.name):
        with _tolerated(plate.name, failed, settings):
            checks.append(check_plate(plate, settings))
    if not checks:
        raise next(iter(failed.values()))
    reasons = {name: f"{error.found} ({error.hint})" for name, error in failed.items()}
    if not settings.dry_run:
        # Said at once, as the summary may be hours away.
        for name, reason in reasons.items():
            logger.warning("%s: %s", name, reason)
    return checks, reasons


@contextmanager
def _tolerated(name: str, failed: dict[str, InputError], settings: IngestSettings) -> Iterator[None]:
    """Note what is wrong with one of several plates, unless it is to stop all of them.

    A path that is not there is a mistake of whoever named it, and stops all.
    """
    try:
        yield
    except InputError as error:
        if settings.on_missing == "stop" and not settings.dry_run:
            raise
        failed[name] = error


def _refuse_same_names(plates: Sequence[SourcePlate]) -> None:
    for name, count in Counter(plate.name for plate in plates).items():
        if count > 1:
            found = f"{count} plates are named {name} (all: {some([plate.name for plate in plates], 6)})"
            raise InputError(found, hint="ingest them one by one, each with its own --plate")


def _only(plates: Sequence[SourcePlate]) -> SourcePlate:
    if len(plates) > 1:
        found = (
            f"--plate names one plate, the sources hold {len(plates)}: {some([p.name for p in plates], 6)}"
        )
        raise UsageError(found, hint="leave --plate out, or ingest them one by one")
    return plates[0]


def refuse_problems(checks: Sequence[Preflight], settings: IngestSettings) -> dict[str, str]:
    """Stop before anything is written, unless the user chose to go on without what is damaged.

    Returns:
        Plates of which nothing would be left, and why, where there are others.

    Raises:
        PreflightError: Files are missing or damaged, and `on_missing` is ``stop``.
        InputError: No field of any plate is usable.
    """
    bad = [check for check in checks if check.problems]
    if bad and settings.on_missing == "stop":
        lines = [
            f"{check.plate.name}: {line}" if len(bad) > 1 else line
            for check in bad
            for line in check.problems
        ]
        hint = "repair the files, or go on with --on-missing skip-field (or fill)"
        raise PreflightError(some([check.plate.name for check in bad]), lines, hint=hint)
    failed = {}
    for check in checks:
        for line in check.problems:
            logger.warning("%s: %s", check.plate.name, line)
        try:
            check.refuse_empty()
        except InputError as error:
            failed[check.plate.name] = error.found
            if len(failed) == len(checks):
                raise
    return failed


Kept = Sequence[tuple[Preflight, pl.DataFrame | None]]


def _write_plates(kept: Kept, settings: IngestSettings) -> tuple[list[PlateResult], dict[str, str]]:
    """Write plate after plate; one of several whose pixels turn out to be unusable does not stop the others."""
    results: list[PlateResult] = []
    failed: dict[str, str] = {}
    for check, rows in kept:
        try:
            results.append(write_plate(check, rows, settings))
        except InputError as error:
            if settings.on_missing == "stop" or len(failed) + 1 == len(kept):
                raise
            failed[check.plate.name] = error.found
            logger.warning("%s: %s", check.plate.name, error.found)
    return results, failed
