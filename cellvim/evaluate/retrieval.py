"""Perturbation retrieval: do the replicates of a perturbation find each other among other wells?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

RetrievalTask = Literal["activity", "distinctiveness", "replicate_retrieval"]

# Closer than this, two similarities are one: what rounding may part is a tie, and ties count as the worst order.
TIE_WIDTH = 1e-12
BLOCK_ENTRIES = 2**22


@dataclass(frozen=True)
class WellLabels:
    """What retrieval needs to know of each well, as integer codes.

    Args:
        plate: Code of the plate.
        perturbation: Code of the perturbation; -1 where a well takes no part (empty, or not in the plate map).
        is_control: Negative controls: never queries, never positives.
    """

    plate: Int[ndarray, " wells"]
    perturbation: Int[ndarray, " wells"]
    is_control: Bool[ndarray, " wells"]

    @property
    def takes_part(self) -> Bool[ndarray, " wells"]:
        return np.asarray(self.perturbation >= 0)

    @property
    def is_treated(self) -> Bool[ndarray, " wells"]:
        return np.asarray(self.takes_part & ~self.is_control)


@dataclass(frozen=True)
class Space:
    """Profiles as one fit of the normalisation sees them.

    A control that took part in a fit sits closer to the middle than it would otherwise, and loses to every
    perturbation, active or not. So where the fit is flexible, each control is judged in a space that was
    fitted without it: several spaces, each with the wells it may judge.

    Args:
        features: One row per well. A row of zeros is equally far from everything.
        judged: Wells that count as negatives here; a positive's rank is counted over all spaces.
    """

    features: Float[ndarray, "wells features"]
    judged: Bool[ndarray, " wells"]

    @classmethod
    def whole(cls, features: Float[ndarray, "wells features"]) -> "Space":
        """One space for all wells."""
        return cls(features, np.ones(len(features), bool))


@dataclass(frozen=True)
class QueryScores:
    """Average precision of each query that has both a positive and a negative candidate.

    Args:
        well: Row of the query, ascending.
        average_precision: Value in (0, 1].
        positives: Number of positives P.
        total: Number of positives and negatives together.
        dropped: Number of queries left out, for want of a positive or a negative.
    """

    well: Int[ndarray, " queries"]
    average_precision: Float64[ndarray, " queries"]
    positives: Int[ndarray, " queries"]
    total: Int[ndarray, " queries"]
    dropped: int

    @property
    def normalized(self) -> Float64[ndarray, " queries"]:
        """Share of the way from chance (0) to a perfect order (1); below 0 if worse than chance."""
        chance = expected_average_precision(self.positives, self.total)
        return np.asarray((self.average_precision - chance) / (1 - chance))


def score_queries(spaces: Sequence[Space], labels: WellLabels, task: RetrievalTask) -> QueryScores:
    """Rank all candidates of every query by cosine similarity and take the average precision.

    ``activity``: same perturbation, against the negative controls of the same plate.
    ``distinctiveness``: same perturbation, against other perturbations of the same plate (controls left out).
    ``replicate_retrieval``: same perturbation on another plate, against every well of another perturbation,
    controls included. The query itself is never a candidate.

    Memory: one block of similarities at a time, whatever the number of wells.

    Args:
        spaces: Where similarities are measured; usually one. See `Space` for why there may be several.
        labels: What was done to each well, and where.
        task: Which wells are positives, which negatives.
    """
    units = [Space(unit_rows(space.features.astype(np.float64)), space.judged) for space in spaces]
    queries = np.flatnonzero(labels.is_treated)
    values = np.full(queries.size, np.nan)
    positives, negatives = np.zeros(queries.size, np.int64), np.zeros(queries.size, np.int64)
    for at in blocks(labels.plate[queries], width=labels.plate.size):
        pairs = positive_pairs(labels, queries[at], task)
        columns, is_negative = negative_wells(labels, queries[at], task)
        above = np.zeros(pairs.partner.size, np.int64)
        for space in units:
            is_judged = is_negative & space.judged[columns]
            if is_judged.any():
                above += count_above(space.features, queries[at], pairs, columns, is_judged)
        positives[at] = np.bincount(pairs.query, minlength=at.size)
        negatives[at] = is_negative.sum(axis=1)
        values[at] = mean_precision(pairs.query, above, positives[at])
    is_scored = (positives > 0) & (negatives > 0)
    return QueryScores(
        well=queries[is_scored],
        average_precision=values[is_scored],
        positives=positives[is_scored],
        total=(positives + negatives)[is_scored],
        dropped=int(queries.size - is_scored.sum()),
    )


def unit_rows(features: Float[ndarray, "wells features"]) -> Float[ndarray, "wells features"]:
    """Scale each row to length 1, so that a product of two rows is their cosine; zeros stay zeros."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1).astype(features.dtype))


