"""Flags that several commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def without_companions(plates: list[str] | None) -> list[str] | None:
    """Leave out the folders that ingest puts beside its plates: a shell finds both by ``plates/*``."""
    kept = [plate for plate in plates or [] if not plate.rstrip("/").endswith(".cellvim")]
    return kept or plates


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Plates = Annotated[
    list[str],
    typer.Argument(
        metavar="PLATE",
        help="OME-Zarr plates, or folders of plates; paths or URLs (s3://, gs://).",
        callback=without_companions,
    ),
]
OptionalPlates = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PLATE",
        help="OME-Zarr plates, or folders of plates; or `plates:` in --config.",
        callback=without_companions,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what other inputs or settings made.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to compute.  [default: auto]")
]
PlateMap = Annotated[
    Path | None,
    typer.Option(
        help="CSV, TSV or Parquet that says what is in each well (JUMP, pycytominer or plain), or which plate map "
        "belongs to each barcode."
    ),
]


def given(**flags: Any) -> dict[str, Any]:
    """Keep what the user said; the rest is for the settings to fill."""
    return {key: value for key, value in flags.items() if value is not None}


def split_names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()
