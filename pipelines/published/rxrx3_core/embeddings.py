"""RxRx3-core's published embeddings as a profile table that `cellvim evaluate` takes."""

import logging
from collections.abc import Collection
from pathlib import Path

import polars as pl

from cellvim.atomic import write_parquet
from cellvim.errors import InputError
from pipelines.published.rxrx3_core.wells import read_wells
from pipelines.published.tables import only_file, tables_below

logger = logging.getLogger(__name__)

FEATURE = "feature_"


def write_profiles(source: Path, embeddings: Path, out: Path, experiments: Collection[str] = ()) -> Path:
    """Write OUT/profiles.parquet: a row per well, what was done to it, and its embedding.

    Args:
        source: Folder with metadata_rxrx3_core.csv.
        embeddings: A table with a column `well_id` and one per feature; found below `source` by its name, too. Rows
            of one well are averaged, as the publishers do.
        out: Folder that receives profiles.parquet.
        experiments: Names such as ``gene-001``; all if none.

    Returns:
        Path of the table.

    Raises:
        NotFoundError: A table is not there.
        InputError: The embeddings have no `well_id`, no features, or none of these wells.
    """
    tables = tables_below(source)
    path = embeddings if embeddings.is_file() else only_file(tables, embeddings.name)
    table = pl.scan_parquet(path)
    names = table.collect_schema().names()
    features = [name for name in names if name.startswith(FEATURE)]
    if "well_id" not in names or not features:
        found = f"{path} has no column well_id, or none called {FEATURE}0 and so on (found {', '.join(names[:6])})"
        raise InputError(found, hint="fetch a table of embeddings of RxRx3-core")
    wells = read_wells(tables, experiments)
    rows = table.rename({"well_id": "Metadata_WellId"}) if wells.height else None
    means = None
    if rows is not None:
        asked = rows.join(wells.lazy().select("Metadata_WellId"), on="Metadata_WellId", how="semi")
        means = asked.group_by("Metadata_WellId").agg(pl.col(features).mean().cast(pl.Float32)).collect()
    if means is None or means.is_empty():
        found = f"{path} has none of the wells asked for"
        raise InputError(found, hint="check the names after --experiments")
    profiles = wells.join(means, on="Metadata_WellId", how="inner", maintain_order="left")
    empty_to_null = pl.col(pl.String).replace("", None)
    out.mkdir(parents=True, exist_ok=True)
    write_parquet(out / "profiles.parquet", profiles.with_columns(empty_to_null))
    logger.info("%d wells, %d features: %s", profiles.height, len(features), out / "profiles.parquet")
    return out / "profiles.parquet"
