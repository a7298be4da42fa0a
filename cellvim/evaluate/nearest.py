"""The nearest of the profiles that a question allows, block by block, with ties kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from numpy import ndarray

from cellvim.evaluate.retrieval import unit_rows

# Similarities held at once.
BLOCK_ENTRIES = 2**22
# Closer than this, two similarities are one: what rounding may part is a tie.
TIE_WIDTH = 1e-12
# More candidates per query than this are compared by a matrix product.
MOST_NEAR = 16

Rule = Callable[[Int[ndarray, " rows"]], Bool[ndarray, "rows profiles"]]


@dataclass(frozen=True)
class NearestBlock:
    """Some queries and what is nearest to them.

    Args:
        rows: Which profiles ask.
        allowed: Which profiles each of them may find.
        tied: Which of those are nearest: one as a rule, several where they are equally close, none where none is
            allowed.
        similarity: Cosine to the nearest; ``-inf`` where none is allowed.
    """

    rows: Int[ndarray, " rows"]
    allowed: Bool[ndarray, "rows profiles"]
    tied: Bool[ndarray, "rows profiles"]
    similarity: Float64[ndarray, " rows"]

    @property
    def first(self) -> Int[ndarray, " rows"]:
        """The nearest profile, the first of them where several tie; -1 where none is allowed."""
        return np.where(self.tied.any(axis=1), self.tied.argmax(axis=1), -1)


def nearest_blocks(
    features: Float[ndarray, "profiles features"],
    may_find: Rule,
    queries: Int[ndarray, " queries"] | None = None,
) -> Iterator[NearestBlock]:
    """Find what is nearest to each query by cosine, `BLOCK_ENTRIES` similarities at a time.

    Args:
        features: One row per profile. A row of zeros is equally far from everything.
        may_find: For some rows, which profiles each of them may find. It must leave out the row itself.
        queries: Which profiles ask; all of them if absent.
    """
    unit = unit_rows(features.astype(np.float64))
    coarse = unit.astype(np.float32)
    asking = np.arange(len(unit)) if queries is None else queries
    height = max(1, BLOCK_ENTRIES // max(1, len(unit)))
    for start in range(0, asking.size, height):
        rows = asking[start : start + height]
        allowed = may_find(rows)
        near = allowed & is_near(coarse, rows, allowed)
        yield NearestBlock(rows, allowed, *exactly_nearest(unit, rows, near))


def is_near(
    coarse: Float32[ndarray, "profiles features"],
    rows: Int[ndarray, " rows"],
    allowed: Bool[ndarray, "rows profiles"],
) -> Bool[ndarray, "rows profiles"]:
    """True for whatever may be nearest, given what single precision can err by: it is three times as fast."""
    cosine = coarse[rows] @ coarse.T
    cosine[~allowed] = -np.inf
    # Bound on the error of a dot product of unit vectors, of the best one and of the other.
    slack = np.float32(2 * (coarse.shape[1] + 4) * 2.0**-24)
    return np.asarray(cosine >= cosine.max(axis=1, keepdims=True) - slack)


def exactly_nearest(
    unit: Float64[ndarray, "profiles features"],
    rows: Int[ndarray, " rows"],
    near: Bool[ndarray, "rows profiles"],
) -> tuple[Bool[ndarray, "rows profiles"], Float64[ndarray, " rows"]]:
    """Which of the near profiles are nearest, in double precision, and how similar they are."""
    if np.count_nonzero(near) > MOST_NEAR * rows.size:
        cosine = unit[rows] @ unit.T
        cosine[~near] = -np.inf
        best = cosine.max(axis=1)
        return (cosine >= best[:, None] - TIE_WIDTH) & near, best
    query, found = np.nonzero(near)
    similarity = np.einsum("pf,pf->p", unit[rows[query]], unit[found])
    best = np.full(rows.size, -np.inf)
    np.maximum.at(best, query, similarity)
    tied = np.zeros(near.shape, bool)
    tied[query, found] = similarity >= best[query] - TIE_WIDTH
    return tied, best


def differing(*codes: Int[ndarray, " profiles"]) -> Rule:
    """Rule that allows the profiles unlike the query in every one of some codes."""

    def may_find(rows: Int[ndarray, " rows"]) -> Bool[ndarray, "rows profiles"]:
        allowed = codes[0][rows, None] != codes[0]
        for code in codes[1:]:
            allowed &= code[rows, None] != code
        return np.asarray(allowed)

    return may_find
