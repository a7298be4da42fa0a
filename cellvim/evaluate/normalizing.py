"""The normalize stage: profile tables in, one table of normalised wells or perturbations out."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from cellvim.atomic import locked, write_atomically
from cellvim.config import NormalizeSettings
from cellvim.errors import OutputExistsError, UsageError
from cellvim.evaluate.screen import BATCH_NAMES, first_telling
from cellvim.profiles import (
    PROVENANCE_KEY,
    FittedNormalization,
    Profiles,
    aggregate,
    annotate,
    consensus,
    fit_bytes,
    fit_normalization,
    read_fit,
    read_together,
    table_files,
    without_pictures,
    write_fit,
)
from cellvim.profiles.schema import PERTURBATION, require_file
from cellvim.profiles.table_file import read_provenance
from cellvim.provenance import Run, files_written, sha256_of, sha256_of_file, sha256_of_json

logger = logging.getLogger(__name__)

NORMALIZED = "normalized"
"""Key of a table's provenance that says how its wells were normalised."""
PLACES = {"tables", "out", "platemap", "save", "fitted", "overwrite"}
OWN_CONTROLS, EARLIER_FIT = "the controls of this table", "an earlier fit"


@dataclass(frozen=True)
class NormalizeSummary:
    """What `cellvim normalize` wrote, or found written."""

    out: Path
    rows: int
    features: int
    method: str
    warnings: tuple[str, ...]
    was_done: bool

    def as_dict(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {**asdict(self), "out": str(self.out)}

    def __str__(self) -> str:
        state = "already done" if self.was_done else "done"
        counts = f"{self.rows} rows x {self.features} features"
        return "\n".join(
            [f"{self.out}  {counts}  {self.method}  {state}", *(f"  {what}" for what in self.warnings)]
        )


def normalize_tables(settings: NormalizeSettings) -> NormalizeSummary:
    """Read tables that were made alike, average them to wells, normalise on controls, and write one table.

    Writes `NAME.run.json` and, last, the table, which says under its key `cellvim` how it was made. The same inputs
    and settings give the same bytes, and are not computed again.

    Raises:
        NotFoundError: A table, the plate map or the fit is not there.
        InputError: Tables were made differently, lack what normalisation needs, or do not fit the fit.
        UsageError: A flag contradicts another or the fit.
        OutputExistsError: The output was made from other inputs or settings.
    """
    settings = settings.model_copy(update={"tables": without_pictures(settings.tables)})
    run = Run("normalize", settings)
    identity = identity_of(settings, run)
    require_parquet(settings.out)
    if is_done(settings, identity):
        return summary_of_table(settings.out)
    with sole_writer(settings.out):
        wells = read_wells(settings)
        fit = chosen_fit(settings, wells)
        normalized = wells if fit is None else fit.apply(wells)
        rows = (
            consensus(normalized, [PERTURBATION], settings.average) if settings.is_consensus else normalized
        )
        provenance = provenance_of(settings, wells, fit) | {"identity": identity, "inputs": run.inputs}
        provenance["warnings"] = list(rows.warnings)
        keep_fit(settings, fit)
        run.counts = {"wells": wells.metadata.height, "rows": rows.metadata.height}
        run.facts = {NORMALIZED: provenance[NORMALIZED], "notes": rows.notes, "warnings": rows.warnings}
        run.write(run_path(settings.out))
        write_profiles(settings.out, rows, provenance)
        # Once more: what was made is known only now, and a table never lies there without a record.
        run.outputs = files_written([settings.out, *([settings.save] if settings.save else [])])
        run.write(run_path(settings.out))
    return summary_of(settings.out, rows, provenance)


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold a lock beside the output for the block's time, in a folder that goes with it.

    Raises:
        LockedError: Another process is writing the same output.
    """
    folder = out.with_name(f"{out.name}.parts")
    try:
        with locked(folder):
            yield
    finally:
        with suppress(OSError):  # another process may have begun there since the lock was let go
            folder.rmdir()


def identity_of(settings: NormalizeSettings, run: Run) -> str:
    """Hash of everything that decides the table; notes the inputs on the way."""
    files = [file for table in settings.tables for file in table_files(table)]
    for number, file in enumerate(files):
        is_taken = file.name in run.inputs
        name = f"{file.name} ({number + 1})" if is_taken else file.name
        run.record_input(name, sha256_of_file(file), file)
    for name, path in (("plate map", settings.platemap), ("fit", settings.fitted)):
        if path is not None:
            require_file(path)
            run.record_input(name, sha256_of_file(path), path)
    return sha256_of_json(
        {"settings": settings.model_dump(mode="json", exclude=PLACES), "inputs": run.inputs}
    )


def require_parquet(out: Path) -> None:
    """Refuse an output that is not named as a table.

    Raises:
        UsageError: It does not end in `.parquet`.
        OutputExistsError: It is a folder.
    """
    if out.suffix != ".parquet":
        found = f"--out {out} does not end in .parquet, the only format normalize writes"
        raise UsageError(found, hint="read it with pandas or polars, and write any other format from there")
    if out.is_dir():
        raise OutputExistsError(
            out, why="is a folder", hint="--out names the table, such as profiles.parquet"
        )


def is_done(settings: NormalizeSettings, identity: str) -> bool:
    """Whether the very same table is there already, with its record and the fit that was asked for.

    Raises:
        OutputExistsError: Something else is there.
    """
    out = settings.out
    if not out.exists():
        return False
    provenance = own_provenance(out)
    is_same = provenance.get("identity") == identity
    if not is_same and not settings.overwrite:
        raise OutputExistsError(out, why="was made from other tables or settings")
    kept = settings.save
    has_fit = kept is None or (
        kept.is_file() and sha256_of_file(kept) == provenance.get(NORMALIZED, {}).get("fit_sha256")
    )
    return is_same and has_fit and run_path(out).is_file()


def own_provenance(table: Path) -> dict[str, Any]:
    """What a table says about its making; nothing if it is none."""
    try:
        return read_provenance(table)
    except (ValueError, OSError):
        return {}


def read_wells(settings: NormalizeSettings) -> Profiles:
    logger.info("reading %s", ", ".join(map(str, settings.tables)))
    profiles = annotate(
        read_together(settings.tables),
        platemap=settings.platemap,
        perturbation=settings.perturbation,
        control=settings.control,
    )
    wells = aggregate(profiles, settings.average)
    before = wells.provenance.get(NORMALIZED)
    if before:
        return wells.warning(f"these profiles have been normalised before ({method_of(before)})")
    return wells


def chosen_fit(settings: NormalizeSettings, wells: Profiles) -> FittedNormalization | None:
    """The fit of an earlier run, or a new one; None if nothing is to be fitted.

    Raises:
        UsageError: The method asked for is not that of the earlier run.
    """
    if settings.fitted is not None:
        fit = read_fit(settings.fitted)
        if settings.normalize not in (None, fit.method):
            found = f"--normalize {settings.normalize}, but {settings.fitted} was fitted by {fit.method}"
            raise UsageError(found, hint="leave out --normalize, or fit again")
        return fit
    method = settings.normalize or "sphere"
    if method == "none":
        return None
    batch = settings.batch or first_telling(BATCH_NAMES, wells.metadata)
    fit = fit_normalization(wells, method, batch=batch)
    logger.info("%s fitted on %d negative controls, wells grouped by %s", method, fit.controls, fit.grouping)
    return fit


def provenance_of(
    settings: NormalizeSettings, wells: Profiles, fit: FittedNormalization | None
) -> dict[str, Any]:
    """What the table says of itself: the making of its features, and what has been done to them since."""
    done = {
        "method": "none" if fit is None else fit.method,
        "fit_sha256": None if fit is None else sha256_of(fit_bytes(fit)),
        "grouping": None if fit is None else fit.grouping,
        "average": settings.average,
        "level": "perturbation" if settings.is_consensus else "well",
        "before": wells.provenance.get(NORMALIZED),
    }
    return {
        **wells.provenance,
        NORMALIZED: done,
        "fitted_on": OWN_CONTROLS if settings.fitted is None else EARLIER_FIT,
    }


def keep_fit(settings: NormalizeSettings, fit: FittedNormalization | None) -> None:
    """Write the fit where it was asked for.

    Raises:
        OutputExistsError: Another one is there.
    """
    path = settings.save
    if path is None or fit is None:
        return
    if path.exists() and not settings.overwrite and not is_file_of(path, fit_bytes(fit)):
        raise OutputExistsError(
            path, why="is not this fit", hint="choose another --save, or pass --overwrite"
        )
    write_fit(path, fit)


def is_file_of(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def write_profiles(path: Path, profiles: Profiles, provenance: Mapping[str, Any]) -> None:
    """Write a table that says what it is, as JSON under the key `cellvim`."""
    features = pl.DataFrame(profiles.features, schema=list(profiles.feature_names))
    arrow = pl.concat([profiles.metadata, features], how="horizontal").to_arrow()
    text = json.dumps(provenance, sort_keys=True, ensure_ascii=False).encode()
    arrow = arrow.replace_schema_metadata({PROVENANCE_KEY: text})
    write_atomically(path, lambda temporary: pq.write_table(arrow, temporary, compression="zstd"))


def summary_of(out: Path, rows: Profiles, provenance: Mapping[str, Any]) -> NormalizeSummary:
    method = method_of(provenance[NORMALIZED])
    return NormalizeSummary(
        out, rows.metadata.height, len(rows.feature_names), method, rows.warnings, was_done=False
    )


def summary_of_table(out: Path) -> NormalizeSummary:
    schema, provenance = pq.read_schema(out), read_provenance(out)
    features = sum(not name.startswith("Metadata_") for name in schema.names)
    rows = pq.read_metadata(out).num_rows
    warnings = tuple(map(str, provenance.get("warnings", ())))
    return NormalizeSummary(out, rows, features, method_of(provenance[NORMALIZED]), warnings, was_done=True)


def method_of(normalized: object) -> str:
    return str(normalized.get("method")) if isinstance(normalized, Mapping) else "unknown"


def run_path(out: Path) -> Path:
    return out.with_suffix(".run.json")
