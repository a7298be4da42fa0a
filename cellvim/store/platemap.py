"""Plate maps: what was done to each well, in the many spellings laboratories use."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from cellvim.errors import InputError, NotFoundError
from cellvim.store.naming import ROW_COUNT, parse_well, row_name, safe_name
from cellvim.store.numbers import as_amounts, as_numbers

logger = logging.getLogger(__name__)

WELL, PLATE = "Metadata_Well", "Metadata_Plate"
PERTURBATION, CONTROL_TYPE = "Metadata_Perturbation", "Metadata_ControlType"

# Names as they appear after lower-casing and dropping `Metadata_`, spaces and underscores; first hit wins.
_WELL_NAMES = ("well", "wellposition", "wellid", "wellname", "pertwell", "destinationwell")
_ROW_NAMES = ("row", "wellrow", "platerow")
_COLUMN_NAMES = ("column", "col", "wellcol", "wellcolumn", "platecolumn")
_PLATE_NAMES = ("plate", "platebarcode", "assayplatebarcode", "barcode", "plateid", "platename")
_PERTURBATION_NAMES = ("perturbation", "pert", "treatment", "broadsample", "jcp2022", "pertid")
_COMPOUND_NAMES = ("compound", "compoundname", "drug", "pertiname")
_DOSE_NAMES = ("dose", "concentration", "conc")
_UNIT_NAMES = ("doseunit", "unit", "units", "concentrationunit", "concunit")
_CONTROL_NAMES = ("controltype", "perttype", "control")
_SOLVENT_NAMES = ("solvent", "pertvehicle", "vehicle")
# Never numbers, whatever they look like: barcode 12E3 is not 12000.
_TEXT_NAMES = frozenset((*_WELL_NAMES, *_PLATE_NAMES, *_PERTURBATION_NAMES, *_COMPOUND_NAMES))
_AMOUNT_NAMES = re.compile(r"dose|conc|perliter|perml")
_CONTROLS = {
    "negcon": ("negcon", "neg", "negative", "negativecontrol", "dmso", "vehicle", "untreated", "mock"),
    "poscon": ("poscon", "pos", "positive", "positivecontrol", "posconcp", "poscondiverse", "posconorf"),
    "empty": ("empty", "blank", "nothing", "nocells"),
}
_HINT = "a plate map needs one row per well, with a column `well` (B07) and one such as `perturbation`"


def compound_columns(columns: Sequence[str]) -> list[str]:
    """Columns that name compounds whatever their dose, in the order in which they are believed."""
    return _find_all(columns, _COMPOUND_NAMES)


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


def read_platemap(path: Path) -> pl.DataFrame:
    """Read a CSV, TSV or Parquet plate map; JUMP, LINCS, pycytominer and plain columns are understood.

    Returns:
        One row per well (and plate): `Metadata_Well` as ``A01``; `Metadata_Plate` if the map has it;
        `Metadata_Perturbation` if it has one, or ``compound@dose unit`` made from compound and dose (plain
        compound in negative controls and at dose 0); `Metadata_ControlType` (negcon, poscon, empty or
        null); every column of the file as `Metadata_*`, a number only where nothing is lost by that.

    Raises:
        NotFoundError: No such file.
        InputError: No well column, a well that is none, or two rows for one well.
    """
    table = _normalise_names(_read(path))
    table = _with_wells(table, path)
    plate = _find(table, _PLATE_NAMES)
    if plate is not None:
        table = table.with_columns(pl.col(plate).cast(pl.String).alias(PLATE))
    table = _with_controls(table)
    table = _with_perturbations(table)
    _refuse_doubled_wells(table, path)
    first = [name for name in (PLATE, WELL, PERTURBATION, CONTROL_TYPE) if name in table.columns]
    same = {name.lower() for name in first}
    return table.select(*first, *(name for name in table.columns if name.lower() not in same))


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
        found = f"no well of the table is in the plate map (table: {_some(names)}; map: {_some_keys(platemap, keys)})"
        raise InputError(found, hint="check that plate and well names agree")
    if names:
        logger.warning("%d well(s) are not in the plate map: %s", len(names), _some(names))
    return table.drop(doubled).join(platemap, on=keys, how="left", maintain_order="left")


def select_plate(platemap: pl.DataFrame, plate: str) -> pl.DataFrame:
    """Keep the rows of one plate, under the name it has in cellvim; a map that names no plates fits every plate.

    Args:
        platemap: As from `read_platemap`.
        plate: Plate name, safe as a file name; the map may spell it with other characters (``Plate 1``).

    Raises:
        InputError: The map names plates, and this is not among them, or under two spellings.
    """
    if PLATE not in platemap.columns:
        return platemap
    rows = _spell_plates(platemap, [plate]).filter(pl.col(PLATE) == plate)
    if rows.is_empty():
        plates = platemap[PLATE].drop_nulls().unique().sort().to_list()
        found = f"the plate map has no plate {plate!r} (it has {_some(plates)})"
        raise InputError(found, hint="name the plate as the map does, with --plate")
    return rows


def _spell_plates(platemap: pl.DataFrame, plates: Sequence[str]) -> pl.DataFrame:
    """Call the map's plates as `plates` does, where only characters differ that no file name may hold."""
    if PLATE not in platemap.columns:
        return platemap
    spellings = platemap[PLATE].unique().drop_nulls().sort().to_list()
    wanted = {_file_name(plate): plate for plate in plates if plate not in spellings}
    strange = [name for name in spellings if name not in plates]
    names = {name: wanted[_file_name(name)] for name in strange if _file_name(name) in wanted}
    if len(set(names.values())) < len(names):
        found = (
            f"the plate map has several plates that cannot be told apart as file names: {_some(list(names))}"
        )
        raise InputError(found, hint="name the plates in letters, digits, dots and dashes")
    return platemap.with_columns(pl.col(PLATE).replace(names))


