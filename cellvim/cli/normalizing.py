"""From tables of any level to normalised wells: normalize."""

from pathlib import Path
from typing import Annotated

import typer

from cellvim.atomic import require_writable
from cellvim.cli.app import app
from cellvim.cli.flags import Json, Overwrite, PlateMap, given
from cellvim.config import Average, Normalization, NormalizeSettings
from cellvim.terminal import show


@app.command()
def normalize(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE", help="Profile tables or folders of them, made alike; they become one."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Parquet table to write.")],
    method: Annotated[
        Normalization | None,
        typer.Option("--normalize", help="Fitted on negative controls only.  [default: sphere]"),
    ] = None,
    average: Annotated[Average, typer.Option(help="From fields, crops or cells to wells.")] = "mean",
    consensus: Annotated[
        bool, typer.Option("--consensus", help="One row per perturbation instead of per well.")
    ] = False,
    platemap: PlateMap = None,
    perturbation: Annotated[
        str | None, typer.Option(help="Column that says what was done to a well.")
    ] = None,
    control: Annotated[str | None, typer.Option(help="Negative controls, as COLUMN=VALUE.")] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Column of batches, for tvn; found by its usual names, else the plate."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FIT", help="Keep what was fitted, for plates to come.")
    ] = None,
    fitted: Annotated[
        Path | None, typer.Option(metavar="FIT", help="Put the wells through what an earlier run kept.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write normalised wells, for use elsewhere; evaluate takes tables as embed wrote them.

    **Examples**

    `cellvim normalize embeddings.parquet --out profiles.parquet`

    `cellvim normalize tables/ --out profiles.parquet --normalize tvn --save screen.fit`

    `cellvim normalize new_plate.parquet --out new_profiles.parquet --fitted screen.fit`

    `cellvim normalize cells.csv.gz --out moa.parquet --control Metadata_broad_sample=DMSO --average median --consensus`
    """
    if overwrite or not out.exists():
        # Before tables are read, which takes its time. What is finished may lie in an archive.
        require_writable(out)
    from cellvim.evaluate.normalizing import normalize_tables

    content = given(
        tables=tables, out=out, normalize=method, average=average, is_consensus=consensus, platemap=platemap,
        perturbation=perturbation, control=control, batch=batch, save=save, fitted=fitted, overwrite=overwrite,
    )  # fmt: skip
    show(normalize_tables(NormalizeSettings.checked(content)), as_json=as_json)
