"""Profile tables as files: `Metadata_*` columns say what a row is, every other column is a feature."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Float32, Integer
from numpy import ndarray

from cellvim.errors import InputError, NotFoundError
from cellvim.store import parse_well

logger = logging.getLogger(__name__)

METADATA_PREFIX = "Metadata_"
PROVENANCE_KEY = b"cellvim"
"""Key of a Parquet file's metadata under which a table says how it was made."""
PLATE, WELL, SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
PERTURBATION, CONTROL_TYPE = "Metadata_Perturbation", "Metadata_ControlType"
NEGATIVE_CONTROL, EMPTY = "negcon", "empty"

SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t", ".txt": "\t"}
SUFFIXES = (".parquet", ".pq", *SEPARATORS)

LONGEST_NAME = 60
SHARE_THERE = 0.5

# How peers name the plate and the well, in the order they are looked for.
PLATE_NAMES = (
    PLATE,
    "Metadata_plate",
    "Metadata_Assay_Plate_Barcode",
    "Metadata_Barcode",
    "Metadata_barcode",
)
WELL_NAMES = (WELL, "Metadata_well", "Metadata_well_position", "Metadata_Position", "Metadata_pert_well")


@dataclass(frozen=True)
class Profiles:
    """Rows of features with what is known about each row.

    Args:
        metadata: One row per profile, `Metadata_*` columns only; plates and wells are text, wells like `A01`.
        features: Finite values, one row per profile.
        feature_names: Names of the feature columns.
        provenance: What the writer of the table said about the model that made it; empty for foreign tables.
        source: File that the table came from.
        name: Short name, for charts and messages.
        notes: How the table was read, one sentence each.
        warnings: What was left out on the way here, one sentence each.
    """

    metadata: pl.DataFrame
    features: Float32[ndarray, "wells features"]
    feature_names: tuple[str, ...]
    provenance: dict[str, Any]
    source: Path
    name: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_control(self) -> Bool[ndarray, " wells"]:
        """True for negative controls; False everywhere if the table does not say."""
        if CONTROL_TYPE not in self.metadata.columns:
            return np.zeros(self.metadata.height, bool)
        return (self.metadata[CONTROL_TYPE] == NEGATIVE_CONTROL).fill_null(value=False).to_numpy()

    @property
    def plates(self) -> tuple[str, ...]:
        return tuple(self.metadata[PLATE].unique().sort())

    def only(self, rows: Integer[ndarray, " kept"]) -> "Profiles":
        """Some of the rows, in the given order."""
        return replace(self, metadata=self.metadata[rows], features=self.features[rows])

    def noting(self, note: str) -> "Profiles":
        """Add a note, and log it."""
        logger.info("%s: %s", self.name, note)
        return replace(self, notes=(*self.notes, note))

    def warning(self, warning: str) -> "Profiles":
        """Add what a reader must know before trusting a number, and log it."""
        logger.warning("%s: %s", self.name, warning)
        return replace(self, warnings=(*self.warnings, warning))

    def with_features(
        self, features: Float[ndarray, "wells kept"], kept: Bool[ndarray, " features"]
    ) -> "Profiles":
        """Replace the features by new values of those that are kept."""
        names = tuple(name for name, is_kept in zip(self.feature_names, kept, strict=True) if is_kept)
        return replace(self, features=features.astype(np.float32), feature_names=names)


def read_profiles(path: Path) -> Profiles:
    """Read a profile table of ours or of a peer: Parquet, CSV or TSV (also gzipped).

    Rows that are mostly not finite are dropped, then features that are not finite in some row left; the table
    warns of both.

    Raises:
        NotFoundError: No such file.
        InputError: The file is not a table, or lacks a plate, a well, rows or usable numeric features.
    """
    table = read_table(path)
    metadata = table.select(pl.col(f"^{METADATA_PREFIX}.*$"))
    numbers = table.drop(metadata.columns)
    require_numbers(numbers, path)
    profiles = Profiles(
        metadata=named_wells(metadata, path),
        features=np.ascontiguousarray(numbers.cast(pl.Float32).fill_null(float("nan")).to_numpy()),
        feature_names=tuple(numbers.columns),
        provenance=read_provenance(path),
        source=path,
        name=table_name(path),
    )
    return drop_unusable(profiles)


def read_table(path: Path) -> pl.DataFrame:
    """Read the file, whatever its format."""
    require_file(path)
    suffix = next((known for known in SUFFIXES if path.name.lower().endswith(known)), None)
    if suffix is None:
        found = f"{path} is not a profile table that can be read by its ending"
        raise InputError(found, hint=f"give a file ending in {', '.join(SUFFIXES)}")
    try:
        if suffix in SEPARATORS:
            return pl.read_csv(
                path,
                separator=SEPARATORS[suffix],
                infer_schema_length=None,
                null_values=["", "NA", "nan", "NaN"],
            )
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        found = f"{path} cannot be read as a {suffix} table: {str(error).splitlines()[0]}"
        raise InputError(found, hint="check that the file is complete, then write it again") from error


