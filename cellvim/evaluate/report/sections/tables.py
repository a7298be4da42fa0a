"""Tables of sections: columns that say how their values are to be read, and rows of plain values."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Kind = Literal[
    "text",  # any text
    "choose",  # a perturbation: a button that follows it through the page
    "choose_as",  # [text, perturbation]: a button that follows the perturbation under another name
    "choose_many",  # perturbations
    "score",
    "signed",
    "whole",
    "percent",
    "probability",
    "number",  # three digits, whatever the size
    "check",  # true or false
    "estimate",  # {value, low, high}
    "share",  # {value, low, high}, in percent
]
MOST_ROWS = 1000
"""More make a page heavy, and nobody reads them there: all are in the Parquet file beside it."""
Columns = Sequence[tuple[str, Kind]]
TEXTS = ("text", "choose", "choose_as", "choose_many")


def table(columns: Columns, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Describe a table for the template and the script.

    Args:
        columns: Heading and kind of each.
        rows: Plain values, in the order of the columns; the first ones are what a reader wants most.
    """
    described = [{"label": label, "kind": kind, "is_text": kind in TEXTS} for label, kind in columns]
    return {"columns": described, "rows": [list(row) for row in rows[:MOST_ROWS]], "row_count": len(rows)}


def without_tables(value: Any) -> Any:
    """Leave out tables, which the template lays out and no script reads."""
    if isinstance(value, Mapping):
        return {key: without_tables(each) for key, each in value.items() if not _is_table(each)}
    return [without_tables(each) for each in value] if isinstance(value, list) else value


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and {"columns", "rows", "row_count"} == set(value)
