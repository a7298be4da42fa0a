"""Where each well lies on its plate, and how large that plate is."""

import polars as pl

from cellvim.errors import InputError
from cellvim.store import parse_well, well_position

PLATE_FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates sold: 6, 12, 24, 48, 96, 384 and 1536 wells."""


def place_of(well: str | None) -> tuple[int, int] | None:
    """Row and column of a well, from 1; None if the name is not like ``B03``."""
    try:
        return well_position(parse_well(well or ""))
    except InputError:
        return None


def plate_shape(wells: pl.Series) -> tuple[int, int] | None:
    """Rows and columns of the smallest plate sold that holds all the wells; None if no well has a place."""
    places = [place for well in wells.cast(pl.String) if (place := place_of(well))]
    if not places:
        return None
    rows, columns = (max(axis) for axis in zip(*places, strict=True))
    fitting = [shape for shape in PLATE_FORMATS if shape[0] >= rows and shape[1] >= columns]
    return fitting[0] if fitting else (rows, columns)
