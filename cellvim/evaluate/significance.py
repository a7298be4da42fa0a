"""How surprising is a mean average precision? Exact where all rank lists can be counted, sampled elsewhere."""

import math
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, islice

import numpy as np
import polars as pl
from jaxtyping import Float64, Int, Integer
from numpy import ndarray

from cellvim.config.base import cores
from cellvim.statistics import generator_for

# A null value this close to the observed one equals it: their sums differ only in the order of addition.
FLOAT_SLACK = 1e-9
SAMPLED_ENTRIES = 2**22
KEPT_NULLS = 1024
"""Null distributions remembered at once: 80 MB of them, if each has 10,000 rank lists."""

Shapes = tuple[tuple[int, int, int], ...]
"""Positives, total and number of queries, for each pair of the first two."""


@dataclass(frozen=True)
class Significance:
    """Mean average precision of each group of queries, and how surprising it is.

    Args:
        mean: Mean over the queries of the group.
        p: (1 + random rank lists with a larger mean average precision) / (1 + random rank lists), in (0, 1].
        smallest_p: What the best possible ranking would have got: with few replicates it may exceed 0.05.
    """

    mean: Float64[ndarray, " groups"]
    p: Float64[ndarray, " groups"]
    smallest_p: Float64[ndarray, " groups"]


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
        self.of = lru_cache(KEPT_NULLS)(self._made)
        """Average precision of random rank lists for (positives, total), ascending."""

    def _made(self, positives: int, total: int) -> Float64[ndarray, " lists"]:
        if math.comb(total, positives) <= self.null_size:
            values = enumerated_average_precision(positives, total)
        else:
            values = sampled_average_precision(positives, total, size=self.null_size, seed=self.seed)
        return np.sort(values)

    def test(
        self,
        group: Int[ndarray, " queries"],
        average_precision: Float64[ndarray, " queries"],
        positives: Int[ndarray, " queries"],
        total: Int[ndarray, " queries"],
    ) -> Significance:
        """Compare the mean over each group's queries with the mean of their null distributions.

        Args:
            group: Group of each query; codes from 0, all of them used.
            average_precision: What each query reached.
            positives: Number of positives of each query.
            total: Number of its positives and negatives.
        """
        sizes = np.bincount(group)
        means = np.bincount(group, weights=average_precision) / sizes
        p, smallest_p = np.empty(sizes.size), np.empty(sizes.size)
        groups = groups_by_shapes(group, positives, total)
        self._make_side_by_side(groups)
        for shapes, members in groups.items():
            null = self.of_mean(shapes)
            larger = null.size - np.searchsorted(null, means[members] + FLOAT_SLACK, side="right")
            p[members], smallest_p[members] = (1 + larger) / (1 + null.size), 1 / (1 + null.size)
        return Significance(means, p, smallest_p)

    def _make_side_by_side(self, groups: Iterable[Shapes]) -> None:
        """Make the null distributions that will be asked for, one per core at a time.

        Each is a function of the seed and its own numbers, so that it does not matter which thread makes it.
        """
        wanted = dict.fromkeys((positives, total) for shapes in groups for positives, total, _ in shapes)
        if len(wanted) > 1:
            with ThreadPoolExecutor(cores()) as pool:
                deque(pool.map(lambda shape: self.of(*shape), islice(wanted, KEPT_NULLS)), maxlen=0)

    def of_mean(self, shapes: Shapes) -> Float64[ndarray, " lists"]:
        """Null distribution of a mean over queries, ascending.

        Queries of one perturbation rank the same wells against each other, so their average precisions rise
        and fall together. The null takes that to the full: the mean of the queries' quantiles, which for
        queries alike in (positives, total) is the null of a single query, as in copairs. That null spreads more than
        the truth: small p come out too large, middling ones (above about 0.2) too small, and none that could be
        called significant is too small by much (`docs/calibration.md`). Only strictly larger values count, so
        where the null has few of them (few replicates, few controls) p is a little too small, at most by the share
        of lists that equal the observed value. (For queries that differ in (positives, total), copairs averages
        independent samples instead, as if queries of one group had nothing to do with each other.)

        Args:
            shapes: Positives, total and number of queries, for each pair of the first two.
        """
        nulls = [self.of(positives, total) for positives, total, _ in shapes]
        if len(nulls) == 1:
            return nulls[0]
        size = max(null.size for null in nulls)
        level = (np.arange(size) + 0.5) / size
        quantiles = [null[(level * null.size).astype(int)] if null.size < size else null for null in nulls]
        return np.asarray(np.average(quantiles, axis=0, weights=[count for _, _, count in shapes]))


def groups_by_shapes(
    group: Int[ndarray, " queries"], positives: Int[ndarray, " queries"], total: Int[ndarray, " queries"]
) -> dict[Shapes, list[int]]:
    """Put groups together whose queries have the same numbers of positives and candidates."""
    rows = pl.DataFrame({"group": group, "positives": positives, "total": total})
    counts = rows.group_by("group", "positives", "total").len("queries").sort("group", "positives", "total")
    shapes: dict[int, list[tuple[int, int, int]]] = {}
    for code, *shape in counts.iter_rows():
        shapes.setdefault(code, []).append(tuple(shape))
    together: dict[Shapes, list[int]] = {}
    for code, own in shapes.items():
        # One shape has one null, however many queries have it.
        key = tuple(own) if len(own) > 1 else ((*own[0][:2], 1),)
        together.setdefault(key, []).append(code)
    return together


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
) -> Integer[ndarray, "lists positives"]:
    """Draw distinct places from 1 to `total`, ascending in each row; all sets are equally likely."""
    if 2 * positives > total:
        negatives = random_places(total - positives, total, rows, generator)
        is_positive = np.ones((rows, total + 1), bool)
        is_positive[np.arange(rows)[:, None], negatives] = False
        return np.nonzero(is_positive[:, 1:])[1].reshape(rows, positives) + 1
    # Whatever was drawn twice is drawn again. Which draws those are depends only on which are equal, never on where
    # they lie, so no set of places is favoured.
    # Short integers are drawn faster, and 32 bits sorted faster.
    drawn_as = np.uint16 if total < 2**16 else np.uint32
    places = generator.integers(1, total, (rows, positives), dtype=drawn_as, endpoint=True).astype(np.int32)
    places.sort(axis=1)
    flat = places.ravel()
    while True:
        repeat = np.flatnonzero(flat[1:] == flat[:-1]) + 1
        # The first place of a row repeats nothing, whatever the last one of the row before.
        repeat = repeat[repeat % positives != 0]
        if not repeat.size:
            return places
        flat[repeat] = generator.integers(1, total, repeat.size, endpoint=True)
        open_rows = np.unique(repeat // positives)
        places[open_rows] = np.sort(places[open_rows], axis=1)


def precision_of_places(places: Integer[ndarray, "lists positives"]) -> Float64[ndarray, " lists"]:
    """Average precision of rank lists given by the ascending ranks of their positives, from 1."""
    count = places.shape[1]
    return np.asarray((1 / places) @ (np.arange(1, count + 1) / count))


def benjamini_hochberg(p: Float64[ndarray, " groups"]) -> Float64[ndarray, " groups"]:
    """Adjust p-values so that calling all q < 0.05 keeps the expected share of false calls below 5 %."""
    order = np.argsort(p, kind="stable")
    ranked = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(ranked)
    adjusted[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1)
    return adjusted
