"""Pictures of wells, which `cellvim embed` writes beside its table."""

from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from cellvim.profiles import thumbnails_path
from cellvim.profiles.schema import PLATE, WELL

COLUMNS = [PLATE, WELL, "png"]


def read_thumbnails(table: Path, wells: pl.DataFrame) -> pl.DataFrame | None:
    """Pictures of some wells: `Metadata_Plate`, `Metadata_Well`, `png`; None where the table has none.

    Args:
        table: Profile table that the pictures lie beside.
        wells: `Metadata_Plate`, `Metadata_Well` of those to read.

    Raises:
        InputError: The file cannot be read, or lacks a column.
    """
    path = thumbnails_path(table)
    if not path.is_file():
        return None
    try:
        found = pl.read_parquet(path, columns=COLUMNS).cast(
            {PLATE: pl.String, WELL: pl.String, "png": pl.Binary}
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{path} cannot be read as pictures of wells: {reason}"
        raise InputError(message, hint="write it again with `cellvim embed`, or move it away") from error
    return found.join(wells, on=[PLATE, WELL], how="semi").sort(PLATE, WELL)
