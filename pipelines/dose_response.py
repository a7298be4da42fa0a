"""How far apart are controls in all features, and do wells of a group find each other? What `evaluate` does not say."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from cellvim.evaluate.precision import average_precision
from cellvim.evaluate.retrieval import unit_rows
from cellvim.statistics import Estimate

Fit = Callable[[Bool[ndarray, " well"]], Float[ndarray, "well feature"]]
"""From the negative controls to learn from, to the features of all wells on the scale learned."""


def separation(
    fit: Fit,
    *,
    is_negative: Bool[ndarray, " well"],
    is_positive: Bool[ndarray, " well"],
    seed: int,
) -> Estimate:
    """Distance from negative to positive controls, in units of how far a negative control lies from the others.

    In all features at once, unlike Z'. Each negative control is measured with a normalisation that has not seen
    it. The interval resamples controls.
    """
    strays = []
    for well in np.flatnonzero(is_negative):
        others = is_negative & (np.arange(is_negative.size) != well)
        features = fit(others)
        strays.append(np.linalg.norm(features[well] - features[others].mean(0)))
    features = fit(is_negative)
    moved = features[is_positive] - features[is_negative].mean(0)

    def ratio(positive: Float[ndarray, "p feature"], stray: Float[ndarray, " n"]) -> float:
        return float(np.linalg.norm(positive.mean(0)) / np.sqrt((stray**2).mean()))

    return bootstrap(ratio, moved, np.array(strays), seed=seed)


def group_precision(features: Float[ndarray, "well feature"], is_member: Bool[ndarray, " well"]) -> float:
    """Mean average precision with which members of a group find each other among all wells, by cosine."""
    return float(member_precisions(features, is_member).mean())


def member_precisions(
    features: Float[ndarray, "well feature"], is_member: Bool[ndarray, " well"]
) -> Float[ndarray, " member"]:
    """Average precision with which each member of a group finds the others among all wells, by cosine."""
    unit = unit_rows(features)
    similarity = unit @ unit.T
    values = []
    for well in np.flatnonzero(is_member):
        others = np.arange(len(features)) != well
        values.append(average_precision(similarity[well, others], is_member[others]))
    return np.array(values)


def bootstrap(
    statistic: Callable[..., float], *groups: Float[ndarray, "n ..."], seed: int, resamples: int = 1000
) -> Estimate:
    """Estimate a statistic with a percentile interval, resampling the wells of each group on its own.

    Resamples where the statistic is undefined are left out.
    """
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for k in range(resamples):
        drawn[k] = statistic(*(group[generator.integers(len(group), size=len(group))] for group in groups))
    return Estimate.from_resamples(statistic(*groups), drawn[np.isfinite(drawn)])
