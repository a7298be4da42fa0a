"""Tables as their publishers left them: every cell is a text, and a line with a cell too many or too few is left out."""

import csv
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cellvim.errors import InputError, NotFoundError
from cellvim.ingest.sources import list_files

logger = logging.getLogger(__name__)

Row = dict[str, str]
Tables = Mapping[str, Sequence[Path]]
TABLES = frozenset({".csv", ".tsv", ".txt", ".parquet"})
FETCH = "the README.md beside the study file says what to fetch"


def read_table(path: Path, columns: Collection[str]) -> list[Row]:
    """Read a CSV or TSV file with a header; lines may end as on any system.

    Args:
        path: The file. It is tab-separated if it ends in ``.tsv`` or ``.txt``.
        columns: Columns that must be there.

    Returns:
        One row per line that has as many cells as the header. The number of others is logged.

    Raises:
        NotFoundError: No such file.
        InputError: A column is missing.
    """
    if not path.is_file():
        raise NotFoundError(path, expected="table", hint=FETCH)
    separator = "\t" if path.suffix in (".tsv", ".txt") else ","
    # Read in text mode, so that the lone carriage returns of old spreadsheets end a line, too.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head, *lines = list(csv.reader(file, delimiter=separator)) or [[]]
    missing = [name for name in columns if name not in head]
    if missing:
        found = f"{path} has no column {', '.join(missing)} (found {', '.join(head[:12])})"
        raise InputError(found, hint="fetch the file again from its publisher")
    lines = [line for line in lines if line]
    rows = [dict(zip(head, line, strict=True)) for line in lines if len(line) == len(head)]
    if len(rows) < len(lines):
        logger.warning("%s: %d damaged lines are left out", path.name, len(lines) - len(rows))
    return rows


def rows_by_plate(rows: Sequence[Row], column: str, plates: Collection[str]) -> dict[str, list[Row]]:
    """Rows of each of these plates, which `column` names, in the order in which the plates come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row[column] in plates:
            found.setdefault(row[column], []).append(row)
    return found


def tables_below(source: Path) -> Tables:
    """List the tables in a folder or below it by their names: once, as there may be a million images, too.

    Raises:
        NotFoundError: No such folder.
    """
    found: dict[str, list[Path]] = {}
    for path in list_files(source, TABLES):
        found.setdefault(path.name, []).append(path)
    return found


def only_file(tables: Tables, name: str) -> Path:
    """Find the one file of a name.

    Raises:
        NotFoundError: There is none.
        InputError: There are several that differ.
    """
    found = tables.get(name, [])
    if not found:
        raise NotFoundError(name, expected="table of this name below the source", hint=FETCH)
    if len({path.read_bytes() for path in found}) > 1:
        message = f"there are several files {name} that differ: {', '.join(map(str, found[:3]))}"
        raise InputError(message, hint="keep the one that belongs to these plates")
    return found[0]