def _file_name(plate: str) -> str:
    try:
        return safe_name(plate)
    except InputError:
        return plate


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise NotFoundError(path, expected="plate map", hint="give a CSV, TSV or Parquet file")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        separator = _separator(path)
        table = pl.read_csv(
            path,
            separator=separator,
            infer_schema=False,
            null_values=["NA", "NaN", "nan", "null", ""],
        )
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError) as error:
        found = f"{path} cannot be read as a table: {str(error).splitlines()[0]}"
        raise InputError(found, hint=_HINT) from error
    return table.with_columns(_typed(table[name]) for name in table.columns)


def _separator(path: Path) -> str:
    if path.suffix in {".tsv", ".txt"} or path.name.endswith((".tsv.gz", ".txt.gz")):
        return "\t"
    if path.suffix == ".gz":
        return ","
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _typed(column: pl.Series) -> pl.Series:
    name = _plain(column.name.strip().removeprefix("Metadata_"))
    if name in _TEXT_NAMES:
        return column
    return as_amounts(column) if _AMOUNT_NAMES.search(name) else as_numbers(column)


def _normalise_names(table: pl.DataFrame) -> pl.DataFrame:
    names = {name: "Metadata_" + name.strip().removeprefix("Metadata_") for name in table.columns}
    if len(set(names.values())) < len(names):
        found = f"two columns of the plate map have the same name: {', '.join(table.columns)}"
        raise InputError(found, hint="rename one of them")
    return table.rename(names)


