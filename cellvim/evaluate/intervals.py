"""Means whose parts belong together: replicates of a compound rise and fall as one."""

import numpy as np
from jaxtyping import Float64, Int
from numpy import ndarray

from cellvim.config import EvaluateSettings
from cellvim.evaluate.nearest import BLOCK_ENTRIES
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


def mean_over_pairs(
    values: Float64[ndarray, " pairs"], ends: Int[ndarray, "pairs 2"], settings: EvaluateSettings, name: str
) -> Estimate:
    """Mean over pairs, with an interval by drawing what they are pairs of: a pair weighs the product of its ends.

    Args:
        values: One value per pair, at least one.
        ends: Codes from 0 of the two of each pair.
        settings: Resamples and seed.
        name: Name of the number, so that no two share their draws.

    Source:
        Owen 2007, "The pigeonhole bootstrap".
    """
    value = float(values.mean())
    if values.size < 2:
        return Estimate(value)
    counts = resampled_counts(
        int(ends.max()) + 1, resamples=settings.bootstraps, seed=settings.seed, name=name
    )
    sums, drawn = np.zeros(len(counts)), np.zeros(len(counts))
    step = max(1, BLOCK_ENTRIES // len(counts))
    for start in range(0, values.size, step):
        at = slice(start, start + step)
        weight = counts[:, ends[at, 0]] * counts[:, ends[at, 1]]
        sums += weight @ values[at]
        drawn += weight.sum(axis=1)
    is_drawn = drawn > 0
    if not is_drawn.any():
        return Estimate(value)
    return Estimate.from_resamples(value, sums[is_drawn] / drawn[is_drawn])
