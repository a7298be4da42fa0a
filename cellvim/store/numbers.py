"""Columns of text that are numbers; a name that looks like one stays the text it is."""

import math
from collections.abc import Callable

import polars as pl

# Ways to write a number; a column counts as numbers if all of it is written in one of them.
_WAYS: tuple[Callable[[float], str], ...] = (repr, "{:.15g}".format)


def as_amounts(column: pl.Series) -> pl.Series:
    """Make numbers of doses and the like, however they are written (``0.50``, ``1E-6``), if all are numbers."""
    text = column.drop_nulls()
    for dtype in (pl.Int64, pl.Float64):
        numbers = text.cast(dtype, strict=False)
        if len(text) and not numbers.null_count() and numbers.is_finite().all():
            return column.cast(dtype)
    return column


def as_numbers(column: pl.Series) -> pl.Series:
    """Make numbers of a column if the same text comes out when they are written again.

    Barcodes such as ``007``, ``12E3`` and ``12345678901234567890`` therefore stay what they are.
    """
    texts = column.drop_nulls().to_list()
    if texts and all(_is_whole(text) for text in texts):
        return column.cast(pl.Int64)
    if texts and any(all(_is_written(text, way) for text in texts) for way in _WAYS):
        return column.cast(pl.Float64)
    return column


def _is_whole(text: str) -> bool:
    try:
        return str(int(text)) == text and abs(int(text)) < 1 << 63
    except ValueError:
        return False


def _is_written(text: str, way: Callable[[float], str]) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) and way(number) == text
