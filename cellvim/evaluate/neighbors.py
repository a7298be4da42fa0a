"""Nearest wells by cosine: what does a perturbation resemble?"""

import numpy as np
import polars as pl
from jaxtyping import Float, Float64, Int
from numpy import ndarray

from cellvim.evaluate.retrieval import BLOCK_ENTRIES, unit_rows
from cellvim.evaluate.screen import well_labels
from cellvim.profiles import Profiles
from cellvim.profiles.schema import PERTURBATION, PLATE, WELL

NEIGHBORS = 5
MOST_QUERIES = 48
CONTROL_QUERIES = 4


def nearest_wells(profiles: Profiles, queries: Int[ndarray, " queries"]) -> pl.DataFrame:
    """Table of the nearest other wells of each query, by rank from 1; empty and unnamed wells are not among them.

    Args:
        profiles: One row per well.
        queries: Rows of treated wells or controls.
    """
    shown = np.flatnonzero(well_labels(profiles).takes_part)
    places, similarity = nearest_rows(profiles.features[shown], np.searchsorted(shown, queries), NEIGHBORS)
    nearest: Int[ndarray, "queries nearest"] = shown[places]
    count = nearest.shape[1]
    names = profiles.metadata.select(PLATE, WELL)
    found = names[nearest.ravel()].rename({PLATE: "neighbor_plate", WELL: "neighbor_well"})
    query = names[np.repeat(queries, count)]
    rank = pl.Series("rank", np.tile(np.arange(1, count + 1), queries.size), pl.Int64)
    values = pl.Series("similarity", similarity.ravel(), pl.Float32)
    return pl.concat([query, found], how="horizontal").insert_column(2, rank).with_columns(values)


def nearest_rows(
    features: Float[ndarray, "wells features"], queries: Int[ndarray, " queries"], count: int
) -> tuple[Int[ndarray, "queries nearest"], Float64[ndarray, "queries nearest"]]:
    """Other wells closest by cosine to each query, best first, and how close; ties in the order of rows."""
    unit = unit_rows(features.astype(np.float64))
    count = max(0, min(count, len(unit) - 1))
    nearest = np.empty((queries.size, count), np.int64)
    similarity = np.empty((queries.size, count))
    height = max(1, BLOCK_ENTRIES // max(1, len(unit)))
    for start in range(0, queries.size, height):
        at = queries[start : start + height]
        # Rounded, so that what is a tie does not depend on the order of addition.
        cosine = np.round(unit[at] @ unit.T, 12)
        cosine[np.arange(at.size), at] = -np.inf
        best = np.sort(np.argpartition(-cosine, count - 1, axis=1)[:, :count], axis=1)
        found = np.take_along_axis(cosine, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        nearest[start : start + at.size] = np.take_along_axis(best, order, axis=1)
        similarity[start : start + at.size] = np.take_along_axis(found, order, axis=1)
    return nearest, similarity


def montage_queries(profiles: Profiles, strength: Float[ndarray, " wells"]) -> Int[ndarray, " queries"]:
    """Best well of each perturbation, strongest perturbations first, and a few controls.

    Args:
        profiles: One row per well.
        strength: Average precision of each well; NaN where it has none.
    """
    score = np.where(np.isnan(strength), -1.0, strength)
    treated = profiles.metadata.with_row_index("row").with_columns(pl.Series("score", score))
    treated = treated.filter(pl.Series(well_labels(profiles).is_treated))
    best = treated.sort("score", "row", descending=[True, False]).unique(
        PERTURBATION, keep="first", maintain_order=True
    )
    controls = np.flatnonzero(profiles.is_control)[:CONTROL_QUERIES]
    rows = best["row"].to_numpy()[: MOST_QUERIES - controls.size]
    return np.concatenate([rows, controls]).astype(np.int64)
