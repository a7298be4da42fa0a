"""Means whose parts belong together: replicates of a compound rise and fall as one."""

import numpy as np
from jaxtyping import Float64, Int
from numpy import ndarray

from cellvim.config import EvaluateSettings
from cellvim.statistics import Estimate, resampled_counts


def mean_over_units(
    values: Float64[ndarray, " items"], unit: Int[ndarray, " items"], settings: EvaluateSettings, name: str
) -> Estimate:
    """Mean over items, with a percentile bootstrap interval in which items of a unit are resampled together.

    Args:
        values: One value per item, at least one.
        unit: Any code of what each item belongs to.
        settings: Resamples and seed.
        name: Name of the number, so that no two share their draws.
    """
    codes = np.unique(unit, return_inverse=True)[1]
    items = np.bincount(codes).astype(np.float64)
    value = float(values.mean())
    if items.size < 2:
        return Estimate(value)
    sums = np.bincount(codes, weights=values)
    counts = resampled_counts(items.size, resamples=settings.bootstraps, seed=settings.seed, name=name)
    return Estimate.from_resamples(value, (counts @ sums) / (counts @ items))
