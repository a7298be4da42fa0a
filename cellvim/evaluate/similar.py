"""Nearest perturbations, and how far wells lie from the controls: what a reader asks about one perturbation."""

import numpy as np
import polars as pl
from jaxtyping import Float64
from numpy import ndarray

from cellvim.config import Average
from cellvim.evaluate.neighbors import nearest_rows
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, plate_codes
from cellvim.profiles.consensus import consensus
from cellvim.profiles.schema import PERTURBATION

MOST_SIMILAR = 8


def similar_perturbations(screen: Screen, average: Average) -> pl.DataFrame:
    """The perturbations most like each, by the cosine of their consensus profiles; controls are not among them.

    Returns:
        `Metadata_Perturbation`, `rank` from 1, `neighbor`, `similarity`; sorted by name and rank.
    """
    treated = screen.treated()
    profiles = consensus(treated, [PERTURBATION], average)
    names = profiles.metadata[PERTURBATION].cast(pl.String)
    nearest, similarity = nearest_rows(profiles.features, np.arange(names.len()), MOST_SIMILAR)
    count = nearest.shape[1]
    return pl.DataFrame(
        {
            PERTURBATION: names[np.repeat(np.arange(names.len()), count)],
            "rank": np.tile(np.arange(1, count + 1), names.len()),
            "neighbor": names[nearest.ravel()],
            "similarity": similarity.ravel(),
        },
        schema={
            PERTURBATION: pl.String,
            "rank": pl.Int64,
            "neighbor": pl.String,
            "similarity": pl.Float64,
        },
    )


def control_distance(profiles: Profiles) -> Float64[ndarray, " wells"]:
    """Root mean square difference of each well from the mean of its plate's negative controls.

    In features that are scaled on the controls, a control is about 1 away. NaN on plates without controls.
    """
    distance = np.full(len(profiles.features), np.nan)
    plates = plate_codes(profiles)
    for plate in np.unique(plates):
        own = plates == plate
        controls = profiles.features[own & profiles.is_control]
        if len(controls) and controls.shape[1]:
            difference = profiles.features[own].astype(np.float64) - controls.mean(axis=0, dtype=np.float64)
            distance[own] = np.sqrt(np.square(difference).mean(axis=1))
    return distance
