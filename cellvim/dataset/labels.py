"""What the plate maps say about wells."""

from collections.abc import Sequence

import polars as pl

from cellvim.errors import InputError
from cellvim.store import PlateReader, find_compound_column

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


def find_compound(plates: Sequence[PlateReader]) -> str | None:
    """Column that names compounds whatever their dose; None if no plate map has one."""
    return find_compound_column(_columns(plates))


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


def _columns(plates: Sequence[PlateReader]) -> tuple[str, ...]:
    maps = [plate.platemap for plate in plates if plate.platemap is not None]
    return tuple(dict.fromkeys(column for platemap in maps for column in platemap.columns))