def blocks(plate: Int[ndarray, " queries"], *, width: int) -> Iterator[Int[ndarray, " block"]]:
    """Cut queries into blocks of one plate and at most `BLOCK_ENTRIES` similarities each."""
    height = max(1, BLOCK_ENTRIES // width)
    for code in np.unique(plate):
        members = np.flatnonzero(plate == code)
        for start in range(0, members.size, height):
            yield members[start : start + height]


@dataclass(frozen=True)
class Pairs:
    """Positives of a block: `query` is a position in the block, ascending; `partner` is a well."""

    query: Int[ndarray, " pairs"]
    partner: Int[ndarray, " pairs"]


def positive_pairs(labels: WellLabels, queries: Int[ndarray, " queries"], task: RetrievalTask) -> Pairs:
    """Pair each query with every other treated well of its perturbation that the task allows."""
    treated = np.flatnonzero(labels.is_treated)
    treated = treated[np.argsort(labels.perturbation[treated], kind="stable")]
    codes, wanted = labels.perturbation[treated], labels.perturbation[queries]
    starts = np.searchsorted(codes, wanted)
    counts = np.searchsorted(codes, wanted, side="right") - starts
    query = np.repeat(np.arange(queries.size), counts)
    nth = np.arange(query.size) - np.repeat(np.cumsum(counts) - counts, counts)
    partner = treated[np.repeat(starts, counts) + nth]
    is_allowed = partner != queries[query]
    if task == "replicate_retrieval":
        is_allowed &= labels.plate[partner] != labels.plate[queries[query]]
    return Pairs(query[is_allowed], partner[is_allowed])


def negative_wells(
    labels: WellLabels, queries: Int[ndarray, " queries"], task: RetrievalTask
) -> tuple[Int[ndarray, " columns"], Bool[ndarray, "queries columns"]]:
    """Wells that are negatives of some query of a plate's block, and of which."""
    is_same_plate = labels.plate == labels.plate[queries[0]]
    takes_part = {
        "activity": labels.is_control & is_same_plate,
        "distinctiveness": labels.is_treated & is_same_plate,
        "replicate_retrieval": labels.is_treated | labels.is_control,
    }
    columns = np.flatnonzero(takes_part[task])
    is_other = labels.perturbation[queries, None] != labels.perturbation[columns]
    return columns, is_other | labels.is_control[columns]


def count_above(
    unit: Float[ndarray, "wells features"],
    queries: Int[ndarray, " queries"],
    pairs: Pairs,
    columns: Int[ndarray, " columns"],
    is_negative: Bool[ndarray, "queries columns"],
) -> Int[ndarray, " pairs"]:
    """Count, for each positive, the negatives at least as similar to the query."""
    found = pair_similarity(unit, queries[pairs.query], pairs.partner) - TIE_WIDTH
    similarity = unit[queries] @ unit[columns].T
    similarity[~is_negative] = -np.inf
    similarity.sort(axis=1)
    above = np.empty(found.size, np.int64)
    borders = np.searchsorted(pairs.query, np.arange(queries.size + 1))
    for row, (start, stop) in enumerate(pairwise(borders)):
        above[start:stop] = columns.size - np.searchsorted(similarity[row], found[start:stop])
    return above


def pair_similarity(
    unit: Float[ndarray, "wells features"], left: Int[ndarray, " pairs"], right: Int[ndarray, " pairs"]
) -> Float[ndarray, " pairs"]:
    """Cosine of each pair, a bounded number of pairs at a time."""
    found = np.empty(left.size, unit.dtype)
    step = max(1, BLOCK_ENTRIES // unit.shape[1])
    for start in range(0, left.size, step):
        at = slice(start, start + step)
        found[at] = np.einsum("pf,pf->p", unit[left[at]], unit[right[at]])
    return found


def mean_precision(
    query: Int[ndarray, " pairs"], above: Int[ndarray, " pairs"], positives: Int[ndarray, " queries"]
) -> Float64[ndarray, " queries"]:
    """Average over a query's positives of k / rank, the k-th positive ranking after k - 1 others; NaN if none."""
    ordered = above[np.lexsort((above, query))]
    nth = np.arange(query.size) - np.repeat(np.cumsum(positives) - positives, positives) + 1
    sums = np.bincount(query, weights=nth / (nth + ordered), minlength=positives.size)
    return np.where(positives > 0, sums / np.maximum(positives, 1), np.nan)


def average_precision(similarity: Float[ndarray, " wells"], relevant: Bool[ndarray, " wells"]) -> float:
    """Mean precision at the rank of each relevant candidate, most similar first: what `score_queries` is judged by.

    Ties count as the worst order (relevant last), so a collapsed embedding cannot score well by luck.

    Args:
        similarity: Cosine similarity of every candidate well to the query well, in [-1, 1].
        relevant: True where the candidate shares the query's perturbation.

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
    query = np.zeros(above.size, np.int64)
    return float(mean_precision(query, above, np.array([above.size]))[0])


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
