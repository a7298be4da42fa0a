"""Does one number rise with another? Rank correlation, against values dealt anew within blocks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray
from scipy.stats import rankdata

from cellvim.statistics.bootstrap import generator_for

# Two correlations this close are one: rounding must not let a tie with the observed value count as smaller.
TIE_WIDTH = 1e-12


@dataclass(frozen=True)
class Arrangements:
    """Values dealt anew among the items of each block.

    Args:
        values: One arrangement per row.
        is_exact: Every arrangement that differs from the others is there once; else a random sample.
    """

    values: Float64[ndarray, "arrangements items"]
    is_exact: bool

    @property
    def smallest_p(self) -> float:
        """What `p_value` gives where no arrangement but the observed one does as well."""
        return 1 / (len(self.values) + (not self.is_exact))

    def p_value(self, null: Float64[ndarray, " arrangements"], observed: float) -> float:
        """Share of arrangements that do as well as the observed one or better; a sample counts it once more."""
        as_good = int((null >= observed - TIE_WIDTH).sum())
        return (as_good + (not self.is_exact)) / (len(null) + (not self.is_exact))


def arrangements(
    values: Float[ndarray, " items"], block: Int[ndarray, " items"], *, most: int, seed: int, name: str
) -> Arrangements:
    """Deal values anew within blocks: in all ways where there are no more than `most`, else in `most` random ones.

    Args:
        values: What the items have.
        block: Items exchange values only within a block.
        most: Number of arrangements.
        seed: With `name` it decides a sample.
        name: Name of what is tested, so that no two samples are the same.
    """
    members = [np.flatnonzero(block == code) for code in np.unique(block)]
    if math.prod(count_orders(values[own]) for own in members) <= most:
        parts = [list(orders(np.sort(values[own]))) for own in members]
        dealt = np.empty((math.prod(map(len, parts)), values.size))
        for row, chosen in enumerate(product(*parts)):
            for own, order in zip(members, chosen, strict=True):
                dealt[row, own] = order
        return Arrangements(dealt, is_exact=True)
    generator = generator_for(seed, name)
    dealt = np.tile(values.astype(np.float64), (most, 1))
    for own in members:
        dealt[:, own] = generator.permuted(dealt[:, own], axis=1)
    return Arrangements(dealt, is_exact=False)


def count_orders(values: Float[ndarray, " items"]) -> int:
    """Number of orders of some values that can be told apart."""
    repeats = np.unique(values, return_counts=True)[1]
    return math.factorial(values.size) // math.prod(math.factorial(int(count)) for count in repeats)


def orders(values: Float[ndarray, " items"]) -> Iterator[Float[ndarray, " items"]]:
    """Yield each order of ascending values once, in lexicographic order."""
    current = values.copy()
    while True:
        yield current.copy()
        rises = np.flatnonzero(current[:-1] < current[1:])
        if not rises.size:
            return
        pivot = rises[-1]
        swap = np.flatnonzero(current > current[pivot])
        swap = swap[swap > pivot][-1]
        current[[pivot, swap]] = current[[swap, pivot]]
        current[pivot + 1 :] = current[pivot + 1 :][::-1].copy()


def spearman(x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> float:
    """Rank correlation; ties share their mean rank. NaN if either side is constant, or has fewer than two values."""
    return float(row_spearman(x[None].astype(np.float64), y[None].astype(np.float64))[0])


def row_spearman(
    x: Float64[ndarray, "rows items"], y: Float64[ndarray, "rows items"], *, x_is_ranked: bool = False
) -> Float64[ndarray, " rows"]:
    """Rank correlation of each row; an item that is NaN in `y` is left out of its row. NaN where undefined.

    Args:
        x: One side.
        y: The other side.
        x_is_ranked: `x` holds `centred_ranks`, and need not be sorted again unless items are left out.
    """
    is_there = np.isfinite(y)
    if is_there.all():
        sides = [x if x_is_ranked else centred_ranks(x), centred_ranks(y)]
    else:
        sides = [centred_ranks(side, is_there) for side in (x, y)]
    spread = np.sqrt((sides[0] ** 2).sum(axis=1) * (sides[1] ** 2).sum(axis=1))
    found = (sides[0] * sides[1]).sum(axis=1) / np.where(spread > 0, spread, 1)
    return np.where(spread > 0, found, np.nan)


def centred_ranks(
    values: Float64[ndarray, "rows items"], is_there: Bool[ndarray, "rows items"] | None = None
) -> Float64[ndarray, "rows items"]:
    """Ranks within each row, less their mean; among the items that are there, and 0 for the others."""
    if not values.shape[1]:
        return values
    if is_there is None:
        return np.asarray(rankdata(values, axis=1) - (values.shape[1] + 1) / 2)
    # What is not there ranks last, which leaves the ranks of all others as they are.
    ranks = rankdata(np.where(is_there, values, np.inf), axis=1)
    mean = (ranks * is_there).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
    return np.asarray((ranks - mean[:, None]) * is_there)


def permutation_p(
    x: Float[ndarray, " n"], y: Float[ndarray, " n"], *, seed: int, permutations: int = 10000
) -> float:
    """One-sided p-value that `y` rises with `x`: how often `x` dealt anew correlates as well or better.

    Exact where all orders of `x` can be counted. NaN if either side is constant.
    """
    observed = spearman(x, y)
    if not np.isfinite(observed):
        return float("nan")
    dealt = arrangements(x, np.zeros(x.size, np.int64), most=permutations, seed=seed, name="permutation")
    null = row_spearman(dealt.values, np.broadcast_to(y.astype(np.float64), dealt.values.shape))
    return dealt.p_value(null, observed)