def _with_wells(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    well, row, column = (_find(table, names) for names in (_WELL_NAMES, _ROW_NAMES, _COLUMN_NAMES))
    if well is not None:
        spelt = [_cell(value) for value in table[well]]
    elif row is not None and column is not None:
        pairs = table.select(row, column).iter_rows()
        spelt = [_well_at(_cell(letters), _cell(number)) for letters, number in pairs]
    else:
        columns = ", ".join(name.removeprefix("Metadata_") for name in table.columns)
        found = f"{path} has no well column (columns: {columns})"
        raise InputError(found, hint=_HINT)
    names = [_parse(text, f"{path} row {number}") for number, text in enumerate(spelt, start=1)]
    kept = table.drop(well) if well is not None else table
    return kept.with_columns(pl.Series(WELL, names, dtype=pl.String))


def _cell(value: object) -> str:
    """Text of a cell, empty if it is. Other software stores whole numbers with gaps as ``7.0``."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def _well_at(row: str, column: str) -> str:
    """Spell a well by its letter, where the map counts rows; what is no row is left for `_parse` to refuse."""
    is_counted = row.isdecimal() and 1 <= int(row) <= ROW_COUNT
    return f"{row_name(int(row)) if is_counted else row}{column}"


def _parse(text: str, place: str) -> str:
    try:
        return parse_well(text)
    except InputError as error:
        found = f"{place}: {error.found if text else 'the well is empty'}"
        raise InputError(found, hint=error.hint) from error


def _with_controls(table: pl.DataFrame) -> pl.DataFrame:
    known = {spelling: control for control, spellings in _CONTROLS.items() for spelling in spellings}
    given = [
        pl.Series([known.get(_plain(str(value))) for value in table[name]], dtype=pl.String)
        for name in _find_all(table.columns, _CONTROL_NAMES)
    ]
    solvent, perturbation = _find(table, _SOLVENT_NAMES), _find(table, _PERTURBATION_NAMES)
    if perturbation is not None:
        untreated = "empty" if solvent is None else "negcon"
        given.append(
            table.select(pl.when(pl.col(perturbation).is_null()).then(pl.lit(untreated))).to_series()
        )
    if not given:
        return table
    return table.with_columns(pl.coalesce(given).alias(CONTROL_TYPE))


def _with_perturbations(table: pl.DataFrame) -> pl.DataFrame:
    perturbation, compound = _find(table, _PERTURBATION_NAMES), _find(table, _COMPOUND_NAMES)
    if perturbation is not None:
        solvent = _find(table, _SOLVENT_NAMES)
        untreated = pl.lit(None) if solvent is None else pl.col(solvent)
        return table.with_columns(
            pl.coalesce(pl.col(perturbation), untreated).cast(pl.String).alias(PERTURBATION)
        )
    if compound is None:
        return table
    dose, unit = _find(table, _DOSE_NAMES), _find(table, _UNIT_NAMES)
    if dose is None:
        return table.with_columns(pl.col(compound).cast(pl.String).alias(PERTURBATION))
    controls = table[CONTROL_TYPE] if CONTROL_TYPE in table.columns else [None] * table.height
    units = table[unit] if unit is not None else [None] * table.height
    names = [_with_dose(*row) for row in zip(table[compound], table[dose], units, controls, strict=True)]
    return table.with_columns(pl.Series(PERTURBATION, names, dtype=pl.String))


def _with_dose(compound: object, dose: object, unit: object, control: object) -> str | None:
    if compound is None:
        return None
    if control == "negcon" or dose in (None, 0):
        return str(compound)
    amount = f"{dose:g}" if isinstance(dose, int | float) else str(dose)
    return f"{compound}@{amount}" + (f" {unit}" if unit is not None else "")


def _refuse_doubled_wells(table: pl.DataFrame, path: Path) -> None:
    keys = [name for name in (PLATE, WELL) if name in table.columns]
    doubled = table.group_by(keys, maintain_order=True).len().filter(pl.col("len") > 1)
    if doubled.height:
        wells = ["/".join(map(str, row[:-1])) for row in doubled.iter_rows()]
        found = f"{path} has several rows for {_some(wells)}"
        raise InputError(found, hint="keep one row per well, and name the plate if there are several")


def _find(table: pl.DataFrame, names: Sequence[str]) -> str | None:
    return next(iter(_find_all(table.columns, names)), None)


def _find_all(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    present = {_plain(column.removeprefix("Metadata_")): column for column in columns}
    return [present[name] for name in names if name in present]


def _plain(text: str) -> str:
    return text.lower().replace("_", "").replace(" ", "").replace("-", "")


def _some(names: Sequence[str], shown: int = 6) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def _some_keys(platemap: pl.DataFrame, keys: Sequence[str]) -> str:
    return _some(["/".join(map(str, row)) for row in platemap.select(keys).head(7).iter_rows()])
