"""Retrieval tasks on one table: from profiles to a table per perturbation, a table per well and the headline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from cellvim.config import EvaluateSettings, Normalization
from cellvim.evaluate.intervals import mean_over_units
from cellvim.evaluate.precision import expected_average_precision
from cellvim.evaluate.questions import RetrievalTask, replicates
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval import QueryScores, Space, score_queries
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.significance import NullDistributions, benjamini_hochberg
from cellvim.profiles import Profiles, control_folds, normalize
from cellvim.profiles.schema import PERTURBATION, PLATE, WELL

RETRIEVAL_TASKS: tuple[RetrievalTask, ...] = ("activity", "distinctiveness", "replicate_retrieval")
SIGNIFICANT_Q = 0.05
CONTROL_FOLDS = 5
NO_CONTROLS = "the table has no negative controls: mark them with --control COLUMN=VALUE or a --platemap"
REASONS = {
    "activity": "no perturbation has a second well to be found, against controls of its plate",
    "distinctiveness": "no perturbation has a second well to be found, against others on its plate",
    "replicate_retrieval": "no perturbation has wells on two plates",
}


def activity(screen: Screen) -> TaskResult:
    """Do replicates of a perturbation find each other among the negative controls of their plate?"""
    return run_retrieval(screen, "activity")


def distinctiveness(screen: Screen) -> TaskResult:
    """Do they find each other among the other perturbations of their plate?"""
    return run_retrieval(screen, "distinctiveness")


def replicate_retrieval(screen: Screen) -> TaskResult:
    """Do they find each other on other plates?"""
    return run_retrieval(screen, "replicate_retrieval")


def run_retrieval(screen: Screen, task: RetrievalTask) -> TaskResult:
    """Score every well, average over perturbations, and test each against chance.

    Args:
        screen: Wells, and how to judge them.
        task: Which wells are positives, which negatives.

    Returns:
        Rows `Metadata_Perturbation, replicates, plates, map, normalized_map, p, q, smallest_p`, and `wells`:
        `Metadata_Plate, Metadata_Well, Metadata_Perturbation, ap, normalized_ap, positives, total`.
    """
    raw, settings = screen.raw, screen.settings
    if task == "activity" and not raw.is_control.any():
        return TaskResult.not_done(task, NO_CONTROLS)
    spaces = judging_spaces(raw, screen.normalized, task, settings.normalize, batch=screen.batch_column)
    position = codes_of(raw.metadata[WELL]) if settings.different_position else None
    scores = score_queries(spaces, replicates(screen.wells, task, position=position))
    wells = wells_table(raw, scores)
    nulls = NullDistributions(null_size=settings.null_size, seed=settings.seed)
    perturbations = perturbations_table(wells, nulls)
    counts = {
        "perturbations": perturbations.height,
        "queries": scores.unit.size,
        "queries_without_candidates": scores.dropped,
        "spaces": len(spaces),
    }
    if perturbations.is_empty():
        return TaskResult(task, counts | {"reason": REASONS[task]}, {"": perturbations, "wells": wells})
    names = perturbations[PERTURBATION].to_list()
    compound = np.unique([screen.compound_of.get(name, name) for name in names], return_inverse=True)[1]
    found = headline(task, perturbations, scores, settings, unit=compound)
    return TaskResult(task, counts | found, {"": perturbations, "wells": wells})


def judging_spaces(
    raw: Profiles,
    normalized: Profiles,
    task: RetrievalTask,
    method: Normalization,
    *,
    batch: str | None = None,
) -> Sequence[Space]:
    """Spaces in which candidates are ranked: one, and one per fold of controls where those are candidates.

    Controls lie around a centre that was fitted to them; wells that the fit has not seen share an offset from
    it, find each other by that offset, and all seem active. So each fold of controls is ranked after a fit to
    the other folds, like every treated well. Without this, of 40 inert perturbations of white noise (200
    features, 8 controls) 55 % had p < 0.05 after ``standardize``, 14 % after ``mad`` and 88 % after ``sphere``;
    with it, fewer than 1 %.

    Across plates no offset is shared, but whitened controls that the fit has seen vary less than wells that it has
    not, and are in nobody's way: of such noise (12 perturbations of 2 wells, 16 controls on each plate) 40 % had
    p <= 0.2 for `replicate_retrieval` after ``sphere``, and with controls judged unseen 16 %.
    """
    if task == "distinctiveness" or method == "none" or not raw.is_control.any():
        return [Space.whole(normalized.features)]
    treated = normalized.features if task == "replicate_retrieval" else None
    return UnseenControls(raw, method, batch, treated)


@dataclass(frozen=True, eq=False)
class UnseenControls(Sequence[Space]):
    """One space per fold of controls, fitted to the other folds; made whenever it is asked for, and not kept.

    Args:
        raw: Wells before normalisation.
        method: How to normalise them.
        batch: Column of batches, for ``tvn``.
        treated: Features in which treated wells are negatives, in a first space of their own, if they are any.
    """

    raw: Profiles
    method: Normalization
    batch: str | None
    treated: Float[ndarray, "wells features"] | None = None

    @cached_property
    def fold(self) -> Int[ndarray, " wells"]:
        return control_folds(self.raw, CONTROL_FOLDS)

    def __len__(self) -> int:
        return int(self.fold.max()) + 1 + (self.treated is not None)

    def __getitem__(self, place: Any) -> Any:
        if place not in range(len(self)):
            raise IndexError(place)
        held_out = place - (self.treated is not None)
        if self.treated is not None and held_out < 0:
            return Space(self.treated, self.fold < 0)
        seen = (self.fold >= 0) & (self.fold != held_out)
        fitted = normalize(self.raw, self.method, fitted_on=seen, batch=self.batch)
        return Space(fitted.features, self.fold == held_out)


def codes_of(names: pl.Series) -> Int[ndarray, " wells"]:
    """Number the different names from 0, in their order."""
    return np.asarray(names.rank("dense").to_numpy(), np.int64) - 1


def wells_table(profiles: Profiles, scores: QueryScores) -> pl.DataFrame:
    return profiles.metadata[scores.unit].select(PLATE, WELL, PERTURBATION).hstack(score_columns(scores))


def score_columns(scores: QueryScores) -> list[pl.Series]:
    return [
        pl.Series("ap", scores.average_precision, pl.Float64),
        pl.Series("normalized_ap", scores.normalized, pl.Float64),
        pl.Series("positives", scores.positives, pl.Int64),
        pl.Series("total", scores.total, pl.Int64),
    ]


def perturbations_table(wells: pl.DataFrame, nulls: NullDistributions) -> pl.DataFrame:
    """Average over the wells of each perturbation, with p and q values; sorted by name."""
    counts = {"replicates": pl.len(), "plates": pl.col(PLATE).n_unique()}
    return averaged_groups(wells, PERTURBATION, counts, nulls)


def averaged_groups(
    queries: pl.DataFrame, by: str, counts: Mapping[str, pl.Expr], nulls: NullDistributions
) -> pl.DataFrame:
    """Average over the queries of each group, with p and q values; sorted by the name of the group.

    Args:
        queries: Rows with `score_columns`.
        by: Column of the groups.
        counts: More columns of the result, as aggregates.
        nulls: What a mean is compared with.
    """
    aggregates = [expression.cast(pl.Int64).alias(name) for name, expression in counts.items()]
    groups = queries.group_by(by).agg(aggregates).sort(by)
    code = codes_of(queries[by])
    values = {name: queries[name].to_numpy() for name in ("ap", "normalized_ap", "positives", "total")}
    found = nulls.test(code, values["ap"], values["positives"], values["total"])
    normalized = np.bincount(code, weights=values["normalized_ap"]) / np.maximum(np.bincount(code), 1)
    scores = {
        "map": found.mean,
        "normalized_map": normalized,
        "p": found.p,
        "q": benjamini_hochberg(found.p),
        "smallest_p": found.smallest_p,
    }
    return groups.hstack([pl.Series(name, value, pl.Float64) for name, value in scores.items()])


def headline(
    task: str,
    groups: pl.DataFrame,
    scores: QueryScores,
    settings: EvaluateSettings,
    *,
    unit: Int[ndarray, " groups"],
) -> dict[str, Any]:
    """Numbers of metrics.json: means over groups with intervals, what chance gives for them, and what p can reach.

    Args:
        task: Name of the task.
        groups: As from `averaged_groups`.
        scores: The queries behind them.
        settings: Resamples and seed.
        unit: Code of what is resampled together: all doses of a compound.
    """
    columns = {
        "mean_map": groups["map"],
        "mean_normalized_map": groups["normalized_map"],
        "fraction_significant": (groups["q"] < SIGNIFICANT_Q).cast(pl.Float64),
    }
    estimates = {
        name: mean_over_units(values.to_numpy(), unit, settings, f"{task}/{name}").as_metric()
        for name, values in columns.items()
    }
    smallest = groups["smallest_p"].to_numpy()
    return estimates | {
        "chance_map": mean_chance(scores),
        "smallest_p": float(smallest.min()),
        "beyond_reach": int((smallest >= SIGNIFICANT_Q).sum()),
        # q of the only group that does anything is p times the number of groups.
        "beyond_reach_alone": int((smallest * groups.height >= SIGNIFICANT_Q).sum()),
    }


def mean_chance(scores: QueryScores) -> float:
    """What random orders give for `mean_map`: a mean over groups of means over their queries."""
    chance = expected_average_precision(scores.positives, scores.total)
    group = np.unique(scores.group, return_inverse=True)[1]
    return float((np.bincount(group, weights=chance) / np.bincount(group)).mean())