def require_file(path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(
            path, expected="profile table", hint=f"give a file ending in {', '.join(SUFFIXES)}"
        )


def read_provenance(path: Path) -> dict[str, Any]:
    """What `cellvim embed` wrote into the table about the model; empty for other tables."""
    if path.suffix not in (".parquet", ".pq"):
        return {}
    try:
        content = json.loads((pq.read_schema(path).metadata or {}).get(PROVENANCE_KEY, b"{}"))
    except (pa.ArrowException, ValueError, OSError) as error:
        found = f"{path}: its key `cellvim` is not JSON"
        raise InputError(found, hint="write the table again with `cellvim embed`") from error
    return content if isinstance(content, dict) else {}


def thumbnails_path(table: Path) -> Path:
    """``NAME.thumbnails.parquet`` beside the table, whether it is there or not."""
    return table.with_name(f"{table_name(table)}.thumbnails.parquet")


def table_name(path: Path) -> str:
    """File name without folder and ending."""
    suffix = next(
        (known for known in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(known)), ""
    )
    return path.name.removesuffix(suffix)


def require_numbers(numbers: pl.DataFrame, path: Path) -> None:
    """Refuse a table without rows, without features, or with text where numbers belong."""
    if numbers.height == 0 and numbers.width > 0:
        found = f"{path} has no rows"
        raise InputError(found, hint="a profile table has one row per well, field or crop")
    if numbers.width == 0:
        found = f"{path} has no feature columns: every column begins with {METADATA_PREFIX}"
        raise InputError(found, hint="features are the columns that do not begin with Metadata_")
    text = [name for name in numbers.columns if not is_number_or_empty(numbers[name])]
    if text:
        found = f"{path}: {len(text)} feature column(s) hold no numbers: {', '.join(text[:3])}"
        hint = (
            f"columns that describe a well must begin with {METADATA_PREFIX}, for example Metadata_{text[0]}"
        )
        raise InputError(found, hint=hint)


def is_number_or_empty(column: pl.Series) -> bool:
    return column.dtype.is_numeric() or column.null_count() == column.len()


def named_wells(metadata: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Give plate and well their names of the contract, and wells the form `A01`."""
    chosen = {PLATE: first_present(PLATE_NAMES, metadata), WELL: first_present(WELL_NAMES, metadata)}
    for wanted, found_name in chosen.items():
        if found_name is None:
            found = f"{path} has no column {wanted}"
            raise InputError(
                found, hint=f"each row needs {PLATE} and {WELL}; found {shortened(metadata.columns)}"
            )
    columns = [pl.col(str(name)).cast(pl.String).alias(wanted) for wanted, name in chosen.items()]
    metadata = metadata.with_columns(columns)
    if metadata.select(PLATE, WELL).null_count().sum_horizontal().item():
        found = f"{path}: {PLATE} or {WELL} is empty in some rows"
        raise InputError(found, hint="every row must say which plate and well it is from")
    wells = {well: parse_well(well) for well in metadata[WELL].unique()}
    return metadata.with_columns(pl.col(WELL).replace_strict(wells))


def first_present(names: tuple[str, ...], metadata: pl.DataFrame) -> str | None:
    return next((name for name in names if name in metadata.columns), None)


def shortened(names: list[str], *, most: int = 8) -> str:
    """List a few names, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in names[:most]]
    return (", ".join(shown) or "no such columns") + more


def drop_unusable(profiles: Profiles) -> Profiles:
    """Drop rows that are mostly not finite, then features that are not finite in every row left.

    In this order, so that one nearly empty well costs itself and not almost all features of all wells.
    """
    finite = np.isfinite(profiles.features)
    rows = is_mostly_there(finite)
    columns = finite[rows].all(axis=0)
    if not rows.any() or not columns.any():
        found = f"{profiles.source}: no feature is a finite number in every well"
        raise InputError(found, hint="remove the wells or features that are empty, NaN or infinite")
    kept = replace(profiles, metadata=profiles.metadata.filter(rows))
    kept = kept.with_features(profiles.features[np.ix_(rows, columns)], columns)
    if not rows.all():
        names = profiles.metadata.filter(~rows).select(pl.concat_str(PLATE, WELL, separator=" ")).to_series()
        wells = shortened(names.unique(maintain_order=True).to_list())
        kept = kept.warning(f"{int((~rows).sum())} row(s) dropped, mostly empty, NaN or infinite: {wells}")
    if not columns.all():
        kept = kept.warning(f"{int((~columns).sum())} feature(s) dropped: empty, NaN or infinite in some row")
    return kept


def is_mostly_there(finite: Bool[ndarray, "rows features"]) -> Bool[ndarray, " rows"]:
    """True for rows with at least half of the features that are finite in at least half of all rows."""
    usual = finite.mean(axis=0) >= SHARE_THERE
    rows = finite[:, usual].mean(axis=1) >= SHARE_THERE if usual.any() else finite.any(axis=1)
    return np.asarray(rows)
