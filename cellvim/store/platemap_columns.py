"""What a plate map's columns mean: wells, controls and perturbations, in the many spellings laboratories use."""

import re
from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from cellvim.store.naming import ROW_COUNT, parse_well, row_name
from cellvim.store.platemap_table import (
    COLUMN_NAMES,
    COMPOUND_NAMES,
    HINT,
    PERTURBATION_NAMES,
    ROW_NAMES,
    WELL_NAMES,
    cell,
    find,
    find_all,
    plain,
)

WELL, PLATE = "Metadata_Well", "Metadata_Plate"
PERTURBATION, CONTROL_TYPE = "Metadata_Perturbation", "Metadata_ControlType"
_DOSE = "Metadata_Dose"

_DOSE_NAMES = ("dose", "concentration", "conc")
# What spreadsheets call a dose together with its unit: ``Concentration (µM)``, ``Dose [mg/ml]``, ``dose_uM``.
_DOSE_WITH_UNIT = re.compile(
    r"(?:Metadata_)?(?i:dose|concentration|conc\.?)[\s_]*(?:[(\[]\s*([^()\[\]]+?)\s*[)\]]|([pnum\u00b5\u03bc]?M))"
)
_UNIT_NAMES = ("doseunit", "unit", "units", "concentrationunit", "concunit")
_CONTROL_NAMES = ("controltype", "perttype", "control")
_SOLVENT_NAMES = ("solvent", "pertvehicle", "vehicle")
_CONTROLS = {
    "negcon": ("negcon", "neg", "negative", "negativecontrol", "dmso", "vehicle", "untreated", "mock"),
    "poscon": ("poscon", "pos", "positive", "positivecontrol", "posconcp", "poscondiverse", "posconorf"),
    "empty": ("empty", "blank", "nothing", "nocells"),
}


def with_wells(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    well, row, column = (find(table, names) for names in (WELL_NAMES, ROW_NAMES, COLUMN_NAMES))
    if well is not None:
        spelt = [cell(value) for value in table[well]]
    elif row is not None and column is not None:
        pairs = table.select(row, column).iter_rows()
        spelt = [_well_at(cell(letters), cell(number)) for letters, number in pairs]
    else:
        columns = ", ".join(name.removeprefix("Metadata_") for name in table.columns)
        found = f"{path} has no well column (columns: {columns})"
        raise InputError(found, hint=HINT)
    names = [_parse(text, f"{path} row {number}") for number, text in enumerate(spelt, start=1)]
    kept = table.drop(well) if well is not None else table
    return kept.with_columns(pl.Series(WELL, names, dtype=pl.String))


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


def with_units(table: pl.DataFrame) -> pl.DataFrame:
    """Add `Metadata_Dose` and `Metadata_DoseUnit` where one column says both, such as ``Concentration (µM)``.

    A table that has a column of doses already, or several such columns, stays as it is.
    """
    named = {name: match for name in table.columns if (match := _DOSE_WITH_UNIT.fullmatch(name.strip()))}
    if find(table, _DOSE_NAMES) is not None or len(named) != 1:
        return table
    ((name, match),) = named.items()
    table = table.with_columns(pl.col(name).alias(_DOSE))
    if find(table, _UNIT_NAMES) is not None:
        return table
    unit = pl.when(pl.col(_DOSE).is_not_null()).then(pl.lit(match[1] or match[2]))
    return table.with_columns(unit.alias(f"{_DOSE}Unit"))


def with_controls(table: pl.DataFrame) -> pl.DataFrame:
    known = {spelling: control for control, spellings in _CONTROLS.items() for spelling in spellings}
    given = [
        pl.Series([known.get(plain(str(value))) for value in table[name]], dtype=pl.String)
        for name in find_all(table.columns, _CONTROL_NAMES)
    ]
    solvent, perturbation = find(table, _SOLVENT_NAMES), find(table, PERTURBATION_NAMES)
    if perturbation is not None:
        untreated = "empty" if solvent is None else "negcon"
        given.append(
            table.select(pl.when(pl.col(perturbation).is_null()).then(pl.lit(untreated))).to_series()
        )
    if not given:
        return table
    return table.with_columns(pl.coalesce(given).alias(CONTROL_TYPE))


def with_perturbations(table: pl.DataFrame) -> pl.DataFrame:
    perturbation, compound = find(table, PERTURBATION_NAMES), find(table, COMPOUND_NAMES)
    if perturbation is not None:
        solvent = find(table, _SOLVENT_NAMES)
        untreated = pl.lit(None) if solvent is None else pl.col(solvent)
        return table.with_columns(
            pl.coalesce(pl.col(perturbation), untreated).cast(pl.String).alias(PERTURBATION)
        )
    if compound is None:
        return table
    dose, unit = find(table, _DOSE_NAMES), find(table, _UNIT_NAMES)
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
