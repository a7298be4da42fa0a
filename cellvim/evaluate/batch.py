"""Batch against biology: do profiles say on which plate a well was, or what was done to it?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from cellvim.errors import InputError
from cellvim.evaluate.batch_measures import nearest_agreement, silhouettes, variance_explained
from cellvim.evaluate.intervals import mean_over_units
from cellvim.evaluate.nearest import differing
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen
from cellvim.profiles import control_folds, normalize
from cellvim.profiles.schema import PLATE
from cellvim.statistics import Estimate, generator_for

CONTROL_FOLDS = 5
# Enough for a share known to 1 %; the cost of neighbours grows with queries times wells.
MOST_QUERIES = 5000
NEAREST, SILHOUETTE, VARIANCE = "nearest neighbour", "silhouette", "variance explained"
NEAREST_OF_CONTROLS = "nearest neighbour (negative controls)"
BIOLOGY = "biology"
TREATED, CONTROLS = "treated", "negative controls"
SCHEMA = {"measure": pl.String, "batch_column": pl.String, "wells": pl.String, "count": pl.Int64}
SCHEMA |= dict.fromkeys(("value", "low", "high", "chance"), pl.Float64)


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Args:
        measure: What was measured.
        column: Column of the batch, or ``biology``.
        wells: Which wells were judged.
        count: How many.
        estimate: The value.
        chance: What it would be if batches (or perturbations) meant nothing.
    """

    measure: str
    column: str
    wells: str
    count: int
    estimate: Estimate
    chance: float

    @property
    def row(self) -> tuple[Any, ...]:
        found = self.estimate
        return (
            self.measure,
            self.column,
            self.wells,
            self.count,
            found.value,
            found.low,
            found.high,
            self.chance,
        )


@dataclass(frozen=True)
class BatchWells:
    """Treated wells whose perturbation is found in several batches, so that the two can be told apart."""

    features: Float[ndarray, "wells features"]
    batch: Int[ndarray, " wells"]
    perturbation: Int[ndarray, " wells"]
    compound: Int[ndarray, " wells"]

    def queries(self, seed: int) -> Int[ndarray, " queries"]:
        """Wells that ask for their neighbours: all, or those of as many perturbations as make up `MOST_QUERIES`."""
        if self.batch.size <= MOST_QUERIES:
            return np.arange(self.batch.size)
        codes, place, sizes = np.unique(self.perturbation, return_inverse=True, return_counts=True)
        order = generator_for(seed, "batch", "queries").permutation(codes.size)
        is_asked = np.zeros(codes.size, bool)
        is_asked[order[np.cumsum(sizes[order]) - sizes[order] < MOST_QUERIES]] = True
        return np.flatnonzero(is_asked[place])


def batch(screen: Screen) -> TaskResult:
    """Measure what the batch explains of normalised wells, and beside it what the perturbation explains.

    The batch is the plate; where the table has another column of batches, both are judged.

    Treated wells are judged only if their perturbation occurs in two batches or more: where each batch has its own
    perturbations, batch and biology cannot be told apart.

    - Nearest neighbour, batch: is the nearest well of *another* compound from the same batch? Replicates are left
      out, for their number inside and outside the batch is a matter of layout, and where each plate has one of
      them a good embedding would look free of batch effects without being so.
    - Nearest neighbour, biology: is the nearest well of another batch one of the same perturbation?
    - Nearest neighbour among negative controls, which differ in nothing but the batch. Controls that the
      normalisation was fitted to lie around each plate's centre by construction and would hide a batch effect, so
      each fold of them is judged after a fit to the others, among itself.
    - Silhouette by cosine distance, and principal component regression, by batch and by perturbation.

    Of more than 5,000 treated wells, those of randomly chosen perturbations, about 5,000 of them, are asked for
    neighbours and silhouette, among all the others.

    Intervals: wells of a perturbation are drawn together; controls one by one. Two wells are often each other's
    nearest, which such draws do not know: in 80 screens without any effect, intervals of nearest neighbours held
    chance in 84 % to 90 %, those of silhouettes in 90 % to 94 %.
    """
    columns = [
        name for name in dict.fromkeys((PLATE, screen.batch_column)) if names_of(screen, name).n_unique() > 1
    ]
    if not columns:
        return TaskResult.not_done("batch", "all wells are on one plate")
    measured = {name: measure_column(screen, name, with_biology=name == columns[0]) for name in columns}
    every = [row for rows in measured.values() for row in rows]
    if not every:
        reason = "no perturbation is on two plates together with another, and there are not enough negative controls"
        return TaskResult.not_done("batch", reason)
    table = pl.DataFrame([row.row for row in every], schema=SCHEMA, orient="row")
    metrics = {"batch": columns[0], **headline(measured[columns[0]])}
    others = [{"batch": name, **headline(measured[name])} for name in columns[1:] if measured[name]]
    return TaskResult("batch", metrics | ({"other_batches": others} if others else {}), {"": table})


