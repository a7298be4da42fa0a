"""Read profile tables: one file, or a folder of them as one table, if they were made alike."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool
from numpy import ndarray

from cellvim.errors import InputError
from cellvim.profiles.making import first_difference, making_of, merged
from cellvim.profiles.schema import PLATE, WELL, Profiles, shortened, table_files, table_name
from cellvim.profiles.table_file import read_file

logger = logging.getLogger(__name__)

SHARE_THERE = 0.5


def read_profiles(path: Path) -> Profiles:
    """Read a profile table of ours or of a peer: Parquet, CSV, TSV (also gzipped) or AnnData, or a folder of those.

    Tables in a folder, such as one per plate, are joined in the order of their names; `NAME.thumbnails.parquet` is
    none, nor is `NAME.h5ad` beside `NAME.parquet`. They must have the same features, and those of ours must say that
    they were made alike: with the same model, normalisation and settings.

    Rows that are mostly not finite are dropped, then features that are not finite in some row left; the table
    warns of both.

    Raises:
        NotFoundError: No such file or folder.
        InputError: A file is not a table, or lacks a plate, a well, rows or usable numeric features; or tables of a
            folder were made differently or hold the same well.
        UsageError: A file is AnnData, and anndata is not installed.
    """
    return replace(read_together([path]), source=path, name=table_name(path))


def read_together(paths: Sequence[Path]) -> Profiles:
    """Read several tables, and folders of tables, as one; see `read_profiles`."""
    parts = [read_file(file) for path in paths for file in table_files(path)]
    return drop_unusable(joined(parts))


def joined(parts: Sequence[Profiles]) -> Profiles:
    """Put tables together that were made alike, rows in the order of the tables.

    Raises:
        InputError: Two were made differently, or have different features, or hold the same well.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for other in parts[1:]:
        require_made_alike(first, other)
    require_own_wells(parts)
    try:
        metadata = pl.concat([part.metadata for part in parts], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        found = f"{first.source} and others describe wells in columns that do not fit: {error}"
        raise InputError(found, hint="give a column the same kind of values in all tables") from error
    logger.info("%s: %d tables joined", first.source.parent, len(parts))
    return replace(
        first,
        metadata=metadata,
        features=np.concatenate([in_order_of(first, part) for part in parts]),
        provenance=merged([part.provenance for part in parts]),
    )


def require_made_alike(first: Profiles, other: Profiles) -> None:
    """Refuse two tables whose features do not mean the same.

    Raises:
        InputError: Names both files and what differs.
    """
    different = first_difference(making_of(first.provenance), making_of(other.provenance))
    if different is None and set(first.feature_names) != set(other.feature_names):
        only = sorted(set(first.feature_names) ^ set(other.feature_names))
        different = f"{len(only)} feature(s) are in one of them only: {shortened(only, most=3)}"
    if different is not None:
        found = f"{first.source} and {other.source} cannot be one table: {different}"
        raise InputError(found, hint="make them in the same way, or give them as tables of their own")


def require_own_wells(parts: Sequence[Profiles]) -> None:
    """Refuse a well that two files hold: it would count twice.

    Raises:
        InputError: Names the well and both files.
    """
    wells = pl.concat(
        part.metadata.select(PLATE, WELL).unique().with_columns(pl.lit(number).alias("file"))
        for number, part in enumerate(parts)
    )
    doubled = wells.group_by(PLATE, WELL).agg("file").filter(pl.col("file").list.len() > 1).sort(PLATE, WELL)
    if doubled.is_empty():
        return
    plate, well, files = doubled.row(0)
    first, second = (parts[number].source for number in sorted(files)[:2])
    found = f"{first} and {second} both hold plate {plate} well {well} ({doubled.height} such wells)"
    raise InputError(found, hint="keep one file of each plate in the folder")


def in_order_of(first: Profiles, other: Profiles) -> ndarray:
    if other.feature_names == first.feature_names:
        return other.features
    position = {name: index for index, name in enumerate(other.feature_names)}
    return other.features[:, [position[name] for name in first.feature_names]]


def drop_unusable(profiles: Profiles) -> Profiles:
    """Drop rows that are mostly not finite, then features that are not finite in every row left.

    In this order, so that one nearly empty well costs itself and not almost all features of all wells.
    """
    finite = np.isfinite(profiles.features)
    rows = is_mostly_there(finite)
    columns = finite[rows].all(axis=0)
    if not rows.any() or not columns.any():
        found = f"{profiles.source}: no feature is a finite number in every well"
        raise InputError(found, hint="remove the wells or features that are empty, NaN or infinite")
    if rows.all() and columns.all():
        return profiles
    kept = replace(profiles, metadata=profiles.metadata.filter(rows))
    kept = kept.with_features(profiles.features[np.ix_(rows, columns)], columns)
    if not rows.all():
        names = profiles.metadata.filter(~rows).select(pl.concat_str(PLATE, WELL, separator=" ")).to_series()
        wells = shortened(names.unique(maintain_order=True).to_list())
        kept = kept.warning(f"{int((~rows).sum())} row(s) dropped, mostly empty, NaN or infinite: {wells}")
    if not columns.all():
        kept = kept.warning(f"{int((~columns).sum())} feature(s) dropped: empty, NaN or infinite in some row")
    return kept


def is_mostly_there(finite: Bool[ndarray, "rows features"]) -> Bool[ndarray, " rows"]:
    """True for rows with at least half of the features that are finite in at least half of all rows."""
    usual = finite.mean(axis=0) >= SHARE_THERE
    rows = finite[:, usual].mean(axis=1) >= SHARE_THERE if usual.any() else finite.any(axis=1)
    return np.asarray(rows)
