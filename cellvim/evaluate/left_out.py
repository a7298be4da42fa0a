"""Plates that belong to a study and are not in its tables: a report that kept silent about them would be half a truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from cellvim.errors import InputError

COLUMNS = ("plate", "step", "error")
_SHOWN = 10


def read_left_out(path: Path | None) -> list[dict[str, str]]:
    """Read a CSV with the columns plate, step and error; empty if there is none.

    Raises:
        InputError: It is no such table.
    """
    if path is None:
        return []
    try:
        table = pl.read_csv(path, infer_schema=False).select(COLUMNS).fill_null("")
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        found = f"{path} is not a CSV with the columns {', '.join(COLUMNS)}: {(str(error).splitlines() or ['?'])[0]}"
        raise InputError(found, hint="`cellvim study run` writes one for --left-out") from error
    return table.sort(COLUMNS).to_dicts()


def left_out_warning(left_out: Sequence[Mapping[str, str]]) -> list[str]:
    """One sentence for the page; none where no plate is missing."""
    if not left_out:
        return []
    named = [f"{entry['plate']} ({entry['step']}: {entry['error']})" for entry in left_out[:_SHOWN]]
    more = f", and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    plates = (
        "plate of this study failed and is" if len(left_out) == 1 else "plates of this study failed and are"
    )
    return [f"{len(left_out)} {plates} not in these numbers: {'; '.join(named)}{more}."]
