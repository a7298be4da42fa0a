"""Recall of known relationships: do pairs that belong together lie in the tails of all similarities?"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from cellvim.config import EvaluateSettings
from cellvim.evaluate.intervals import mean_over_pairs
from cellvim.evaluate.nearest import BLOCK_ENTRIES, TIE_WIDTH
from cellvim.evaluate.relations import Relations, read_relations
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval import unit_rows
from cellvim.evaluate.screen import Screen
from cellvim.profiles import consensus
from cellvim.profiles.schema import PERTURBATION, shortened
from cellvim.statistics import Estimate, generator_for

TAIL = 0.05
# Fewer pairs than this, and no pair can lie among the closest 5 %.
FEWEST_PAIRS = round(1 / TAIL)
SHUFFLES = 10
MOST_SOURCES = 50
COMPOUND = "compound"


@dataclass(frozen=True)
class Level:
    """Consensus profiles among which pairs are placed.

    Args:
        name: ``perturbation`` or ``compound``.
        row: Row of each profile by its name.
        features: One row per profile.
    """

    name: str
    row: dict[str, int]
    features: Float[ndarray, "profiles features"]

    @property
    def pairs(self) -> int:
        """Number of pairs of different profiles."""
        return len(self.row) * (len(self.row) - 1) // 2


@dataclass(frozen=True)
class Placed:
    """Where some pairs lie among all pairs of their level.

    Args:
        similarity: Cosine.
        percentile: Share of all pairs that are less similar, a tie counting half, in [0, 1].
        is_recalled: The pair and all that is less similar, or all that is more, make up 5 % at most; ties count
            against it.
    """

    similarity: Float64[ndarray, " pairs"]
    percentile: Float64[ndarray, " pairs"]
    is_recalled: Bool[ndarray, " pairs"]


def recall(screen: Screen) -> TaskResult:
    """Say which share of a user's known pairs is among the 5 % least or 5 % most similar of all pairs.

    Similarity is the cosine of consensus profiles of treated wells. A pair whose names are both perturbations is
    placed among all pairs of perturbations; else, if both are compounds, among all pairs of compounds, doses
    averaged. Ranks are exact: similarities are counted block by block, and never all held at once.

    The interval is a bootstrap over perturbations: a pair counts as often as both of its ends are drawn, one draw
    times the other. Pairs of one perturbation succeed and fail together, which a bootstrap over pairs would not
    know; where no perturbation is in two pairs this one is too wide rather than too narrow.

    Raises:
        NotFoundError: The file of relations is not there.
        InputError: It is not a table of pairs.

    Source:
        Celik et al. 2024, "Building, benchmarking, and exploring perturbative maps of transcriptional and
        morphological data" (EFAAR).
    """
    path = screen.settings.relations
    if path is None:
        reason = "no known relationships were given: pass a file of pairs by --relations"
        return TaskResult.not_done("recall", reason)
    levels = levels_of(screen)
    known = set(chain.from_iterable(level.row for level in levels))
    relations = read_relations(path, known)
    usable = usable_pairs(relations.pairs, levels)
    if usable.is_empty():
        return TaskResult.not_done("recall", reason_against(path, relations, levels))
    table, shuffled = placed_table(usable, levels, screen.settings.seed)
    metrics = counts_of(relations, usable, known) | recalls(table, screen.settings)
    size = {level.name: level.pairs for level in levels}
    chances = [2 * int(TAIL * size[name] + 1e-9) / size[name] for name in once_each(table)["level"]]
    metrics |= {"chance": float(np.mean(chances)), "shuffled": shuffled}
    return TaskResult("recall", metrics, {"": table})


def levels_of(screen: Screen) -> tuple[Level, ...]:
    treated = screen.treated(screen.compounds.alias(COMPOUND))
    found = []
    for name, column in (("perturbation", PERTURBATION), ("compound", COMPOUND)):
        profiles = consensus(treated, [column], screen.settings.consensus)
        names = profiles.metadata[column].cast(pl.String).to_list()
        found.append(Level(name, {name: row for row, name in enumerate(names)}, profiles.features))
    return tuple(found)


def usable_pairs(pairs: pl.DataFrame, levels: tuple[Level, ...]) -> pl.DataFrame:
    """Pairs with a `level` at which both names have a profile, the first such level; the others are left out."""
    is_known = [
        pl.col("first").is_in(list(level.row)) & pl.col("second").is_in(list(level.row))
        if level.pairs >= FEWEST_PAIRS
        else pl.lit(value=False)
        for level in levels
    ]
    choice = pl.coalesce(
        pl.when(known).then(pl.lit(level.name)) for known, level in zip(is_known, levels, strict=True)
    )
    return pairs.with_columns(choice.alias("level")).filter(pl.col("level").is_not_null())


def reason_against(path: Path, relations: Relations, levels: tuple[Level, ...]) -> str:
    if all(level.pairs < FEWEST_PAIRS for level in levels):
        return (
            f"the table has fewer than {FEWEST_PAIRS} pairs of perturbations: none can be among 5 % of them"
        )
    wanted = shortened(sorted({*relations.pairs["first"], *relations.pairs["second"]}), most=3)
    there = shortened(list(levels[0].row), most=3)
    return f"no pair in {path.name} names two perturbations or compounds of the table: it has {wanted}; the table {there}"


def placed_table(pairs: pl.DataFrame, levels: tuple[Level, ...], seed: int) -> tuple[pl.DataFrame, float]:
    """Place every pair, and the same pairs with names dealt out anew; returns the share of the latter recalled."""
    parts, shuffled = [], []
    for level in levels:
        own = pairs.filter(pl.col("level") == level.name)
        if own.is_empty():
            continue
        ends = np.array([[level.row[name] for name in own[end]] for end in ("first", "second")])
        shuffles = max(1, min(SHUFFLES, BLOCK_ENTRIES // (4 * own.height)))
        generator = generator_for(seed, "recall", "shuffled", level.name)
        orders = [generator.permutation(len(level.row)) for _ in range(shuffles)]
        every = np.concatenate([ends, *(order[ends] for order in orders)], axis=1)
        placed = place_pairs(level.features, every[0], every[1])
        real = slice(0, own.height)
        parts.append(
            own.with_columns(
                pl.Series("similarity", placed.similarity[real]),
                pl.Series("percentile", placed.percentile[real]),
                pl.Series("is_recalled", placed.is_recalled[real]),
            )
        )
        shuffled.append((own.height, placed.is_recalled[own.height :].mean()))
    sizes, shares = zip(*shuffled, strict=True)
    return pl.concat(parts).sort("first", "second", "source"), float(np.average(shares, weights=sizes))


def place_pairs(
    features: Float[ndarray, "profiles features"],
    first: Int[ndarray, " pairs"],
    second: Int[ndarray, " pairs"],
) -> Placed:
    """Rank some pairs among all pairs of profiles, exactly, a block of similarities at a time."""
    unit = unit_rows(features.astype(np.float64))
    similarity = pair_cosines(unit, first, second)
    order = np.argsort(similarity)
    wanted = similarity[order]
    less, at_most = np.zeros(wanted.size, np.int64), np.zeros(wanted.size, np.int64)
    height = max(1, BLOCK_ENTRIES // len(unit))
    for start in range(0, len(unit), height):
        cosine = unit[start : start + height] @ unit[start:].T
        # Each pair once: neither with itself nor the other way round.
        rows, columns = (np.arange(size) for size in cosine.shape)
        cosine[rows[:, None] >= columns] = np.inf
        ordered = np.sort(cosine, axis=None)
        less += np.searchsorted(ordered, wanted - TIE_WIDTH)
        at_most += np.searchsorted(ordered, wanted + TIE_WIDTH, side="right")
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    total = len(unit) * (len(unit) - 1) / 2
    is_low = at_most <= TAIL * total + 1e-9
    is_high = less >= (1 - TAIL) * total - 1e-9
    return Placed(similarity, ((less + at_most) / (2 * total))[back], (is_low | is_high)[back])


def pair_cosines(
    unit: Float64[ndarray, "profiles features"], first: Int[ndarray, " pairs"], second: Int[ndarray, " pairs"]
) -> Float64[ndarray, " pairs"]:
    found = np.empty(first.size)
    step = max(1, BLOCK_ENTRIES // max(1, unit.shape[1]))
    for start in range(0, first.size, step):
        at = slice(start, start + step)
        found[at] = np.einsum("pf,pf->p", unit[first[at]], unit[second[at]])
    return found


def counts_of(relations: Relations, usable: pl.DataFrame, known: set[str]) -> dict[str, int]:
    named = {*relations.pairs["first"], *relations.pairs["second"]}
    return {
        "pairs": once_each(usable).height,
        "pairs_without_profiles": once_each(relations.pairs).height - once_each(usable).height,
        "unknown_names": len(named - known),
        "self_pairs": relations.self_pairs,
        "doubled_pairs": relations.doubled,
        "incomplete_pairs": relations.incomplete,
    }


def once_each(pairs: pl.DataFrame) -> pl.DataFrame:
    """One row per pair, whatever number of sources knows it."""
    return pairs.unique(["first", "second"], keep="first", maintain_order=True)


def recalls(table: pl.DataFrame, settings: EvaluateSettings) -> dict[str, Any]:
    """Recall over all pairs, and per source unless there are so many that the column must be something else."""
    found: dict[str, Any] = {"recall": recall_of(once_each(table), settings, "recall").as_metric()}
    sources = table["source"].drop_nulls().unique().sort().to_list()
    if not sources or len(sources) > MOST_SOURCES:
        return found | ({"too_many_sources": len(sources)} if sources else {})
    found["sources"] = {}
    for source in sources:
        own = table.filter(pl.col("source") == source)
        estimate = recall_of(own, settings, f"recall/{source}")
        found["sources"][source] = {"recall": estimate.as_metric(), "pairs": own.height}
    return found


def recall_of(pairs: pl.DataFrame, settings: EvaluateSettings, name: str) -> Estimate:
    """Share of pairs recalled, with an interval by drawing perturbations."""
    ends = pairs.select(pl.concat_str("level", end, separator="\t").alias(end) for end in ("first", "second"))
    codes = np.unique(ends.to_numpy().astype(str), return_inverse=True)[1].reshape(pairs.height, 2)
    return mean_over_pairs(pairs["is_recalled"].cast(pl.Float64).to_numpy(), codes, settings, name)
