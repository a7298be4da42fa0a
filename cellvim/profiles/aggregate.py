"""From crops and fields to one profile per well."""

from dataclasses import replace

import numpy as np
import polars as pl
from jaxtyping import Float32, Int
from numpy import ndarray

from cellvim.config import Average
from cellvim.errors import InputError
from cellvim.profiles.schema import PLATE, SITE, WELL, Profiles, first_present

FIELD_COUNT = "Metadata_FieldCount"
# About a plate of wells: what is held in double precision at the same time.
GROUPS_AT_ONCE = 384
# How fields of a well are told apart, in the order they are looked for.
FIELD_NAMES = (SITE, "Metadata_Field", "Metadata_ImageNumber")
# Columns that tell the rows of one well apart; two rows alike in all of them are a mistake, not a replicate.
WITHIN_WELL = (*FIELD_NAMES, "Metadata_CropTop", "Metadata_CropLeft", "Metadata_ObjectNumber")


def aggregate(profiles: Profiles, average: Average = "mean") -> Profiles:
    """Average crops or cells to fields and fields to wells, so that every field of a well counts the same.

    Rows come out sorted by plate and well, whatever their order in the file. Metadata that differ within a
    well are dropped. `Metadata_FieldCount` says how many fields went into each well, if rows name their field.

    Raises:
        InputError: Two rows stand for the same well, field or crop.
    """
    keys = [name for name in WITHIN_WELL if name in profiles.metadata.columns]
    require_unique(profiles, [PLATE, WELL, *keys])
    profiles = sorted_rows(profiles, [PLATE, WELL, *keys])
    field = first_present(FIELD_NAMES, profiles.metadata)
    if field is None:
        return average_rows(profiles, [PLATE, WELL], average)
    fields = average_rows(profiles, [PLATE, WELL, field], average)
    return average_rows(fields, [PLATE, WELL], average, count_name=FIELD_COUNT)


def require_unique(profiles: Profiles, keys: list[str]) -> None:
    is_repeated = profiles.metadata.select(keys).is_duplicated()
    if is_repeated.any():
        first = profiles.metadata.filter(is_repeated).row(0, named=True)
        found = (
            f"{profiles.source}: {int(is_repeated.sum())} rows stand for the same "
            f"{'well' if len(keys) == 2 else 'field'}, for example plate {first[PLATE]} well {first[WELL]}"
        )
        raise InputError(found, hint=f"keep one row each, or say in {SITE} which field of the well a row is")


def sorted_rows(profiles: Profiles, keys: list[str]) -> Profiles:
    """Sort by plate, well, and what tells rows of a well apart, so that sums add up in one order."""
    order = profiles.metadata.with_row_index("row").select(
        "row", *keys, pl.col(WELL).str.len_chars().alias("letters")
    )
    # AA01 comes after Z24: wells are sorted by the length of their name first.
    rows = order.sort(PLATE, "letters", *keys[1:], maintain_order=True)["row"].to_numpy()
    return profiles.only(rows)


def sorted_by(profiles: Profiles, keys: list[str]) -> Profiles:
    """Sort by some columns; rows that agree in them keep their order."""
    order = profiles.metadata.with_row_index("row").sort(keys, maintain_order=True)
    return profiles.only(order["row"].to_numpy())


def average_rows(
    profiles: Profiles, keys: list[str], average: Average, *, count_name: str | None = None
) -> Profiles:
    """Average the rows that agree in `keys`, which follow each other."""
    metadata = profiles.metadata
    is_first = metadata.select(pl.struct(keys).rle_id().diff().fill_null(1).alias("new"))["new"]
    starts = np.flatnonzero(is_first.to_numpy())
    sizes = np.diff([*starts, metadata.height])
    features = averaged(profiles.features, starts, sizes, average)
    if count_name is not None:
        metadata = metadata.drop(count_name, strict=False)
    metadata = metadata[starts].select(constant_columns(metadata, keys))
    if count_name is not None:
        metadata = metadata.with_columns(pl.Series(count_name, sizes, dtype=pl.Int64))
    return replace(profiles, metadata=metadata, features=features)


def constant_columns(metadata: pl.DataFrame, keys: list[str]) -> list[str]:
    """Columns with one value per group."""
    others = [name for name in metadata.columns if name not in keys]
    if metadata.select(keys).is_unique().all():
        return [*keys, *others]
    counts = metadata.group_by(keys).agg(pl.col(others).n_unique()).select(others).max()
    return [*keys, *(name for name in others if counts[name].item() == 1)]


def averaged(
    features: Float32[ndarray, "rows features"],
    starts: Int[ndarray, " groups"],
    sizes: Int[ndarray, " groups"],
    average: Average,
) -> Float32[ndarray, "groups features"]:
    if features.shape[0] == starts.size:
        return features
    if average == "median":
        groups = [np.median(features[a : a + n], axis=0) for a, n in zip(starts, sizes, strict=True)]
        return np.stack(groups).astype(np.float32)
    result = np.empty((starts.size, features.shape[1]), np.float32)
    for first in range(0, starts.size, GROUPS_AT_ONCE):
        own = slice(first, first + GROUPS_AT_ONCE)
        rows = slice(starts[own][0], starts[own][-1] + sizes[own][-1])
        # Sums in double precision: the mean of equal values is then that value, bit for bit.
        sums = np.add.reduceat(features[rows].astype(np.float64), starts[own] - starts[own][0])
        result[own] = sums / sizes[own, None]
    return result
