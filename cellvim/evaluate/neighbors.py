"""Nearest wells by cosine: what does a perturbation resemble?"""

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from cellvim.evaluate.retrieval import unit_rows
from cellvim.profiles import Profiles
from cellvim.profiles.schema import PERTURBATION, PLATE, WELL

NEIGHBORS = 5
MOST_QUERIES = 48
CONTROL_QUERIES = 4


def nearest_wells(profiles: Profiles, queries: Int[ndarray, " queries"]) -> pl.DataFrame:
    """Table of the nearest other wells of each query, by rank from 1."""
    unit = unit_rows(profiles.features.astype(np.float64))
    similarity = unit[queries] @ unit.T
    similarity[np.arange(queries.size), queries] = -np.inf
    count = min(NEIGHBORS, len(unit) - 1)
    # Rounded before sorting, so that ties go to the first well whatever the order of addition was.
    nearest = np.argsort(-np.round(similarity, 12), axis=1, kind="stable")[:, :count]
    names = profiles.metadata.select(PLATE, WELL)
    found = names[nearest.ravel()].rename({PLATE: "neighbor_plate", WELL: "neighbor_well"})
    query = names[np.repeat(queries, count)]
    rank = pl.Series("rank", np.tile(np.arange(1, count + 1), queries.size), pl.Int64)
    values = pl.Series("similarity", np.take_along_axis(similarity, nearest, axis=1).ravel(), pl.Float32)
    return pl.concat([query, found], how="horizontal").insert_column(2, rank).with_columns(values)


def montage_queries(profiles: Profiles, strength: Float[ndarray, " wells"]) -> Int[ndarray, " queries"]:
    """Best well of each perturbation, strongest perturbations first, and a few controls.

    Args:
        profiles: One row per well.
        strength: Average precision of each well; NaN where it has none.
    """
    score = np.where(np.isnan(strength), -1.0, strength)
    treated = profiles.metadata.with_row_index("row").with_columns(pl.Series("score", score))
    treated = treated.filter(~pl.Series(profiles.is_control) & pl.col(PERTURBATION).is_not_null())
    best = treated.sort("score", "row", descending=[True, False]).unique(
        PERTURBATION, keep="first", maintain_order=True
    )
    controls = np.flatnonzero(profiles.is_control)[:CONTROL_QUERIES]
    rows = best["row"].to_numpy()[: MOST_QUERIES - controls.size]
    return np.concatenate([rows, controls]).astype(np.int64)
