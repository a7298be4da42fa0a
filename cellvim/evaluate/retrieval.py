"""Retrieval by cosine: does a well find those that belong with it, among those that do not?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from cellvim.evaluate.precision import TIE_WIDTH, expected_average_precision, mean_precision, runs

BLOCK_ENTRIES = 2**22
"""Similarities held at once, whatever the number of wells: 32 MiB."""


@dataclass(frozen=True)
class Question:
    """Whom should a unit find, and among whom? Units are wells, or perturbations with a profile of their own.

    A unit asks once for each group that it is a member of: its perturbation, or each of its labels. Positives are
    the other members that are not of its kin and differ from it in all of `apart`. Negatives are the candidates
    of its arena outside all of its groups and its kin. All others are neither.

    Args:
        member: Unit of each membership, in any order, each pair of unit and group once.
        group: Group of each membership.
        kin: Code of each unit; a unit is of its own kin.
        apart: More codes, one row each, that differ between a unit and its positives, such as the plate.
        is_candidate: Units that can be negatives.
        arena: Code of each unit, where its negatives lie, such as the plate.
    """

    member: Int[ndarray, " memberships"]
    group: Int[ndarray, " memberships"]
    kin: Int[ndarray, " units"]
    apart: Int[ndarray, "codes units"]
    is_candidate: Bool[ndarray, " units"]
    arena: Int[ndarray, " units"]

    def is_positive(
        self, queries: Int[ndarray, " queries"], members: Int[ndarray, " members"]
    ) -> Bool[ndarray, "queries members"]:
        """Which members of a query's group are its positives."""
        differs = self.kin[queries, None] != self.kin[members]
        for codes in self.apart:
            differs &= codes[queries, None] != codes[members]
        return np.asarray(differs)


@dataclass(frozen=True)
class Space:
    """Profiles as one fit of the normalisation sees them.

    A control that took part in a fit sits closer to the middle than it would otherwise, and loses to every
    perturbation, active or not. So where the fit is flexible, each control is judged in a space that was
    fitted without it: several spaces, each with the units it may judge.

    Args:
        features: One row per unit. A row of zeros is equally far from everything.
        judged: Units that count as negatives here; a positive's rank is counted over all spaces.
    """

    features: Float[ndarray, "units features"]
    judged: Bool[ndarray, " units"]

    @classmethod
    def whole(cls, features: Float[ndarray, "units features"]) -> "Space":
        """One space for all units."""
        return cls(features, np.ones(len(features), bool))

    @cached_property
    def rows(self) -> Float64[ndarray, "units features"]:
        """Features in double precision, each row of length 1."""
        return unit_rows(self.features.astype(np.float64))


@dataclass(frozen=True)
class QueryScores:
    """Average precision of each query that has both a positive and a negative, in the order of memberships.

    Args:
        unit: Who asked.
        group: For which of its groups.
        average_precision: Value in (0, 1].
        positives: Number of positives P.
        total: Number of positives and negatives together.
        dropped: Number of queries left out, for want of a positive or a negative.
    """

    unit: Int[ndarray, " queries"]
    group: Int[ndarray, " queries"]
    average_precision: Float64[ndarray, " queries"]
    positives: Int[ndarray, " queries"]
    total: Int[ndarray, " queries"]
    dropped: int

    @property
    def normalized(self) -> Float64[ndarray, " queries"]:
        """Share of the way from chance (0) to a perfect order (1); below 0 if worse than chance."""
        chance = expected_average_precision(self.positives, self.total)
        return np.asarray((self.average_precision - chance) / (1 - chance))


