"""Tables from strangers as plate maps come: CSV, TSV or Parquet, in any usual encoding, and the names of columns."""

import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from cellvim.errors import InputError, NotFoundError
from cellvim.store.numbers import as_amounts, as_numbers

MOST_BYTES = 256 << 20
# A hundred plates of 1536 wells are a sixth of it.
MOST_ROWS = 1_000_000
HINT = "a plate map needs one row per well, with a column `well` (B07) and one such as `perturbation`"

# Names as they appear after lower-casing and dropping `Metadata_`, spaces and underscores; first hit wins.
WELL_NAMES = ("well", "wellposition", "wellid", "wellname", "pertwell", "destinationwell")
ROW_NAMES = ("row", "wellrow", "platerow")
COLUMN_NAMES = ("column", "col", "wellcol", "wellcolumn", "platecolumn")
PLATE_NAMES = ("plate", "platebarcode", "assayplatebarcode", "barcode", "plateid", "platename")
MAP_NAMES = ("platemapname", "platemap", "platemapfile", "layout", "layoutname")
PERTURBATION_NAMES = ("perturbation", "pert", "treatment", "broadsample", "jcp2022", "pertid")
COMPOUND_NAMES = ("compound", "compoundname", "drug", "pertiname")
# Never numbers, whatever they look like: barcode 12E3 is not 12000.
_TEXT_NAMES = frozenset((*WELL_NAMES, *PLATE_NAMES, *MAP_NAMES, *PERTURBATION_NAMES, *COMPOUND_NAMES))
_AMOUNT_NAMES = re.compile(r"dose|conc|perliter|perml")
_NULLS = ["NA", "NaN", "nan", "null", ""]
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_GZIP, _UTF16 = b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")


def read_table(path: Path) -> pl.DataFrame:
    """Read a table; every column gets the name `Metadata_*`, and is a number only where nothing is lost by that.

    Raises:
        NotFoundError: No such file.
        InputError: Not a table, a workbook, larger than any plate map, or two columns of one name.
    """
    if not path.is_file():
        raise NotFoundError(path, expected="plate map", hint="give a CSV, TSV or Parquet file")
    try:
        content = _bytes(path)
        _refuse_workbook(content, path)
        if path.suffix.lower() == ".parquet":
            _refuse_many_rows(content, path)
            table = _flat(pl.read_parquet(io.BytesIO(content)))
        else:
            text = _text(content)
            separator = _separator(path, text.partition("\n")[0])
            table = pl.read_csv(
                io.BytesIO(text.encode()),
                separator=separator,
                infer_schema=False,
                null_values=_NULLS,
            )
            # Spreadsheets write semicolons where the comma is their decimal point.
            decimal = "," if separator == ";" else "."
            table = table.with_columns(_typed(table[name], decimal) for name in table.columns)
    except (
        pl.exceptions.PolarsError,
        UnicodeError,
        OSError,
        EOFError,
        zlib.error,
        pl.exceptions.PanicException,
    ) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        found = f"{path} cannot be read as a table: {reason}"
        raise InputError(found, hint=HINT) from error
    return _normalise_names(table)


def find(table: pl.DataFrame, names: Sequence[str]) -> str | None:
    """Column that goes by the first of some names that is there; None if none is."""
    return next(iter(find_all(table.columns, names)), None)


def find_all(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Columns that go by some names, in the order of the names."""
    present = {plain(column.removeprefix("Metadata_")): column for column in columns}
    return [present[name] for name in names if name in present]


def plain(text: str) -> str:
    """Spell a word without case, spaces, underscores and dashes."""
    return text.lower().replace("_", "").replace(" ", "").replace("-", "")


def cell(value: object) -> str:
    """Text of a cell, empty if it is. Other software stores whole numbers with gaps as ``7.0``."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def some(names: Sequence[str], shown: int = 6) -> str:
    """Name a few of many."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def _bytes(path: Path) -> bytes:
    with path.open("rb") as raw:
        content = raw.read(MOST_BYTES + 1)
    if content.startswith(_GZIP):
        with gzip.open(io.BytesIO(content)) as unpacked:
            content = unpacked.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        found = f"{path} holds more than {MOST_BYTES >> 20} MB"
        raise InputError(found, hint=HINT)
    return content


def _refuse_workbook(content: bytes, path: Path) -> None:
    if content.startswith(_WORKBOOKS):
        found = f"{path} is a workbook of a spreadsheet program, not a text table"
        raise InputError(found, hint="save its sheet as CSV, then give that file")


def _refuse_many_rows(content: bytes, path: Path) -> None:
    """Refuse a Parquet by its number of rows: equal rows by the million take no space until they are read."""
    rows = pl.scan_parquet(io.BytesIO(content)).select(pl.len()).collect().item()
    if rows > MOST_ROWS:
        found = f"{path} holds {rows:,} rows"
        raise InputError(found, hint=HINT)


def _text(content: bytes) -> str:
    """UTF-8 or UTF-16 by its mark; else the code page of European Windows, whose micro sign is no UTF-8."""
    if content.startswith(_UTF16):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _separator(path: Path, header: str) -> str:
    is_tabbed = path.name.lower().endswith((".tsv", ".txt", ".tsv.gz", ".txt.gz"))
    return "\t" if is_tabbed and "\t" in header else max(",;\t", key=header.count)


def _flat(table: pl.DataFrame) -> pl.DataFrame:
    """Other software's Parquet may hold lists and structures, which say nothing about a well."""
    return table.select(
        pl.col(name).cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else pl.col(name)
        for name, dtype in table.schema.items()
        if not dtype.is_nested() and dtype not in (pl.Binary, pl.Object)
    )


def _typed(column: pl.Series, decimal: str) -> pl.Series:
    name = plain(column.name.strip().removeprefix("Metadata_"))
    if name in _TEXT_NAMES:
        return column
    if not _AMOUNT_NAMES.search(name):
        return as_numbers(column)
    amounts = as_amounts(column.str.replace_all(decimal, ".", literal=True))
    return amounts if amounts.dtype.is_numeric() else column


def _normalise_names(table: pl.DataFrame) -> pl.DataFrame:
    names = {name: "Metadata_" + name.strip().removeprefix("Metadata_") for name in table.columns}
    if len(set(names.values())) < len(names):
        found = f"two columns of the plate map have the same name: {', '.join(table.columns)}"
        raise InputError(found, hint="rename one of them")
    return table.rename(names)
