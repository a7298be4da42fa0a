"""What the plate maps say about wells."""

from collections.abc import Sequence

import polars as pl

from cellvim.errors import InputError
from cellvim.store import PlateReader, compound_columns, name_compounds

PREFIX = "Metadata_"
WELL, PERTURBATION, CONTROL_TYPE = "Metadata_Well", "Metadata_Perturbation", "Metadata_ControlType"


def find_column(plates: Sequence[PlateReader], name: str) -> str | None:
    """Full name of a column that a plate map has; None if none has it.

    Args:
        plates: Plates of the run.
        name: With or without its prefix, in any case.
    """
    columns = {column.casefold(): column for column in _columns(plates)}
    wanted = (name, f"{PREFIX}{name}")
    return next((columns[spelt.casefold()] for spelt in wanted if spelt.casefold() in columns), None)


def require_column(plates: Sequence[PlateReader], name: str, *, asked_by: str) -> str:
    """Full name of a column that a plate map has.

    Args:
        plates: Plates of the run.
        name: With or without its prefix, in any case.
        asked_by: Setting that names it, for the message.

    Raises:
        InputError: No plate has a plate map, or none of them has the column.
    """
    column = find_column(plates, name)
    if column is not None:
        return column
    if all(plate.platemap is None for plate in plates):
        found = f"{asked_by} needs labels, but none of the plates has a plate map"
        raise InputError(found, hint="ingest them again with --platemap FILE")
    found = f"{asked_by} is {name}, but the plate maps have no such column"
    raise InputError(found, hint=f"they have {', '.join(_columns(plates))}")


def values_by_well(plate: PlateReader, column: str) -> dict[str, str]:
    """Value of a column for each well that has one, as text."""
    platemap = plate.platemap
    if platemap is None or column not in platemap.columns:
        return {}
    rows = platemap.select(WELL, pl.col(column).cast(pl.String)).drop_nulls()
    return {well: value for well, value in rows.iter_rows() if value.strip()}


def compounds_by_well(plates: Sequence[PlateReader]) -> tuple[str, dict[tuple[PlateReader, str], str]]:
    """What each well of each plate was given, whatever the dose, and the first column that says so."""
    parts, named = [], []
    for number, plate in enumerate(plates):
        if plate.platemap is not None:
            compounds = compound_columns(plate.platemap.columns)
            given = [name for name in (PERTURBATION, *compounds) if name in plate.platemap.columns]
            texts = pl.col(given).cast(pl.String)
            parts.append(plate.platemap.select(pl.lit(number).alias("plate"), WELL, texts))
            named += compounds
    if not parts:
        return PERTURBATION, {}
    wells = pl.concat(parts, how="diagonal")
    rows = zip(wells["plate"], wells[WELL], name_compounds(wells), strict=True)
    names = {(plates[number], well): name for number, well, name in rows if name is not None}
    return named[0] if named else PERTURBATION, names


def _columns(plates: Sequence[PlateReader]) -> tuple[str, ...]:
    maps = [plate.platemap for plate in plates if plate.platemap is not None]
    return tuple(dict.fromkeys(column for platemap in maps for column in platemap.columns))