def names_of(screen: Screen, column: str) -> pl.Series:
    return screen.raw.metadata[column].cast(pl.String).fill_null("")


def measure_column(screen: Screen, column: str, *, with_biology: bool) -> list[Measured]:
    """Every measure that the table allows for one column of batches."""
    codes = np.unique(names_of(screen, column).to_numpy().astype(str), return_inverse=True)[1]
    found = control_measures(screen, codes, column)
    wells = comparable_wells(screen, codes)
    if wells is not None:
        found += batch_measures(screen, wells, column)
        found += biology_measures(screen, wells) if with_biology else []
    return found


def comparable_wells(screen: Screen, codes: Int[ndarray, " wells"]) -> BatchWells | None:
    """Treated wells of perturbations in several batches; None if they are fewer than two perturbations."""
    perturbation = screen.wells.perturbation
    treated = np.flatnonzero(screen.wells.is_treated)
    pairs = np.unique(np.stack([perturbation[treated], codes[treated]]), axis=1)
    names, batches = np.unique(pairs[0], return_counts=True)
    rows = treated[np.isin(perturbation[treated], names[batches > 1])]
    if np.unique(perturbation[rows]).size < 2:
        return None
    compounds = screen.compounds.fill_null("").to_numpy().astype(str)
    compound = np.unique(compounds, return_inverse=True)[1]
    return BatchWells(screen.normalized.features[rows], codes[rows], perturbation[rows], compound[rows])


def batch_measures(screen: Screen, wells: BatchWells, column: str) -> list[Measured]:
    settings = screen.settings
    found = nearest_measure(
        nearest_agreement(
            wells.features, wells.batch, differing(wells.compound), wells.queries(settings.seed)
        ),
        wells.perturbation, screen, column, TREATED,
    )  # fmt: skip
    found.append(silhouette_measure(wells, wells.batch, screen, column))
    explained = variance_explained(
        wells.features, wells.batch, wells.perturbation, settings, f"batch/variance/{column}"
    )
    return [*found, Measured(VARIANCE, column, TREATED, wells.batch.size, explained, chance_of(wells.batch))]


def biology_measures(screen: Screen, wells: BatchWells) -> list[Measured]:
    code = wells.perturbation
    queries = wells.queries(screen.settings.seed)
    agreement = nearest_agreement(wells.features, code, differing(wells.batch), queries)
    found = nearest_measure(agreement, code, screen, BIOLOGY, TREATED)
    found.append(silhouette_measure(wells, code, screen, BIOLOGY))
    explained = variance_explained(wells.features, code, code, screen.settings, "batch/variance/biology")
    return [*found, Measured(VARIANCE, BIOLOGY, TREATED, code.size, explained, chance_of(code))]


def chance_of(group: Int[ndarray, " wells"]) -> float:
    """Variance explained by groups that mean nothing."""
    return (np.unique(group).size - 1) / (group.size - 1)


