"""One profile table in one file: Parquet, CSV, TSV or AnnData, ours or a peer's."""

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from cellvim.errors import InputError
from cellvim.profiles.schema import (
    ANNDATA,
    METADATA_PREFIX,
    PLATE,
    PROVENANCE_KEY,
    SEPARATORS,
    SUFFIXES,
    WELL,
    Profiles,
    first_present,
    require_file,
    shortened,
    table_name,
)
from cellvim.store import parse_well

# How peers name the plate and the well, in the order they are looked for.
PLATE_NAMES = (
    PLATE,
    "Metadata_plate",
    "Metadata_Assay_Plate_Barcode",
    "Metadata_Barcode",
    "Metadata_barcode",
)
# How pandas names the numbers of rows that it writes unless told not to.
ROW_NUMBERS = re.compile(r"|index|level_0|__index_level_\d+__|Unnamed: \d+")
# A number such as 3,14 between semicolons; a list of numbers has more than one comma.
DECIMAL_COMMA = re.compile(rb"(?:^|;)\s*-?\d+,\d+\s*(?:;|$)")
WELL_NAMES = (WELL, "Metadata_well", "Metadata_well_position", "Metadata_Position", "Metadata_pert_well")


def read_file(path: Path) -> Profiles:
    """Read one file as it is; values may be NaN or infinite.

    Raises:
        NotFoundError: No such file.
        InputError: The file is not a table, or lacks a plate, a well, rows or numeric features.
        UsageError: It is an AnnData file, and anndata is not installed.
    """
    table, provenance = read_table(path)
    refuse_consensus(provenance, path)
    metadata = table.select(pl.col(f"^{METADATA_PREFIX}.*$"))
    counted = [name for name in table.columns if ROW_NUMBERS.fullmatch(name)]
    numbers = table.drop(metadata.columns, counted)
    require_numbers(numbers, path)
    metadata = plain_cells(metadata, path)
    profiles = Profiles(
        metadata=named_wells(metadata, path),
        features=np.ascontiguousarray(numbers.cast(pl.Float32).fill_null(float("nan")).to_numpy()),
        feature_names=tuple(numbers.columns),
        provenance=provenance,
        source=path,
        name=table_name(path),
    )
    if counted:
        named = ", ".join(name or "(no name)" for name in counted)
        return profiles.warning(
            f"{len(counted)} column(s) of row numbers are no features and were left out: {named}"
        )
    return profiles


def refuse_consensus(provenance: Mapping[str, Any], path: Path) -> None:
    """Refuse what `cellvim normalize --consensus` writes: it has no wells.

    Raises:
        InputError: Rows of the table stand for perturbations.
    """
    done = provenance.get("normalized")
    if isinstance(done, Mapping) and done.get("level") == "perturbation":
        found = (
            f"{path} has one row per perturbation (from normalize --consensus), and rows of wells are needed"
        )
        raise InputError(
            found,
            hint="give the table it was made from; evaluate makes a consensus of its own where a task needs one",
        )


def plain_cells(metadata: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Make metadata of any format what they would be as text: blank and NaN are null, lists are ``a|b``.

    Raises:
        InputError: A column holds neither numbers nor text.
    """
    for name, kind in metadata.schema.items():
        inner = kind.inner if isinstance(kind, pl.List) else kind
        if inner.is_nested() or inner in (pl.Object, pl.Binary):
            found = f"{path}: column {name} holds {kind}, neither numbers nor text"
            raise InputError(found, hint="write it as text, or leave it out")
    lists = cs.list().list.eval(pl.element().cast(pl.String)).list.join("|")
    texts = metadata.with_columns(cs.float().fill_nan(None), lists)
    is_blank = cs.string().str.strip_chars() == ""
    return texts.with_columns(pl.when(~is_blank).then(cs.string()))


def read_table(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read the file, whatever its format, and what it says about how it was made."""
    require_file(path)
    suffix = next((known for known in SUFFIXES if path.name.lower().endswith(known)), None)
    if suffix is None:
        found = f"{path} is not a profile table that can be read by its ending"
        raise InputError(found, hint=f"give a file ending in {', '.join(SUFFIXES)}")
    if suffix == ANNDATA:
        from cellvim.profiles.anndata_file import read_anndata

        return read_anndata(path)
    try:
        if suffix in SEPARATORS:
            return read_text(path, SEPARATORS[suffix]), {}
        return pl.read_parquet(path), read_provenance(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        found = f"{path} cannot be read as a {suffix} table: {str(error).splitlines()[0]}"
        raise InputError(found, hint="check that the file is complete, then write it again") from error


def read_text(path: Path, usual: str) -> pl.DataFrame:
    """Read a text table; what parts its columns is seen in the header, where that has not the usual separator.

    Spreadsheets in many countries write semicolons, because the comma is their decimal point.
    """
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        header, first_row = file.readline(), file.readline()
    separator = next((known for known in (usual, ";", "\t", ",") if known.encode() in header), usual)
    return pl.read_csv(
        path,
        separator=separator,
        decimal_comma=separator == ";" and DECIMAL_COMMA.search(first_row) is not None,
        infer_schema_length=None,
        null_values=["", "NA", "nan", "NaN"],
    )


def read_provenance(path: Path) -> dict[str, Any]:
    """What `cellvim` wrote into a Parquet table about its making; empty for foreign tables.

    It stands for the whole file: that rows of two makings were put into one file by other software cannot be seen.
    """
    try:
        return provenance_from((pq.read_schema(path).metadata or {}).get(PROVENANCE_KEY, b"{}"), path)
    except pa.ArrowException as error:
        found = f"{path} cannot be read as a Parquet table: {error}"
        raise InputError(found, hint="check that the file is complete, then write it again") from error


def provenance_from(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = f"{path}: its key `cellvim` is not JSON"
        raise InputError(found, hint="write the table again with `cellvim embed`") from error
    return content if isinstance(content, dict) else {}


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
