"""Does a profile move with the dose, and are the plate's controls apart? One score per well answers both."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import rankdata, spearmanr

from cellvim.evaluate.precision import average_precision
from cellvim.evaluate.retrieval import unit_rows
from cellvim.statistics import Estimate

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
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(spearmanr(x, y).statistic)


def permutation_p(
    x: Float[ndarray, " n"], y: Float[ndarray, " n"], *, seed: int, permutations: int = 10000
) -> float:
    """One-sided p-value that `y` rises with `x`: how often a shuffled `y` correlates as well or better."""
    generator = np.random.default_rng(seed)
    observed = spearman(x, y)
    ranks_x, ranks_y = rankdata(x), rankdata(y)
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
    return Estimate.from_resamples(statistic(*groups), drawn[np.isfinite(drawn)])


def _along_axis(
    features: Float[ndarray, "well feature"],
    is_negative: Bool[ndarray, " well"],
    is_positive: Bool[ndarray, " well"],
) -> Float[ndarray, " well"]:
    origin = features[is_negative].mean(0)
    axis = features[is_positive].mean(0) - origin
    length = float(axis @ axis)
    return np.asarray((features - origin) @ axis / (length or 1.0))
