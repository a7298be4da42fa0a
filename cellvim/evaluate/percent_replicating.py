"""Percent replicating: do replicates correlate with each other more than wells of different perturbations?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Float64, Int
from numpy import ndarray

from cellvim.evaluate.intervals import mean_over_units
from cellvim.evaluate.nearest import BLOCK_ENTRIES, TIE_WIDTH
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval import unit_rows
from cellvim.evaluate.screen import Screen
from cellvim.profiles.schema import PERTURBATION
from cellvim.statistics import generator_for

QUANTILE = 0.95
NULL_GROUPS = 1000
# A threshold from smaller groups than the perturbation's is wider, so it errs towards "does not replicate".
LARGEST_GROUP = 64
MOST_REPLICATES = 1000
BINS = 40


@dataclass(frozen=True)
class NullGroups:
    """Median correlations in groups of wells of different perturbations.

    Args:
        similarity: Median of each group.
        weight: Probability of each group; they sum to 1.
    """

    similarity: Float64[ndarray, " groups"]
    weight: Float64[ndarray, " groups"]

    @property
    def threshold(self) -> float:
        """Smallest value that 95 % of the groups do not exceed."""
        order = np.argsort(self.similarity, kind="stable")
        reached = np.searchsorted(np.cumsum(self.weight[order]), QUANTILE - 1e-9)
        return float(self.similarity[order][min(int(reached), order.size - 1)])


def percent_replicating(screen: Screen) -> TaskResult:
    """Compare the median pairwise correlation of each perturbation's replicates with that of random groups.

    Pearson correlation over features, between treated wells wherever they lie: replicates on one plate count like
    those across plates. A perturbation replicates if its median lies above the 95th percentile of the medians of
    groups of the same size whose wells are all of different perturbations. Groups are drawn so that every
    perturbation is equally likely, and then every well of it: 1,000 of them for each size, or all there are, if
    they are no more.

    There are no groups of more wells than there are perturbations, and groups of more than 64 wells say little
    more: the threshold then comes from the largest groups there are (`null_size`), which is too high rather than
    too low. Of a perturbation with more than 1,000 wells, 1,000 drawn at random are compared.

    A legacy measure, kept for comparison with published numbers: it judges by a threshold that depends on what
    else is in the table. `activity` and `replicate_retrieval` come with p-values.

    Source:
        Way et al. 2022, "Morphology and gene expression profiling provide complementary information for mapping
        cell state"; Chandrasekaran et al. 2024, "Three million images and morphological profiles of cells treated
        with matched chemical and genetic perturbations".
    """
    groups = wells_by_perturbation(screen)
    replicated = {name: rows for name, rows in groups.items() if rows.size > 1}
    if not replicated:
        return TaskResult.not_done("percent_replicating", "no perturbation has a second well")
    if len(groups) < 2:
        reason = (
            "there is only one perturbation, so no wells of different ones to compare its replicates with"
        )
        return TaskResult.not_done("percent_replicating", reason)
    unit = centred_unit_rows(screen.normalized.features)
    if unit.shape[1] < 2:
        return TaskResult.not_done("percent_replicating", "wells with a single feature have no correlation")
    seed = screen.settings.seed
    sizes = {name: min(rows.size, len(groups), LARGEST_GROUP) for name, rows in replicated.items()}
    nulls = {
        size: null_groups(unit, list(groups.values()), size, seed) for size in sorted(set(sizes.values()))
    }
    table = perturbations_table(unit, replicated, sizes, nulls, seed)
    names = table[PERTURBATION].to_list()
    compound = np.unique([screen.compound_of.get(name, name) for name in names], return_inverse=True)[1]
    is_replicating = table["is_replicating"].cast(pl.Float64).to_numpy()
    metrics = {
        "perturbations": table.height,
        "without_replicates": len(groups) - len(replicated),
        "fraction_replicating": mean_over_units(
            is_replicating, compound, screen.settings, "percent_replicating/fraction"
        ).as_metric(),
        "chance": 1 - QUANTILE,
        "median_similarity": float(np.median(table["similarity"].to_numpy())),
        "smaller_null_groups": int((table["null_size"] < table["replicates"]).sum()),
    }
    return TaskResult("percent_replicating", metrics, {"": table, "histogram": histogram(table, nulls)})


def wells_by_perturbation(screen: Screen) -> dict[str, Int[ndarray, " _"]]:
    """Rows of the treated wells of each perturbation, sorted by name."""
    treated = np.flatnonzero(screen.wells.is_treated)
    names = screen.raw.metadata[PERTURBATION].cast(pl.String)[treated].to_list()
    found: dict[str, list[int]] = {}
    for row, name in zip(treated, names, strict=True):
        found.setdefault(name, []).append(int(row))
    return {name: np.array(found[name]) for name in sorted(found)}


def centred_unit_rows(features: Float[ndarray, "wells features"]) -> Float64[ndarray, "wells features"]:
    """Rows whose products are Pearson correlations; a row without spread correlates with nothing."""
    exact = features.astype(np.float64)
    centred = exact - exact.mean(axis=1, keepdims=True)
    # What rounding leaves of a constant row is not a direction.
    flat = np.abs(centred).max(axis=1, initial=0) <= 1e-12 * np.abs(exact).max(axis=1, initial=0)
    centred[flat] = 0
    return unit_rows(centred)


def null_groups(
    unit: Float64[ndarray, "wells features"], wells: list[Int[ndarray, " _"]], size: int, seed: int
) -> NullGroups:
    """Medians of groups of `size` wells of different perturbations: all groups where there are few, else a sample."""
    counts = np.array([rows.size for rows in wells])
    if number_of_groups(counts, size) <= NULL_GROUPS:
        members, weight = every_group(wells, size)
    else:
        members = random_groups(wells, size, generator_for(seed, "percent_replicating", size))
        weight = np.ones(len(members))
    return NullGroups(median_similarity(unit, members), weight / weight.sum())


def number_of_groups(counts: Int[ndarray, " perturbations"], size: int) -> int:
    """How many groups there are: the elementary symmetric polynomial of the counts, up to `NULL_GROUPS` + 1."""
    if math.comb(counts.size, size) > NULL_GROUPS:
        return NULL_GROUPS + 1
    ways = [1] + [0] * size
    for count in counts:
        for place in range(size, 0, -1):
            ways[place] += ways[place - 1] * int(count)
    return min(ways[size], NULL_GROUPS + 1)


def every_group(
    wells: list[Int[ndarray, " _"]], size: int
) -> tuple[Int[ndarray, "groups size"], Float64[ndarray, " groups"]]:
    """All groups, and how likely each is where first perturbations and then their wells are drawn."""

    def found() -> Iterator[tuple[tuple[int, ...], float]]:
        for chosen in combinations(wells, size):
            likely = 1 / math.prod(rows.size for rows in chosen)
            yield from ((group, likely) for group in product(*chosen))

    members, weight = zip(*found(), strict=True)
    return np.array(members), np.array(weight)


def random_groups(
    wells: list[Int[ndarray, " _"]], size: int, generator: np.random.Generator
) -> Int[ndarray, "groups size"]:
    """Draw groups: different perturbations, each equally likely, and one well of each."""
    together = np.concatenate(wells)
    counts = np.array([rows.size for rows in wells])
    starts = np.cumsum(counts) - counts
    chosen = np.stack([generator.choice(counts.size, size, replace=False) for _ in range(NULL_GROUPS)])
    nth = np.floor(generator.random(chosen.shape) * counts[chosen]).astype(np.int64)
    return np.asarray(together[starts[chosen] + nth])


def median_similarity(
    unit: Float64[ndarray, "wells features"], members: Int[ndarray, "groups size"]
) -> Float64[ndarray, " groups"]:
    """Median over the pairs of wells in each group, a bounded number of groups at a time."""
    size = members.shape[1]
    first, second = np.triu_indices(size, k=1)
    found = np.empty(len(members))
    step = max(1, BLOCK_ENTRIES // (size * max(size, unit.shape[1])))
    for start in range(0, len(members), step):
        profiles = unit[members[start : start + step]]
        similarity = profiles @ profiles.transpose(0, 2, 1)
        found[start : start + step] = np.median(similarity[:, first, second], axis=1)
    return found


def perturbations_table(
    unit: Float64[ndarray, "wells features"],
    replicated: Mapping[str, Int[ndarray, " _"]],
    sizes: Mapping[str, int],
    nulls: Mapping[int, NullGroups],
    seed: int,
) -> pl.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for name, wells in replicated.items():
        similarity = float(median_similarity(unit, some_of(wells, seed, name)[None])[0])
        threshold = nulls[sizes[name]].threshold
        rows.append(
            (name, wells.size, sizes[name], similarity, threshold, similarity > threshold + TIE_WIDTH)
        )
    schema = {PERTURBATION: pl.String, "replicates": pl.Int64, "null_size": pl.Int64}
    schema |= {"similarity": pl.Float64, "threshold": pl.Float64, "is_replicating": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def some_of(wells: Int[ndarray, " wells"], seed: int, name: str) -> Int[ndarray, " some"]:
    if wells.size <= MOST_REPLICATES:
        return wells
    return np.sort(generator_for(seed, "replicates", name).choice(wells, MOST_REPLICATES, replace=False))


def histogram(table: pl.DataFrame, nulls: Mapping[int, NullGroups]) -> pl.DataFrame:
    """Replicate and null similarities in equal bins.

    `count` is of perturbations or of random groups. `share` makes the two comparable: each adds up to 1, and null
    groups of a size weigh as much as the perturbations that are judged by them.
    """
    every = [table["similarity"].to_numpy(), *(null.similarity for null in nulls.values())]
    low = math.floor(min(values.min() for values in every) * 20) / 20
    high = max(math.ceil(max(values.max() for values in every) * 20) / 20, low + 1 / 20)
    edges = np.linspace(low, high, BINS + 1)
    shares = {size: (table["null_size"] == size).mean() for size in nulls}
    weights = np.concatenate([null.weight * shares[size] for size, null in nulls.items()])
    content = {
        "replicates": (every[0], np.full(table.height, 1 / table.height)),
        "null": (np.concatenate(every[1:]), weights),
    }
    return pl.concat(
        pl.DataFrame(
            {
                "kind": [kind] * BINS,
                "low": edges[:-1],
                "high": edges[1:],
                "count": np.histogram(values, edges)[0],
                "share": np.histogram(values, edges, weights=weight)[0],
            }
        )
        for kind, (values, weight) in content.items()
    )