def score_queries(spaces: Iterable[Space], question: Question) -> QueryScores:
    """Rank positives and negatives of every query by cosine similarity and take the average precision.

    Memory: a block of similarities and a block of positives at a time, and one space, if they come one by one.

    Args:
        spaces: Where similarities are measured, usually one; iterated once per block of positives.
        question: Who asks, whom they should find, and among whom.
    """
    memberships = Memberships(question)
    values = np.empty(question.member.size)
    positives = np.empty(question.member.size, np.int64)
    negatives = np.empty(question.member.size, np.int64)
    for start, stop in memberships.portions():
        portion = Portion(memberships, start, stop)
        for space in spaces:
            portion.rank(space)
        at = memberships.order[start:stop]
        values[at] = mean_precision(portion.above, portion.positives)
        positives[at], negatives[at] = portion.positives, portion.negatives
    is_scored = (positives > 0) & (negatives > 0)
    return QueryScores(
        unit=question.member[is_scored],
        group=question.group[is_scored],
        average_precision=values[is_scored],
        positives=positives[is_scored],
        total=(positives + negatives)[is_scored],
        dropped=int(is_scored.size - is_scored.sum()),
    )


class Memberships:
    """The memberships of a question group after group, and indices from units to what is not their negative."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.order = np.lexsort((question.member, question.group))
        self.unit, group = question.member[self.order], question.group[self.order]
        self.first = np.searchsorted(group, group)
        """Where the group of each membership begins; its `size` members follow each other."""
        self.size = np.searchsorted(group, group, side="right") - self.first
        self._by_unit = np.argsort(self.unit, kind="stable")
        self._by_kin = np.argsort(question.kin, kind="stable")
        kin = question.kin[self._by_kin]
        kin_count = np.searchsorted(kin, question.kin, side="right") - np.searchsorted(kin, question.kin)
        in_groups = np.bincount(self.unit, weights=self.size, minlength=question.kin.size)
        self.related_count = kin_count + in_groups.astype(np.int64)
        """Number of pairs that `related` gives for each unit."""

    def portions(self) -> Iterator[tuple[int, int]]:
        """Cut memberships into runs of about `BLOCK_ENTRIES` pairs of a query and a member of its group."""
        yield from blocks_of(self.size)

    def related(
        self, units: Int[ndarray, " asking"]
    ) -> tuple[Int[ndarray, " pairs"], Int[ndarray, " pairs"]]:
        """Pairs of a place in `units` and a unit of the same kin or of a common group; some come twice."""
        kin, sorted_kin = self.question.kin[units], self.question.kin[self._by_kin]
        kin_start = np.searchsorted(sorted_kin, kin)
        kin_count = np.searchsorted(sorted_kin, kin, side="right") - kin_start
        start = np.searchsorted(self.unit, units, sorter=self._by_unit)
        count = np.searchsorted(self.unit, units, side="right", sorter=self._by_unit) - start
        own = self._by_unit[runs(start, count)]
        asking = np.repeat(np.arange(units.size), count)
        return (
            np.concatenate([np.repeat(np.arange(units.size), kin_count), np.repeat(asking, self.size[own])]),
            np.concatenate(
                [self._by_kin[runs(kin_start, kin_count)], self.unit[runs(self.first[own], self.size[own])]]
            ),
        )


class Portion:
    """A run of memberships while their positives are ranked.

    Attributes:
        positives: Number of positives of each membership.
        negatives: Number of negatives met so far.
        above: For each positive, membership after membership, the negatives at least as similar to the query.
    """

    def __init__(self, memberships: Memberships, start: int, stop: int) -> None:
        self.memberships = memberships
        self.unit = memberships.unit[start:stop]
        self._groups = list(self._pairs(start, stop))
        self.positives = np.concatenate([is_positive.sum(axis=1) for _, _, is_positive in self._groups])
        self.negatives = np.zeros(self.unit.size, np.int64)
        self.above = np.zeros(int(self.positives.sum()), np.int64)

    def _pairs(
        self, start: int, stop: int
    ) -> Iterator[
        tuple[Int[ndarray, " queries"], Int[ndarray, " members"], Bool[ndarray, "queries members"]]
    ]:
        """Queries and members of each group, and which of the members are positives."""
        groups, begins = np.unique(self.memberships.first[start:stop], return_index=True)
        ends = [*begins[1:].tolist(), self.unit.size]
        for first, begin, end in zip(groups.tolist(), begins.tolist(), ends, strict=True):
            queries = self.unit[begin:end]
            members = self.memberships.unit[first : first + self.memberships.size[start + begin]]
            yield queries, members, self.memberships.question.is_positive(queries, members)

    def rank(self, space: Space) -> None:
        """Count the negatives that a space judges, and those of them that rank before each positive."""
        question, rows = self.memberships.question, space.rows
        similarity = [
            (rows[queries] @ rows[members].T)[is_positive] for queries, members, is_positive in self._groups
        ]
        lowest = np.concatenate(similarity) - TIE_WIDTH
        arena = question.arena[self.unit]
        for code in np.unique(arena):
            pool = np.flatnonzero(question.is_candidate & space.judged & (question.arena == code))
            if pool.size:
                self._rank_among(pool, rows, np.flatnonzero(arena == code), lowest)

    def _rank_among(
        self,
        pool: Int[ndarray, " pool"],
        rows: Float64[ndarray, "units features"],
        places: Int[ndarray, " places"],
        lowest: Float64[ndarray, " pairs"],
    ) -> None:
        """Rank the positives of some memberships among the same candidates, a block of units at a time."""
        begins = np.cumsum(self.positives) - self.positives
        column = np.full(len(rows), -1)
        column[pool] = np.arange(pool.size)
        candidates = rows[pool].T
        units, unit_of_place = np.unique(self.unit[places], return_inverse=True)
        places = places[np.argsort(unit_of_place, kind="stable")]
        unit_of_place = np.sort(unit_of_place)
        for start, stop in blocks_of(pool.size + self.memberships.related_count[units]):
            block = units[start:stop]
            similarity = rows[block] @ candidates
            asking, related = self.memberships.related(block)
            is_here = column[related] >= 0
            similarity[asking[is_here], column[related[is_here]]] = -np.inf
            similarity.sort(axis=1)
            at = slice(*np.searchsorted(unit_of_place, [start, stop]))
            own, row = places[at], unit_of_place[at] - start
            self.negatives[own] += np.isfinite(similarity).sum(axis=1)[row]
            pairs = runs(begins[own], self.positives[own])
            row_of_pair = np.repeat(row, self.positives[own])
            self.above[pairs] += pool.size - smaller_in_row(similarity, row_of_pair, lowest[pairs])


def blocks_of(entries: Int[ndarray, " items"]) -> Iterator[tuple[int, int]]:
    """Cut items into runs of about `BLOCK_ENTRIES` entries, or single items that have more."""
    if not entries.size:
        return
    before = np.cumsum(entries) - entries
    borders = np.flatnonzero(np.diff(before // BLOCK_ENTRIES)) + 1
    starts = [0, *borders.tolist()]
    yield from zip(starts, [*starts[1:], entries.size], strict=True)


def smaller_in_row(
    ascending: Float64[ndarray, "rows columns"],
    row: Int[ndarray, " values"],
    value: Float64[ndarray, " values"],
) -> Int[ndarray, " values"]:
    """How many entries of its row are smaller than each value: `searchsorted`, for all rows at once."""
    low = np.zeros(value.size, np.int64)
    high = np.full(value.size, ascending.shape[1])
    flat, begin = ascending.ravel(), row * ascending.shape[1]
    for _ in range(ascending.shape[1].bit_length()):
        middle = (low + high) // 2
        is_open = low < high
        is_smaller = is_open & (flat[begin + np.minimum(middle, ascending.shape[1] - 1)] < value)
        low = np.where(is_smaller, middle + 1, low)
        high = np.where(is_open & ~is_smaller, middle, high)
    return low


def unit_rows(features: Float[ndarray, "units features"]) -> Float[ndarray, "units features"]:
    """Scale each row to length 1, so that a product of two rows is their cosine; zeros stay zeros."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1).astype(features.dtype))