def nearest_measure(
    agreement: tuple[Float64[ndarray, " wells"], Float64[ndarray, " wells"]],
    unit: Int[ndarray, " wells"],
    screen: Screen,
    column: str,
    wells: str,
) -> list[Measured]:
    """Average over the wells that had a choice; nothing if none had."""
    found, chance = agreement
    is_open: Bool[ndarray, " wells"] = ~np.isnan(found)
    if not is_open.any():
        return []
    name = f"batch/nearest/{column}/{wells}"
    estimate = mean_over_units(found[is_open], unit[is_open], screen.settings, name)
    measure = NEAREST if wells == TREATED else NEAREST_OF_CONTROLS
    return [Measured(measure, column, wells, int(is_open.sum()), estimate, float(chance[is_open].mean()))]


def silhouette_measure(
    wells: BatchWells, group: Int[ndarray, " wells"], screen: Screen, column: str
) -> Measured:
    settings = screen.settings
    name = f"batch/silhouette/{column}"
    queries = wells.queries(settings.seed)
    own = silhouettes(wells.features, group, queries)
    estimate = mean_over_units(own, wells.perturbation[queries], settings, name)
    shuffled = generator_for(settings.seed, name, "shuffled").permutation(group)
    chance = float(silhouettes(wells.features, shuffled, queries).mean())
    return Measured(SILHOUETTE, column, TREATED, queries.size, estimate, chance)


def control_measures(screen: Screen, codes: Int[ndarray, " wells"], column: str) -> list[Measured]:
    """Nearest neighbours among negative controls that the normalisation has not seen."""
    rows = np.flatnonzero(screen.wells.takes_part & screen.wells.is_control)
    found, chance = np.full(rows.size, np.nan), np.full(rows.size, np.nan)
    try:
        for members, features in unseen_controls(screen, rows):
            itself = differing(np.arange(members.size))
            agreement = nearest_agreement(features, codes[rows[members]], itself)
            found[members], chance[members] = agreement
    except InputError:
        # Some plate has too few controls to spare one.
        return []
    return nearest_measure((found, chance), np.arange(rows.size), screen, column, CONTROLS)


def unseen_controls(
    screen: Screen, rows: Int[ndarray, " controls"]
) -> list[tuple[Int[ndarray, " members"], Float[ndarray, "members features"]]]:
    """Fold by fold, places of controls in `rows` and their profiles after a fit to the other folds."""
    method = screen.settings.normalize
    if method == "none" or rows.size == 0:
        return [(np.arange(rows.size), screen.normalized.features[rows])] if rows.size else []
    controls = screen.raw.only(rows)
    fold = control_folds(controls, CONTROL_FOLDS)
    found = []
    for held_out in np.unique(fold):
        members = np.flatnonzero(fold == held_out)
        fitted = normalize(controls, method, fitted_on=fold != held_out, batch=screen.batch_column)
        found.append((members, fitted.features[members]))
    return found


def headline(measured: list[Measured]) -> dict[str, Any]:
    """Numbers of metrics.json for one column of batches; of the controls where treated wells cannot be judged."""
    found = {(row.measure, row.column == BIOLOGY): row for row in measured}
    metrics: dict[str, Any] = {}
    leading = found.get((NEAREST, False)) or found.get((NEAREST_OF_CONTROLS, False))
    names = (
        ("nearest_batch_accuracy", "chance", leading),
        ("controls_nearest_batch_accuracy", "controls_chance", found.get((NEAREST_OF_CONTROLS, False))),
        ("nearest_perturbation_accuracy", "chance_of_perturbation", found.get((NEAREST, True))),
        ("silhouette", "silhouette_by_chance", found.get((SILHOUETTE, False))),
        ("silhouette_by_perturbation", None, found.get((SILHOUETTE, True))),
        (
            "variance_explained_by_batch",
            "variance_explained_by_chance",
            found.get((VARIANCE, False)),
        ),
        (
            "variance_explained_by_perturbation",
            "variance_explained_by_shuffled_perturbations",
            found.get((VARIANCE, True)),
        ),
    )
    for name, chance, row in names:
        if row is not None:
            metrics[name] = row.estimate.as_metric()
            metrics |= {chance: row.chance} if chance else {}
    if leading is not None:
        metrics |= {"wells": leading.count, "judged": leading.wells}
    return metrics
