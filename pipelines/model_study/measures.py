"""What the model study measures of a table of profiles, unit by unit: a unit is a perturbation, or a dose of one."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from cellvim.config import EvaluateSettings, TaskName
from cellvim.evaluate.classifier import predict_held_out
from cellvim.evaluate.probe import folds_of, labelled_wells
from cellvim.evaluate.stage import EvaluatedTable, evaluate_table
from cellvim.profiles import Profiles, normalize, read_profiles
from pipelines.bbbc013_doses import dose_response, is_high_dose
from pipelines.dose_response import member_precisions

Measures = dict[str, dict[str, float]]
"""Metric, then unit, then value."""

MECHANISM = "Metadata_Mechanism"
PERTURBATION = "Metadata_Perturbation"
INERT = "inert"
WHOLE = "all"
"""The only unit of a metric that cannot be divided."""


def synthetic_measures(table: Path) -> Measures:
    """Activity, retrieval across plates, and the mechanism as a linear probe reads it on plates held out.

    Inert perturbations are kept apart, as `inert_activity`: the negative control.
    """
    evaluated = evaluated_table(table)
    activity = _by_perturbation(evaluated, "activity")
    retrieval = _by_perturbation(evaluated, "replicate_retrieval")
    inert = {name for name in activity if name.startswith(INERT)}
    probe = probe_hits(evaluated.normalized)
    return {
        "activity": _without(activity, inert),
        "retrieval": _without(retrieval, inert),
        "probe": _without(probe, inert),
        "inert_activity": {name: activity[name] for name in sorted(inert)},
    }


def bbbc013_measures(table: Path) -> Measures:
    """Activity by dose, high doses among all wells, separation of the controls, and trend with the dose."""
    evaluated = evaluated_table(table, tasks=("activity",))
    response = dose_response(table)
    trends = [trend["spearman"]["value"] for trend in response["compounds"].values()]
    return {
        "activity": _by_perturbation(evaluated, "activity"),
        "high_doses": high_dose_precision(read_profiles(table)),
        "separation": {WHOLE: float(response["separation"]["value"])},
        "trend": {WHOLE: float(np.mean(trends))},
    }


def probe_hits(profiles: Profiles) -> dict[str, float]:
    """Share of the wells of each perturbation whose mechanism a probe names that never saw their plate."""
    wells = labelled_wells(profiles, MECHANISM)
    predicted, _ = predict_held_out(wells.features, wells.label, folds_of(wells.plate, salt="plate_held_out"))
    return _mean_by(wells.perturbation, predicted == wells.label)


def high_dose_precision(profiles: Profiles) -> dict[str, float]:
    """Mean average precision by dose with which high doses and positive controls find each other among all wells."""
    is_positive = (profiles.metadata["Metadata_ControlType"] == "poscon").fill_null(value=False).to_numpy()
    is_member = is_positive | is_high_dose(profiles)
    features = normalize(profiles, "sphere").features.astype(np.float64)
    names = profiles.metadata[PERTURBATION].to_numpy().astype(str)[is_member]
    return _mean_by(names, member_precisions(features, is_member))


def evaluated_table(
    table: Path, *, tasks: tuple[str, ...] = ("activity", "replicate_retrieval")
) -> EvaluatedTable:
    # No p-value or interval of a single table is used, so that few random lists will do.
    few = {"null_size": 100, "bootstraps": 10}
    settings = EvaluateSettings.checked({"tables": [table], "out": table.parent, "tasks": tasks, **few})
    return evaluate_table(table.stem, table, settings)


def _by_perturbation(evaluated: EvaluatedTable, task: TaskName) -> dict[str, float]:
    return dict(evaluated.results[task].rows.select(PERTURBATION, "map").iter_rows())


def _mean_by(names: np.ndarray, values: np.ndarray) -> dict[str, float]:
    table = pl.DataFrame({"name": names.astype(str), "value": values.astype(np.float64)})
    return dict(table.group_by("name").agg(pl.col("value").mean()).sort("name").iter_rows())


def _without(values: dict[str, float], left_out: Iterable[str]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in set(left_out)}
