"""Retrieval tasks on one table: from profiles to a table per perturbation, a table per well and the headline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from cellvim.config import EvaluateSettings, Normalization
from cellvim.errors import InputError
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval import (
    QueryScores,
    RetrievalTask,
    Space,
    expected_average_precision,
    score_queries,
)
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.significance import NullDistributions, benjamini_hochberg
from cellvim.profiles import Profiles, control_folds, normalize
from cellvim.profiles.schema import PERTURBATION, PLATE, WELL
from cellvim.statistics import mean_with_interval

RETRIEVAL_TASKS: tuple[RetrievalTask, ...] = ("activity", "distinctiveness", "replicate_retrieval")
SIGNIFICANT_Q = 0.05
CONTROL_FOLDS = 5
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

    Raises:
        InputError: `activity` on a table without negative controls.
    """
    raw, settings = screen.raw, screen.settings
    if task == "activity" and not raw.is_control.any():
        found = f"{raw.source} has no negative controls, which activity is measured by"
        hint = "mark them with --control COLUMN=VALUE or a --platemap, or leave activity out of --tasks"
        raise InputError(found, hint=hint)
    spaces = judging_spaces(raw, screen.normalized, task, settings.normalize)
    scores = score_queries(spaces, screen.wells, task)
    wells = wells_table(raw, scores)
    nulls = NullDistributions(null_size=settings.null_size, seed=settings.seed)
    perturbations = perturbations_table(wells, nulls)
    metrics = headline(task, perturbations, scores, settings) | {"control_folds": max(1, len(spaces))}
    return TaskResult(task, metrics, {"": perturbations, "wells": wells})


def judging_spaces(
    raw: Profiles, normalized: Profiles, task: RetrievalTask, method: Normalization
) -> Sequence[Space]:
    """Spaces in which candidates are ranked: one, or for `activity` one per fold of controls.

    Controls lie around a centre that was fitted to them; wells that the fit has not seen share an offset from
    it, find each other by that offset, and all seem active. So each fold of controls is ranked after a fit to
    the other folds, like every treated well. Without this, of 40 inert perturbations of white noise (200
    features, 8 controls) 55 % had p < 0.05 after ``standardize``, 14 % after ``mad`` and 88 % after ``sphere``;
    with it, none.
    """
    if task != "activity" or method == "none":
        return [Space.whole(normalized.features)]
    fold = control_folds(raw, CONTROL_FOLDS)
    return [
        Space(normalize(raw, method, fitted_on=(fold >= 0) & (fold != held_out)).features, fold == held_out)
        for held_out in np.unique(fold[fold >= 0])
    ]


def wells_table(profiles: Profiles, scores: QueryScores) -> pl.DataFrame:
    return (
        profiles.metadata[scores.well]
        .select(PLATE, WELL, PERTURBATION)
        .with_columns(
            pl.Series("ap", scores.average_precision, pl.Float64),
            pl.Series("normalized_ap", scores.normalized, pl.Float64),
            pl.Series("positives", scores.positives, pl.Int64),
            pl.Series("total", scores.total, pl.Int64),
        )
    )


def perturbations_table(wells: pl.DataFrame, nulls: NullDistributions) -> pl.DataFrame:
    """Average over the wells of each perturbation, with p and q values; sorted by name."""
    rows = []
    for (name,), own in sorted(wells.group_by([PERTURBATION], maintain_order=True)):
        strength = float(own["ap"].to_numpy().mean())
        found = nulls.test(strength, own["positives"].to_numpy(), own["total"].to_numpy())
        normalized = float(own["normalized_ap"].to_numpy().mean())
        rows.append(
            (name, own.height, own[PLATE].n_unique(), strength, normalized, found.p, found.smallest_p)
        )
    schema = {PERTURBATION: pl.String, "replicates": pl.Int64, "plates": pl.Int64}
    schema |= dict.fromkeys(("map", "normalized_map", "p", "smallest_p"), pl.Float64)
    table = pl.DataFrame(rows, schema=schema, orient="row")
    q = benjamini_hochberg(table["p"].to_numpy())
    return table.insert_column(table.columns.index("p") + 1, pl.Series("q", q, pl.Float64))


def headline(
    task: str, perturbations: pl.DataFrame, scores: QueryScores, settings: EvaluateSettings
) -> dict[str, Any]:
    """Numbers of metrics.json: counts, means over perturbations with intervals, and what p can reach."""
    counts = {
        "perturbations": perturbations.height,
        "queries": int(scores.well.size),
        "queries_without_candidates": scores.dropped,
    }
    if perturbations.is_empty():
        return counts | {"reason": REASONS[task]}
    columns = {
        "mean_map": perturbations["map"],
        "mean_normalized_map": perturbations["normalized_map"],
        "fraction_significant": (perturbations["q"] < SIGNIFICANT_Q).cast(pl.Float64),
    }
    estimates = {
        name: mean_with_interval(
            values.to_numpy(), resamples=settings.bootstraps, seed=settings.seed, name=f"{task}/{name}"
        ).as_metric()
        for name, values in columns.items()
    }
    chance = expected_average_precision(scores.positives, scores.total)
    smallest = perturbations["smallest_p"]
    return (
        counts
        | estimates
        | {
            "chance_map": float(chance.mean()),
            "smallest_p": float(smallest.min()),  # type: ignore[arg-type]
            "beyond_reach": int((smallest >= SIGNIFICANT_Q).sum()),
            # q of the only perturbation that does anything is p times the number of perturbations.
            "beyond_reach_alone": int((smallest * perturbations.height >= SIGNIFICANT_Q).sum()),
        }
    )
