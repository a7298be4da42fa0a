"""Plate maps: what was done to each well, in the many spellings laboratories use."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from cellvim.store.barcodes import Assignment, assignments, file_name, find_map, no_such_plate, same_plate
from cellvim.store.platemap_columns import (
    CONTROL_TYPE,
    PERTURBATION,
    PLATE,
    WELL,
    with_controls,
    with_perturbations,
    with_units,
    with_wells,
)
from cellvim.store.platemap_table import COMPOUND_NAMES, HINT, PLATE_NAMES, find, find_all, read_table, some

logger = logging.getLogger(__name__)

__all__ = [
    "CONTROL_TYPE",
    "PERTURBATION",
    "PLATE",
    "WELL",
    "compound_columns",
    "join_platemap",
    "name_compounds",
    "platemap_files",
    "read_platemap",
    "select_plate",
]


def compound_columns(columns: Sequence[str]) -> list[str]:
    """Columns that name compounds whatever their dose, in the order in which they are believed."""
    return find_all(columns, COMPOUND_NAMES)


def name_compounds(wells: pl.DataFrame) -> pl.Series:
    """Say what each well was given, whatever the dose: what must be held out together.

    Plates name compounds in columns of their own, or not at all. A well without a compound takes the one that its
    perturbation has elsewhere in the table, else the perturbation itself.

    Args:
        wells: A row per well, of all plates together; any of the compound columns, and `Metadata_Perturbation`.

    Returns:
        A name per row; null where there is neither.
    """

    def names(column: str) -> pl.Expr:
        return pl.col(column).cast(pl.String).str.strip_chars().replace("", None)

    nothing = pl.lit(None, dtype=pl.String)
    given = wells.select(
        pl.coalesce(*map(names, compound_columns(wells.columns)), nothing).alias("compound"),
        (names(PERTURBATION) if PERTURBATION in wells.columns else nothing).alias("perturbation"),
    )
    elsewhere = given.drop_nulls().group_by("perturbation").agg(pl.col("compound").min().alias("elsewhere"))
    found = given.join(elsewhere, on="perturbation", how="left", maintain_order="left")
    return found.select(pl.coalesce("compound", "elsewhere", "perturbation")).to_series()


def read_platemap(path: Path, plates: Collection[str] | None = None) -> pl.DataFrame:
    """Read a CSV, TSV or Parquet plate map; JUMP, LINCS, pycytominer and plain columns are understood.

    A list of barcodes (``Assay_Plate_Barcode, Plate_Map_Name``) is followed to the plate maps it names, which lie
    beside it or in a folder `platemap`; each plate then gets the rows of its map.

    Args:
        path: The plate map, or the list of barcodes.
        plates: Of a list of barcodes, only these plates' maps are read; all of them if None.

    Returns:
        One row per well (and plate): `Metadata_Well` as ``A01``; `Metadata_Plate` if the map has it;
        `Metadata_Perturbation` if it has one, or ``compound@dose unit`` made from compound and dose (plain
        compound in negative controls and at dose 0); `Metadata_ControlType` (negcon, poscon, empty or
        null); every column of the file as `Metadata_*`, a number only where nothing is lost by that; `Metadata_Dose`
        and `Metadata_DoseUnit` also of a column that names both, ``Concentration (uM)``.

    Raises:
        NotFoundError: No such file, or none that the list names.
        InputError: No well column, a well that is none, two rows for one well, or a list with none of `plates`.
    """
    table = read_table(path)
    try:
        assigned = assignments(table, path)
        return _one_map(table, path) if assigned is None else _assigned_maps(assigned, path, plates)
    except pl.exceptions.PolarsError as error:
        found = f"{path} cannot be read as a plate map: {(str(error).splitlines() or ['no reason given'])[0]}"
        raise InputError(found, hint=HINT) from error


def join_platemap(table: pl.DataFrame, platemap: pl.DataFrame) -> pl.DataFrame:
    """Add what the plate map says to every row of a table, by well, and by plate if both name plates.

    A plate that the map calls ``Plate 1`` and the table ``Plate_1``, as ingest must, is one plate. Columns that both have are taken from the plate map. Wells without an entry get nulls and are logged.

    Raises:
        InputError: No row of the table finds an entry, or two entries would fit one well.
    """
    if PLATE in table.columns:
        platemap = _spell_plates(platemap, table[PLATE].cast(pl.String).unique().drop_nulls().to_list())
    keys = [name for name in (PLATE, WELL) if name in table.columns and name in platemap.columns]
    doubled = [name for name in platemap.columns if name in table.columns and name not in keys]
    unmatched = table.join(platemap, on=keys, how="anti").select(keys).unique().sort(keys)
    names = ["/".join(row) for row in unmatched.iter_rows()]
    if unmatched.height == table.select(keys).unique().height:
        found = f"no well of the table is in the plate map (table: {some(names)}; map: {_some_keys(platemap, keys)})"
        raise InputError(found, hint="check that plate and well names agree")
    if names:
        logger.warning("%d well(s) are not in the plate map: %s", len(names), some(names))
    return table.drop(doubled).join(platemap, on=keys, how="left", maintain_order="left")


def select_plate(platemap: pl.DataFrame, plate: str, barcode: str | None = None) -> pl.DataFrame:
    """Keep the rows of one plate, under the name it has in cellvim; a map that names no plates fits every plate.

    Args:
        platemap: As from `read_platemap`.
        plate: Plate name, safe as a file name; the map may spell it with other characters (``Plate 1``).
        barcode: Another name that the map may have for the plate; looked for if it has not `plate`.

    Raises:
        InputError: The map names plates, and this is not among them, or under two spellings.
    """
    if PLATE not in platemap.columns:
        return platemap
    for name in (plate, barcode):
        if name is not None:
            rows = _spell_plates(platemap, [name]).filter(pl.col(PLATE) == name)
            if not rows.is_empty():
                return rows.with_columns(pl.lit(plate).alias(PLATE))
    raise no_such_plate(barcode or plate, platemap[PLATE].drop_nulls().unique().sort().to_list())


def platemap_files(path: Path, plates: Collection[str] | None = None) -> list[Path]:
    """List the files that `read_platemap` reads for the same plates.

    Raises:
        NotFoundError: No such file, or none that the list names.
        InputError: See `read_platemap`.
    """
    assigned = assignments(read_table(path), path) or []
    return [path, *dict.fromkeys(find_map(each, path) for each in _wanted(assigned, plates))]


def _one_map(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    table = with_wells(table, path)
    plate = find(table, PLATE_NAMES)
    if plate is not None:
        table = table.with_columns(pl.col(plate).cast(pl.String).alias(PLATE))
    table = with_perturbations(with_controls(with_units(table)))
    _refuse_doubled_wells(table, path)
    first = [name for name in (PLATE, WELL, PERTURBATION, CONTROL_TYPE) if name in table.columns]
    same = {name.lower() for name in first}
    return table.select(*first, *(name for name in table.columns if name.lower() not in same))


def _assigned_maps(
    assigned: Sequence[Assignment], path: Path, plates: Collection[str] | None
) -> pl.DataFrame:
    wanted = _wanted(assigned, plates)
    if not wanted:
        raise no_such_plate(next(iter(plates or []), ""), [each.barcode for each in assigned])
    maps: dict[str, tuple[pl.DataFrame, Path]] = {}
    for each in wanted:
        if each.map_name not in maps:
            place = find_map(each, path)
            maps[each.map_name] = _one_map(read_table(place), place), place
    parts = [_map_of(each, *maps[each.map_name]) for each in wanted]
    return pl.concat(parts, how="diagonal_relaxed")


def _wanted(assigned: Sequence[Assignment], plates: Collection[str] | None) -> list[Assignment]:
    return [
        each
        for each in assigned
        if plates is None or any(same_plate(each.barcode, plate) for plate in plates)
    ]


def _map_of(each: Assignment, rows: pl.DataFrame, place: Path) -> pl.DataFrame:
    """Rows of one plate. A map that names plates, and this one among them, means its rows alone."""
    if PLATE in rows.columns:
        own = [name for name in rows[PLATE].drop_nulls().unique() if same_plate(name, each.barcode)]
        rows = rows.filter(pl.col(PLATE).is_in(own)) if own else rows
    rows = rows.with_columns(pl.lit(each.barcode).alias(PLATE))
    _refuse_doubled_wells(rows, place)
    present = {name.lower() for name in rows.columns}
    facts = [name for name in each.facts.columns if name.lower() not in present]
    rows = rows.with_columns(pl.lit(each.facts[name].item()).alias(name) for name in facts)
    return rows.select(PLATE, pl.exclude(PLATE))


def _spell_plates(platemap: pl.DataFrame, plates: Sequence[str]) -> pl.DataFrame:
    """Call the map's plates as `plates` does, where only characters differ that no file name may hold."""
    if PLATE not in platemap.columns:
        return platemap
    spellings = platemap[PLATE].unique().drop_nulls().sort().to_list()
    wanted = {file_name(plate): plate for plate in plates if plate not in spellings}
    strange = [name for name in spellings if name not in plates]
    names = {name: wanted[file_name(name)] for name in strange if file_name(name) in wanted}
    if len(set(names.values())) < len(names):
        found = (
            f"the plate map has several plates that cannot be told apart as file names: {some(list(names))}"
        )
        raise InputError(found, hint="name the plates in letters, digits, dots and dashes")
    return platemap.with_columns(pl.col(PLATE).replace(names))


def _refuse_doubled_wells(table: pl.DataFrame, path: Path) -> None:
    keys = [name for name in (PLATE, WELL) if name in table.columns]
    doubled = table.group_by(keys, maintain_order=True).len().filter(pl.col("len") > 1)
    if doubled.height:
        wells = ["/".join(map(str, row[:-1])) for row in doubled.iter_rows()]
        found = f"{path} has several rows for {some(wells)}"
        raise InputError(found, hint="keep one row per well, and name the plate if there are several")


def _some_keys(platemap: pl.DataFrame, keys: Sequence[str]) -> str:
    return some(["/".join(map(str, row)) for row in platemap.select(keys).head(7).iter_rows()])
