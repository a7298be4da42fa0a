"""Where each well lies on its plate, and how large that plate is."""

import re

import polars as pl

PLATE_FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates sold: 6, 12, 24, 48, 96, 384 and 1536 wells."""

_WELL = re.compile(r"([A-Z]|A[A-F])0*([1-9]\d?)")


def well_position(well: str) -> tuple[int, int] | None:
    """Row and column of a well, from 0; None if the name is not like ``B03``.

    >>> well_position("B03"), well_position("AA12"), well_position("nowhere")
    ((1, 2), (26, 11), None)
    """
    match = _WELL.fullmatch(well)
    if match is None:
        return None
    letters, number = match.groups()
    row = ord(letters[-1]) - ord("A") + 26 * (len(letters) - 1)
    return row, int(number) - 1


def row_name(row: int) -> str:
    """Letter of a plate's row.

    >>> row_name(0), row_name(26)
    ('A', 'AA')
    """
    return chr(ord("A") + row) if row < 26 else f"A{chr(ord('A') + row - 26)}"


def plate_shape(wells: pl.Series) -> tuple[int, int] | None:
    """Rows and columns of the smallest plate sold that holds all the wells; None if no well has a place."""
    positions = [position for well in wells.cast(pl.String) if (position := well_position(well or ""))]
    if not positions:
        return None
    rows, columns = (1 + max(axis) for axis in zip(*positions, strict=True))
    fitting = [shape for shape in PLATE_FORMATS if shape[0] >= rows and shape[1] >= columns]
    return fitting[0] if fitting else (rows, columns)
