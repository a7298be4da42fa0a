"""How surprising is a mean average precision? Exact where all rank lists can be counted, sampled elsewhere."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Int
from numpy import ndarray

from cellvim.statistics import generator_for

# A null value this close to the observed one equals it: their sums differ only in the order of addition.
FLOAT_SLACK = 1e-9
SAMPLED_ENTRIES = 2**22


@dataclass(frozen=True)
class Significance:
    """P-value of one perturbation.

    Args:
        p: (1 + random rank lists with a larger mean average precision) / (1 + random rank lists), in (0, 1].
        smallest_p: What the best possible ranking would have got: with few replicates it may exceed 0.05.
    """

    p: float
    smallest_p: float


class NullDistributions:
    """Null distributions of average precision, one per (positives, total), made when first asked for.

    Args:
        null_size: Number of random rank lists; all of them are enumerated where there are no more than this.
        seed: With (positives, total) it decides the sample, so that a p-value never depends on which other
            perturbations a table holds.
    """

    def __init__(self, *, null_size: int, seed: int) -> None:
        self.null_size = null_size
        self.seed = seed
        self._known: dict[tuple[int, int], Float64[ndarray, " lists"]] = {}

    def of(self, positives: int, total: int) -> Float64[ndarray, " lists"]:
        """Average precision of random rank lists, ascending."""
        key = (positives, total)
        if key not in self._known:
            if math.comb(total, positives) <= self.null_size:
                values = enumerated_average_precision(positives, total)
            else:
                values = sampled_average_precision(positives, total, size=self.null_size, seed=self.seed)
            self._known[key] = np.sort(values)
        return self._known[key]

    def test(
        self,
        mean_average_precision: float,
        positives: Int[ndarray, " queries"],
        total: Int[ndarray, " queries"],
    ) -> Significance:
        """Compare the mean over a perturbation's queries with the mean of their null distributions."""
        null = self.of_mean(positives, total)
        larger = int(np.count_nonzero(null > mean_average_precision + FLOAT_SLACK))
        return Significance(p=(1 + larger) / (1 + null.size), smallest_p=1 / (1 + null.size))

    def of_mean(
        self, positives: Int[ndarray, " queries"], total: Int[ndarray, " queries"]
    ) -> Float64[ndarray, " lists"]:
        """Null distribution of a mean over queries, ascending.

        Queries of one perturbation rank the same wells against each other, so their average precisions rise
        and fall together. The null takes that to the full: the mean of the queries' quantiles, which for
        queries alike in (positives, total) is the null of a single query, as in copairs. That makes p too
        large rather than too small, but for one thing: only strictly larger values count, so where the null
        has few of them (few replicates, few controls) p is a little too small, at most by the share of lists
        that equal the observed value.
        """
        shapes, counts = np.unique(np.stack([positives, total], axis=1), axis=0, return_counts=True)
        nulls = [self.of(int(p), int(n)) for p, n in shapes]
        size = max(null.size for null in nulls)
        level = (np.arange(size) + 0.5) / size
        quantiles = [null[np.minimum((level * null.size).astype(int), null.size - 1)] for null in nulls]
        return np.asarray(np.average(quantiles, axis=0, weights=counts))


def enumerated_average_precision(positives: int, total: int) -> Float64[ndarray, " lists"]:
    """Average precision of every way to place the positives in a rank list."""
    places = np.array(list(combinations(range(1, total + 1), positives)))
    return precision_of_places(places)


def sampled_average_precision(
    positives: int, total: int, *, size: int, seed: int
) -> Float64[ndarray, " lists"]:
    """Average precision of `size` random rank lists; a function of its arguments only."""
    generator = generator_for(seed, positives, total)
    height = max(1, SAMPLED_ENTRIES // total)
    heights = [min(height, size - start) for start in range(0, size, height)]
    parts = [precision_of_places(random_places(positives, total, rows, generator)) for rows in heights]
    return np.concatenate(parts)


def random_places(
    positives: int, total: int, rows: int, generator: np.random.Generator
) -> Int[ndarray, "lists positives"]:
    """Draw distinct places from 1 to `total`, ascending in each row."""
    if positives * positives > total:
        keys = generator.random((rows, total))
        return np.sort(np.argpartition(keys, positives - 1, axis=1)[:, :positives], axis=1) + 1
    # Few places among many: rows that drew a place twice are drawn again, which leaves all sets equally likely.
    places = np.sort(generator.integers(1, total + 1, (rows, positives)), axis=1)
    while (repeats := (np.diff(places, axis=1) == 0).any(axis=1)).any():
        places[repeats] = np.sort(generator.integers(1, total + 1, (repeats.sum(), positives)), axis=1)
    return places


def precision_of_places(places: Int[ndarray, "lists positives"]) -> Float64[ndarray, " lists"]:
    """Average precision of rank lists given by the ascending ranks of their positives, from 1."""
    return np.asarray(np.mean(np.arange(1, places.shape[1] + 1) / places, axis=1))


def benjamini_hochberg(p: Float64[ndarray, " groups"]) -> Float64[ndarray, " groups"]:
    """Adjust p-values so that calling all q < 0.05 keeps the expected share of false calls below 5 %."""
    order = np.argsort(p, kind="stable")
    ranked = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(ranked)
    adjusted[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1)
    return adjusted
