"""Average precision: how early do the right ones come in a ranked list?"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

# Closer than this, two similarities are one: what rounding may part is a tie, and ties count as the worst order.
TIE_WIDTH = 1e-12


def average_precision(similarity: Float[ndarray, " units"], relevant: Bool[ndarray, " units"]) -> float:
    """Mean precision at the rank of each relevant candidate, most similar first: what `score_queries` is judged by.

    Ties count as the worst order (relevant last), so a collapsed embedding cannot score well by luck.

    Args:
        similarity: Cosine similarity of every candidate to the query, in [-1, 1].
        relevant: True where the candidate is one that the query should find.

    Returns:
        Value in (0, 1]; 1 when every relevant candidate outranks every other.

    Raises:
        ValueError: No candidate is relevant, so the score is undefined.

    Source:
        Kalinin et al. 2025, "A versatile information retrieval framework" (copairs).
    """
    if not relevant.any():
        msg = "average precision is undefined without a relevant candidate"
        raise ValueError(msg)
    others = np.sort(similarity[~relevant])
    above = others.size - np.searchsorted(others, similarity[relevant] - TIE_WIDTH)
    return float(mean_precision(above, np.array([above.size]))[0])


def expected_average_precision(
    positives: Int[ndarray, " queries"], total: Int[ndarray, " queries"]
) -> Float64[ndarray, " queries"]:
    """Average precision that a random order has on average, for M positives among L candidates.

    Source:
        Bestgen 2015, "Exact expected average precision of the random baseline"; the form used by copairs.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total.max(initial=1) + 1))])
    sum_of_inverses = harmonic[total]
    share = (positives - 1) / np.maximum(total - 1, 1)
    return np.asarray((share * (total - sum_of_inverses) + sum_of_inverses) / total)


def mean_precision(
    above: Int[ndarray, " pairs"], positives: Int[ndarray, " queries"]
) -> Float64[ndarray, " queries"]:
    """Average over a query's positives of k / rank, the k-th positive ranking after k - 1 others; NaN if none."""
    query = np.repeat(np.arange(positives.size), positives)
    # One sort for all queries: each has a range of numbers of its own.
    span = int(above.max(initial=0)) + 1
    ordered = np.sort(query * span + above) - query * span
    nth = runs(np.ones_like(positives), positives)
    sums = np.bincount(query, weights=nth / (nth + ordered), minlength=positives.size)
    return np.where(positives > 0, sums / np.maximum(positives, 1), np.nan)


def runs(starts: Int[ndarray, " runs"], counts: Int[ndarray, " runs"]) -> Int[ndarray, " indices"]:
    """Indices of several runs, one run after the other."""
    before = np.cumsum(counts) - counts
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(starts - before, counts))
