"""Lists of barcodes: which plate map each plate of a screen was made from."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from cellvim.errors import InputError, NotFoundError
from cellvim.store.naming import safe_name
from cellvim.store.platemap_table import (
    COLUMN_NAMES,
    MAP_NAMES,
    PLATE_NAMES,
    ROW_NAMES,
    WELL_NAMES,
    cell,
    find,
    read_table,
    some,
)

_SUFFIXES = (".txt", ".tsv", ".csv", ".parquet", ".txt.gz", ".tsv.gz", ".csv.gz")
_FOLDERS = (".", "platemap", "platemaps", "../platemap", "../platemaps")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Assignment:
    """One plate of a list.

    Attributes:
        barcode: As the list spells it.
        map_name: Name of its plate map, without folder.
        facts: What else the list says about the plate, one row.
    """

    barcode: str
    map_name: str
    facts: pl.DataFrame


def is_barcode_list(path: Path) -> bool:
    """Whether a file says which plate map belongs to which plate, rather than what is in the wells.

    Raises:
        NotFoundError: No such file.
        InputError: Not a table.
    """
    return _columns(read_table(path)) is not None


def assignments(table: pl.DataFrame, path: Path) -> list[Assignment] | None:
    """Read the rows of a list of barcodes; None if the table is a plate map itself.

    Raises:
        InputError: A barcode without a map or with two, or a name that is no file's.
    """
    columns = _columns(table)
    if columns is None:
        return None
    found: dict[str, Assignment] = {}
    barcode_column, map_column = columns
    facts = table.drop(barcode_column)
    for number, (barcode, name) in enumerate(zip(table[barcode_column], table[map_column], strict=True)):
        assignment = Assignment(cell(barcode), cell(name), facts[number])
        _check(assignment, f"{path} row {number + 1}")
        other = found.setdefault(assignment.barcode, assignment)
        if other.map_name != assignment.map_name:
            message = (
                f"{path} gives plate {other.barcode} two plate maps: {other.map_name}, {assignment.map_name}"
            )
            raise InputError(message, hint="keep one row per barcode")
    return list(found.values())


def find_map(assignment: Assignment, path: Path) -> Path:
    """Find a plate map beside the list of barcodes, or in a folder `platemap` there or one level up.

    Raises:
        NotFoundError: It is nowhere.
        InputError: There are several.
    """
    names = [assignment.map_name + suffix for suffix in ("", *_SUFFIXES)]
    here = path.resolve().parent
    for folder in _FOLDERS:
        places = [here / folder / name for name in names]
        found = [place for place in places if place.is_file() and place.name.lower().endswith(_SUFFIXES)]
        if len(found) > 1:
            message = (
                f"plate map {assignment.map_name} is there twice: {some([str(place) for place in found])}"
            )
            raise InputError(message, hint="keep one of them")
        if found:
            return found[0].resolve()
    raise NotFoundError(
        here / names[1],
        expected=f"plate map of plate {assignment.barcode}",
        hint=f"put {assignment.map_name}.csv (or .txt, .tsv, .parquet) beside {path.name}, or in a folder `platemap`",
    )


def same_plate(spelling: str, plate: str) -> bool:
    """Whether two names differ at most in what no file name may hold, as ``Plate 1`` and ``Plate_1``."""
    return spelling == plate or file_name(spelling) == file_name(plate)


def file_name(plate: str) -> str:
    """Spell a plate as ingest must; a name that cannot be a file's stays as it is."""
    try:
        return safe_name(plate)
    except InputError:
        return plate


def no_such_plate(plate: str, plates: Sequence[str]) -> InputError:
    """Say that a plate is not in a map, and which ones are, the most alike first if there are many."""
    if len(plates) > 6:
        alike = get_close_matches(plate, plates, n=3, cutoff=0.0)
        has = f"it has {len(plates)}, most alike {', '.join(alike)}"
    else:
        has = f"it has {', '.join(plates) or 'none'}"
    found = f"the plate map has no plate {plate!r} ({has})"
    name = f" {shlex.quote(plates[0])}" if len(plates) == 1 else ""
    return InputError(found, hint=f"name the plate as the map does, with --plate{name}")


def _columns(table: pl.DataFrame) -> tuple[str, str] | None:
    has_wells = find(table, WELL_NAMES) or (find(table, ROW_NAMES) and find(table, COLUMN_NAMES))
    barcode, name = find(table, PLATE_NAMES), find(table, MAP_NAMES)
    return None if has_wells or barcode is None or name is None else (barcode, name)


def _check(assignment: Assignment, place: str) -> None:
    if not assignment.barcode or not assignment.map_name:
        found = f"{place}: the {'plate map' if assignment.barcode else 'barcode'} is empty"
        raise InputError(found, hint="keep one row per barcode, each with the name of its plate map")
    name = assignment.map_name
    if any(letter in name for letter in "/\\\0:") or name.startswith(".") or len(name) > _LONGEST_NAME:
        found = f"{place}: {name[:80]!r} is no name of a plate map"
        raise InputError(found, hint="give the name of the file, without folder")
