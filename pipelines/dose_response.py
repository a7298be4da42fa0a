"""Does a profile move with the dose, and are the plate's controls apart? One score per well answers both."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


Fit = Callable[[Bool[ndarray, " well"]], Float[ndarray, "well feature"]]
"""From the negative controls to learn from, to the features of all wells on the scale learned."""


def axis_scores(
    fit: Fit, *, is_negative: Bool[ndarray, " well"], is_positive: Bool[ndarray, " well"]
) -> Float[ndarray, " well"]:
    """Place every well on the axis from negative (0) to positive controls (1).

    A control's own place is found on the axis, and with the normalisation, of the *other* controls. With more
    features than controls, an axis that has seen a well puts it on the right side whatever the images show.

    Raises:
        ValueError: Fewer than two controls of a kind.
    """
    if is_negative.sum() < 2 or is_positive.sum() < 2:
        msg = "an axis needs at least two negative and two positive controls"
        raise ValueError(msg)
    scores = _along_axis(fit(is_negative), is_negative, is_positive)
    for well in np.flatnonzero(is_negative | is_positive):
        others = np.arange(scores.size) != well
        negative, positive = is_negative & others, is_positive & others
        scores[well] = _along_axis(fit(negative), negative, positive)[well]
    return scores


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
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    values = []
    for well in np.flatnonzero(is_member):
        others = np.arange(len(features)) != well
        # Ties count as the worst order: members last.
        order = np.lexsort((is_member[others], -similarity[well, others]))
        ranks = np.flatnonzero(is_member[others][order]) + 1
        values.append(np.mean(np.arange(1, ranks.size + 1) / ranks))
    return float(np.mean(values))


def z_prime(negative: Float[ndarray, " n"], positive: Float[ndarray, " p"]) -> float:
    """Separation of two groups of controls: ``1 - 3 (sd + sd) / |difference of means|``; above 0.5 is an excellent assay.

    Source:
        Zhang, Chung, Oldenburg 1999, "A simple statistical parameter for use in evaluation and validation of
        high throughput screening assays".
    """
    distance = abs(float(positive.mean() - negative.mean()))
    spread = float(positive.std(ddof=1) + negative.std(ddof=1))
    return 1 - 3 * spread / distance if distance else float("-inf")


def spearman(x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> float:
    """Rank correlation; ties share their mean rank. NaN if either side is constant."""
    ranks = np.stack([average_ranks(x), average_ranks(y)])
    centered = ranks - ranks.mean(1, keepdims=True)
    norms = np.sqrt((centered**2).sum(1))
    return float(centered[0] @ centered[1] / norms.prod()) if norms.all() else float("nan")


def average_ranks(values: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Rank from 1; equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2
    return np.asarray(mean_rank[group], dtype=np.float64)


def permutation_p(
    x: Float[ndarray, " n"], y: Float[ndarray, " n"], *, seed: int, permutations: int = 10000
) -> float:
    """One-sided p-value that `y` rises with `x`: how often a shuffled `y` correlates as well or better."""
    generator = np.random.default_rng(seed)
    observed = spearman(x, y)
    ranks_x, ranks_y = average_ranks(x), average_ranks(y)
    shuffled = generator.permuted(np.tile(ranks_y, (permutations, 1)), axis=1)
    centered = ranks_x - ranks_x.mean()
    spread = np.sqrt((centered**2).sum() * ((ranks_y - ranks_y.mean()) ** 2).sum())
    null = shuffled @ centered / spread
    # Rounding must not let a tie with the observed value count as smaller.
    return float((1 + (null >= observed - 1e-12).sum()) / (1 + permutations))


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
    low, high = np.percentile(drawn[np.isfinite(drawn)], [2.5, 97.5])
    return Estimate(statistic(*groups), float(low), float(high))


def _along_axis(
    features: Float[ndarray, "well feature"],
    is_negative: Bool[ndarray, " well"],
    is_positive: Bool[ndarray, " well"],
) -> Float[ndarray, " well"]:
    origin = features[is_negative].mean(0)
    axis = features[is_positive].mean(0) - origin
    length = float(axis @ axis)
    return np.asarray((features - origin) @ axis / (length or 1.0))
