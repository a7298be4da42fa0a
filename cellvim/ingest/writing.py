"""Write one checked plate: all its fields in parallel, then what holds them together."""

import errno
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from cellvim.config import IngestSettings
from cellvim.errors import CellvimError, DiskError, InputError
from cellvim.ingest.fields import FieldFailedError, FieldResult, Job, ingest_field
from cellvim.ingest.findings import describe_pixels
from cellvim.ingest.illumination import learn_illumination
from cellvim.ingest.preflight import Preflight
from cellvim.ingest.preflight_report import PlateReport
from cellvim.ingest.qc_page import PlateView, render_page
from cellvim.ingest.recording import record_inputs, record_outputs, write_record
from cellvim.ingest.summary import PlateResult
from cellvim.progress import progress_bar
from cellvim.provenance import Run
from cellvim.store import PlateWriter
from cellvim.store.statistics import PlateStatistics

logger = logging.getLogger(__name__)

# Raised whenever the same pixels would be stored in other bytes, so that old and new never mix in one plate.
STORE_FORMAT = 2


@dataclass(frozen=True)
class PassResult:
    """What one pass over the fields of a plate gave.

    Attributes:
        failed: Field (``B03/1``) to the reason.
    """

    fields: tuple[FieldResult, ...]
    failed: dict[str, str]


def foresee(check: Preflight, settings: IngestSettings, *, is_tried: bool = False) -> PlateResult:
    """Say what a plate would become; if `is_tried`, with a report for which some planes are read and encoded."""
    path = make_writer(check, settings).place.address
    return PlateResult(
        name=check.plate.name,
        path=path,
        evidence=check.plate.evidence,
        channels=tuple(check.stains.values()),
        wells=len({plan.key.well for plan in check.fields}),
        fields=len(check.fields),
        skipped=dict(sorted(check.skipped.items())),
        problems=check.problems,
        warnings=check.notes,
        bytes_in=check.size_bytes,
        report=PlateReport.of(check, settings, path=str(path)) if is_tried else None,
    )


def write_plate(check: Preflight, platemap: pl.DataFrame | None, settings: IngestSettings) -> PlateResult:
    """Write one plate, or the rest of it.

    Raises:
        OutputExistsError: The plate is there from other files or settings.
        FieldFailedError: A field is damaged and `on_missing` is ``stop``; finished fields are kept.
    """
    started = time.monotonic()
    run = Run("ingest", settings)
    writer = make_writer(check, settings)
    findings: list[str] = []
    with writer.companion.locked():
        writer = replace(writer, illumination=learn_illumination(check, settings))
        writer.begin(overwrite=settings.overwrite)
        done = write_fields(Job(check, writer, settings, was_finished=writer.is_finished))
        result = replace(
            foresee(check, settings),
            wells=len({field.key.well for field in done.fields}),
            fields=len(done.fields),
            skipped=dict(sorted({**check.skipped, **done.failed}.items())),
            failed=done.failed,
            filled={str(field.key): "; ".join(field.filled) for field in done.fields if field.filled},
            bytes_out=sum(field.bytes_out for field in done.fields),
            was_resumed=any(field.status == "already there" for field in done.fields),
            seconds=round(time.monotonic() - started, 3),
        )
        record_inputs(run, check, result, settings)
        write_record(run, writer)
        writer.finish(
            [field.key for field in done.fields],
            skipped=result.skipped,
            platemap=platemap,
            render=partial(_render, PlateView(check, writer, result.skipped), findings),
        )
        record_outputs(run, check, writer)
        # Once more: what was made is known only now, and a plate never lies there without a record.
        write_record(run, writer)
    logger.info(
        "%s: %d fields of %d wells in %.1f s", result.path, result.fields, result.wells, result.seconds
    )
    return replace(result, warnings=(*result.warnings, *findings))


def _render(view: PlateView, findings: list[str], statistics: PlateStatistics) -> str:
    """Make the plate's page, and note on the way what the summary says of its pixels."""
    findings += describe_pixels(statistics)
    return render_page(view, statistics)


def make_writer(check: Preflight, settings: IngestSettings) -> PlateWriter:
    return PlateWriter(
        settings.out,
        check.plate.name,
        channels=tuple(check.stains.values()),
        dtype=check.dtype,
        pixel_size_um=check.plate.pixel_size_um,
        codec=settings.codec,
        settings={"format": STORE_FORMAT, "timepoint": settings.timepoint, "z": settings.z},
    )


def write_fields(job: Job) -> PassResult:
    """Write every field, several at a time. The order of the results is that of the plan.

    Raises:
        FieldFailedError: A field is damaged and `on_missing` is ``stop``.
        InputError: Not one field could be written.
    """
    plans = job.check.fields
    fields: list[FieldResult] = []
    failed: dict[str, str] = {}
    label = f"ingest {job.check.plate.name}"
    with ThreadPoolExecutor(job.settings.workers) as pool, progress_bar(label, total=len(plans)) as advance:
        futures = [pool.submit(ingest_field, plan, job) for plan in plans]
        try:
            for future in futures:
                try:
                    fields.append(future.result())
                except FieldFailedError as error:
                    if job.settings.on_missing == "stop":
                        raise
                    failed[str(error.key)] = error.reason
                    logger.warning("%s: %s", job.check.plate.name, error)
                advance()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if not fields:
        reason = next(iter(failed.values()))
        found = f"plate {job.check.plate.name}: not one of its {len(plans)} fields could be read; {reason}"
        raise InputError(found, hint="repair the files and run again")
    return PassResult(tuple(fields), failed)


@contextmanager
def disk_errors(out: Path | str) -> Iterator[None]:
    """Turn what the operating system says about the output into an error a user can act on.

    Raises:
        DiskError: The disk is full, read-only or failing, or the folder is no folder.
    """
    try:
        yield
    except CellvimError:
        raise
    except OSError as error:
        what = error.strerror or str(error)
        found = f"{error.filename or out} cannot be written: {what}"
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space" if is_full else f"check that {out} is a folder you may write to"
        raise DiskError(found, hint=f"{hint}, then run the same command again: it resumes") from error
