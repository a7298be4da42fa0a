"""The nearest of the profiles that a question allows, block by block, with ties kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from cellvim.evaluate.retrieval import unit_rows

# Similarities held at once.
BLOCK_ENTRIES = 2**22
# Closer than this, two similarities are one: what rounding may part is a tie.
TIE_WIDTH = 1e-12

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
    asking = np.arange(len(unit)) if queries is None else queries
    height = max(1, BLOCK_ENTRIES // max(1, len(unit)))
    for start in range(0, asking.size, height):
        rows = asking[start : start + height]
        allowed = may_find(rows)
        cosine = unit[rows] @ unit.T
        cosine[~allowed] = -np.inf
        best = cosine.max(axis=1)
        tied = (cosine >= best[:, None] - TIE_WIDTH) & allowed
        yield NearestBlock(rows, allowed, tied, best)


def differing(*codes: Int[ndarray, " profiles"]) -> Rule:
    """Rule that allows the profiles unlike the query in every one of some codes."""

    def may_find(rows: Int[ndarray, " rows"]) -> Bool[ndarray, "rows profiles"]:
        allowed = codes[0][rows, None] != codes[0]
        for code in codes[1:]:
            allowed &= code[rows, None] != code
        return np.asarray(allowed)

    return may_find
