"""Three measures of how well groups of wells explain their profiles; each is linear in wells but the neighbours."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy import ndarray

from cellvim.config import EvaluateSettings
from cellvim.evaluate.nearest import BLOCK_ENTRIES, TIE_WIDTH, Rule, nearest_blocks
from cellvim.evaluate.retrieval import unit_rows
from cellvim.statistics import Estimate, resampled_counts


def nearest_agreement(
    features: Float[ndarray, "wells features"],
    group: Int[ndarray, " wells"],
    may_find: Rule,
    queries: Int[ndarray, " queries"] | None = None,
) -> tuple[Float64[ndarray, " wells"], Float64[ndarray, " wells"]]:
    """For each well, whether the nearest well it may find is of its own group, and how likely that is by chance.

    Where several are equally near, the share of them. A well that may find only its own group, or only others,
    says nothing: NaN, like one that does not ask.

    Args:
        features: One row per well.
        group: Code of what the neighbour is to agree in.
        may_find: Which wells may be found by some of them.
        queries: Which wells ask; all of them if absent.
    """
    found, chance = np.full(len(features), np.nan), np.full(len(features), np.nan)
    for block in nearest_blocks(features, may_find, queries):
        is_own = group[block.rows, None] == group
        candidates = np.maximum(block.allowed.sum(axis=1), 1)
        ties = np.maximum(block.tied.sum(axis=1), 1)
        found[block.rows] = (block.tied & is_own).sum(axis=1) / ties
        chance[block.rows] = (block.allowed & is_own).sum(axis=1) / candidates
    is_open = (chance > 0) & (chance < 1)
    return np.where(is_open, found, np.nan), np.where(is_open, chance, np.nan)


def silhouettes(
    features: Float[ndarray, "wells features"],
    group: Int[ndarray, " wells"],
    queries: Int[ndarray, " queries"],
) -> Float64[ndarray, " queries"]:
    """Silhouette of some wells by cosine distance, in [-1, 1]; 0 for a well that is alone in its group.

    The mean cosine distance to a group is 1 minus the product with the group's mean direction, so no distance
    between two wells is ever needed.

    Source:
        Rousseeuw 1987, "Silhouettes"; equals scikit-learn's ``silhouette_samples(metric="cosine")``.

    Args:
        features: One row per well.
        group: Code of what wells are grouped by.
        queries: Wells whose silhouette is wanted, among all the others.
    """
    unit = unit_rows(features.astype(np.float64))
    group = np.unique(group, return_inverse=True)[1]
    sizes = np.bincount(group).astype(np.float64)
    if sizes.size < 2:
        return np.zeros(queries.size)
    sums = group_sums(unit, group)
    found = np.empty(queries.size)
    height = max(1, BLOCK_ENTRIES // sizes.size)
    for start in range(0, queries.size, height):
        rows = queries[start : start + height]
        own, place = group[rows], np.arange(rows.size)
        similarity = unit[rows] @ sums.T
        itself = np.einsum("wf,wf->w", unit[rows], unit[rows])
        within = (sizes[own] - 1 - (similarity[place, own] - itself)) / np.maximum(sizes[own] - 1, 1)
        distance = 1 - similarity / sizes
        distance[place, own] = np.inf
        # A distance of rounding is none: wells that are all alike are in no group.
        inside, outside = (np.where(far > TIE_WIDTH, far, 0.0) for far in (within, distance.min(axis=1)))
        larger = np.maximum(inside, outside)
        score = (outside - inside) / np.where(larger > 0, larger, 1)
        found[start : start + height] = np.where(sizes[own] > 1, score, 0)
    return found


def variance_explained(
    features: Float[ndarray, "wells features"],
    group: Int[ndarray, " wells"],
    unit: Int[ndarray, " wells"],
    settings: EvaluateSettings,
    name: str,
) -> Estimate:
    """Principal component regression: over all components, share of variance times R2 by the group, summed up.

    With every component kept this is the sum of squares between groups over the total one, the same in every
    rotation, so no component has to be found. By chance it is (groups - 1) / (wells - 1).

    The interval comes from drawing units, with all their wells, and is moved so that its resamples have the
    estimate as their mean: a unit drawn twice makes groups look further apart than they are.

    Args:
        features: One row per well.
        group: What is to explain the profiles: the batch; or the same as `unit`, each draw then a group of its own.
        unit: What is drawn.
        settings: Resamples and seed.
        name: Name of the number.

    Source:
        Buettner et al. 2019 (kBET) and Luecken et al. 2022 (scIB), who keep 50 components at most.
    """
    exact = features.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    unit = np.unique(unit, return_inverse=True)[1]
    units = int(unit.max()) + 1
    spread = np.bincount(unit, weights=np.einsum("wf,wf->w", centred, centred))
    if spread.sum() <= TIE_WIDTH * np.einsum("wf,wf->", exact, exact):
        return Estimate(0.0)
    split = [np.flatnonzero(group == code) for code in np.unique(group)]
    is_own = len(split) == units and all(np.unique(unit[rows]).size == 1 for rows in split)
    between = between_units if is_own else between_groups
    whole = between(np.ones((1, units)), centred, unit, split, spread)
    if units < 2:
        return Estimate(float(whole[0]))
    counts = resampled_counts(units, resamples=settings.bootstraps, seed=settings.seed, name=name)
    resampled = between(counts, centred, unit, split, spread)
    return Estimate.from_resamples(float(whole[0]), np.clip(resampled - resampled.mean() + whole[0], 0, 1))


def between_groups(
    counts: Float64[ndarray, "resamples units"],
    centred: Float64[ndarray, "wells features"],
    unit: Int[ndarray, " wells"],
    split: Sequence[Int[ndarray, " _"]],
    spread: Float64[ndarray, " units"],
) -> Float64[ndarray, " resamples"]:
    """Share of the sum of squares that lies between groups, where wells count as often as their unit is drawn."""
    between, total = np.zeros(len(counts)), np.zeros((len(counts), centred.shape[1]))
    wells = np.zeros(len(counts))
    for rows in split:
        weight = counts[:, unit[rows]]
        sums, size = weight @ centred[rows], weight.sum(axis=1)
        between += np.einsum("rf,rf->r", sums, sums) / np.maximum(size, 1)
        total += sums
        wells += size
    return share_between(between, np.einsum("rf,rf->r", total, total) / wells, counts @ spread)


def between_units(
    counts: Float64[ndarray, "resamples units"],
    centred: Float64[ndarray, "wells features"],
    unit: Int[ndarray, " wells"],
    split: Sequence[Int[ndarray, " _"]],  # noqa: ARG001 - called like `between_groups`
    spread: Float64[ndarray, " units"],
) -> Float64[ndarray, " resamples"]:
    """The same where each unit is a group, and a group of its own as often as it is drawn."""
    sums, size = group_sums(centred, unit), np.bincount(unit)
    total = counts @ sums
    between = counts @ (np.einsum("uf,uf->u", sums, sums) / size)
    return share_between(between, np.einsum("rf,rf->r", total, total) / (counts @ size), counts @ spread)


def share_between(
    between: Float64[ndarray, " resamples"],
    middle: Float64[ndarray, " resamples"],
    spread: Float64[ndarray, " resamples"],
) -> Float64[ndarray, " resamples"]:
    rest = spread - middle
    return np.asarray(np.clip((between - middle) / np.where(rest > 0, rest, np.inf), 0, 1))


def group_sums(
    rows: Float64[ndarray, "wells features"], group: Int[ndarray, " wells"]
) -> Float64[ndarray, "groups features"]:
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(int(group.max()) + 1))
    return np.add.reduceat(rows[order], starts)
