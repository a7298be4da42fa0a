"""Linear probes: can a linear classifier read a label off profiles of plates or perturbations it never saw?"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from cellvim.config import EvaluateSettings
from cellvim.evaluate.classifier import most_iterations, predict_held_out
from cellvim.evaluate.confusion import confusion_table
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen, compounds_of, split_labels
from cellvim.folds import fold_of
from cellvim.profiles import Profiles, require_column
from cellvim.profiles.schema import CONTROL_TYPE, EMPTY, PERTURBATION, PLATE, WELL
from cellvim.statistics import generator_for, score_predictions
from cellvim.store import compound_columns

logger = logging.getLogger(__name__)

FOLDS = 5
LEAKY = "random_well (leaky)"
FEWEST_WELLS_PER_LABEL = 2
# A score for each well and label is held several times over: 200 MB each at most, and a fit of half a minute.
MOST_SCORES = 5e7
LABEL_IS_PERTURBATION = (
    "the label is the perturbation: pass --label with a column such as a target or mechanism"
)
TOO_FEW_LABELS = {
    "plate_held_out": "fewer than two labels are found on two plates or more",
    "perturbation_held_out": (
        "fewer than two labels are shared by two perturbations or more, all doses of a compound counted as one"
    ),
    LEAKY: "fewer than two labels have two wells or more",
}


@dataclass(frozen=True)
class ProbeWells:
    """Wells that have a label.

    Args:
        features: Normalised profiles.
        label: Code of the label.
        names: Labels by their codes.
        plate: Name of the plate.
        perturbation: Name of the compound, whatever its dose, where that is known; else of the perturbation.
        well: Name of the plate and the well.
        row: Row of the table.
        several: Number of wells left out because they have several labels.
    """

    features: Float[ndarray, "wells features"]
    label: Int[ndarray, " wells"]
    names: Shaped[ndarray, " labels"]
    plate: Shaped[ndarray, " wells"]
    perturbation: Shaped[ndarray, " wells"]
    well: Shaped[ndarray, " wells"]
    row: Int[ndarray, " wells"]
    several: int = 0

    def only(self, kept: Bool[ndarray, " wells"]) -> "ProbeWells":
        columns = ("features", "label", "plate", "perturbation", "well", "row")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})


def run_probes(screen: Screen) -> TaskResult:
    """Train and judge a probe per split; a split that the table does not allow says why.

    Controls and empty wells take no part, nor do labels with a single well. A well with several labels has no one
    right answer: it is left out, and counted. A split leaves out the labels that it cannot ask for, as they are never on
    both sides of it, and counts their wells.

    Returns:
        Metrics per split: ``accuracy`` and ``macro_f1`` with intervals over held-out units, the same with
        ``shuffled`` labels, ``chance`` (share of the commonest label); or ``reason``. In both cases
        ``unlearnable_wells``. Tables `wells` (split, Metadata_Plate, Metadata_Well, label, predicted, unit) and
        `confusion` (split, label, predicted, count, share, low, high).
    """
    profiles, settings = screen.normalized, screen.settings
    column = require_column(profiles, settings.label) if settings.label else PERTURBATION
    wells = labelled_wells(profiles, column, settings.label_separator if settings.label else None)
    metrics: dict[str, Any] = {
        "label": column,
        "wells": int(wells.well.size),
        "labels": int(np.unique(wells.label).size),
        "wells_with_several_labels": wells.several,
    }
    given = (PERTURBATION, *compound_columns(profiles.metadata.columns))
    splits = {"plate_held_out": wells.plate, "perturbation_held_out": wells.perturbation, LEAKY: wells.well}
    tables: dict[str, list[pl.DataFrame]] = {"wells": [], "confusion": []}
    for name, units in splits.items():
        if name == "perturbation_held_out" and column in given:
            metrics[name] = {"reason": LABEL_IS_PERTURBATION}
            continue
        metrics[name], judged = judged_split(name, wells, units, settings)
        for kind, table in (judged_tables(name, judged, screen, settings) if judged else {}).items():
            tables[kind].append(table)
    return TaskResult("probe", metrics, {kind: pl.concat(parts) for kind, parts in tables.items() if parts})


def labelled_wells(profiles: Profiles, column: str, separator: str | None = None) -> ProbeWells:
    """Treated wells with one label that occurs at least twice.

    Args:
        profiles: Normalised wells.
        column: Column of labels.
        separator: What stands between labels where a well has several; None where a cell is one label.
    """
    metadata = profiles.metadata.with_columns(pl.col(column).cast(pl.String).alias("label"))
    if separator is None:
        found: tuple[tuple[str, ...], ...] = tuple(
            () if text is None else (text,) for text in metadata["label"]
        )
    else:
        found = split_labels(metadata["label"], separator)
    single = pl.Series("label", [each[0] if len(each) == 1 else None for each in found], pl.String)
    metadata = metadata.with_columns(single)
    is_treated = ~pl.Series(profiles.is_control) & pl.Series(
        metadata.select(
            pl.col(CONTROL_TYPE).ne_missing(EMPTY) & pl.col(PERTURBATION).is_not_null()
        ).to_series()
    )
    counts = metadata.filter(is_treated & metadata["label"].is_not_null())["label"].value_counts()
    common = counts.filter(pl.col("count") >= FEWEST_WELLS_PER_LABEL)["label"].implode()
    rows = np.flatnonzero((is_treated & metadata["label"].is_in(common).fill_null(value=False)).to_numpy())
    kept = metadata[rows]
    names, label = np.unique(kept["label"].to_numpy().astype(str), return_inverse=True)
    return ProbeWells(
        features=profiles.features[rows],
        label=label,
        names=names,
        plate=kept[PLATE].to_numpy().astype(str),
        # Doses of a compound share what they do: one of them in training would give the others away.
        perturbation=compounds_of(metadata)[rows].to_numpy().astype(str),
        well=kept.select(pl.concat_str(PLATE, WELL, separator="/")).to_series().to_numpy().astype(str),
        row=rows,
        several=int((is_treated.to_numpy() & np.array([len(each) > 1 for each in found], bool)).sum()),
    )


@dataclass(frozen=True)
class JudgedWells:
    """Wells of a split with what was predicted for them, and what was held out together."""

    wells: ProbeWells
    predicted: Int[ndarray, " wells"]
    unit: Shaped[ndarray, " wells"]


def judged_tables(
    split: str, judged: JudgedWells, screen: Screen, settings: EvaluateSettings
) -> dict[str, pl.DataFrame]:
    """Table of wells and confusion of a split."""
    wells = judged.wells
    named = screen.raw.metadata[wells.row].select(
        pl.lit(split).alias("split"),
        PLATE,
        WELL,
        pl.Series("label", wells.names[wells.label].tolist(), pl.String),
        pl.Series("predicted", wells.names[judged.predicted].tolist(), pl.String),
        pl.Series("unit", judged.unit.tolist(), pl.String),
    )
    unit = np.unique(judged.unit, return_inverse=True)[1]
    counts = confusion_table(
        wells.label,
        judged.predicted,
        unit,
        resamples=settings.bootstraps,
        seed=settings.seed,
        name=f"{split}/confusion",
    )
    spelt = [
        pl.Series(side, wells.names[counts[side].to_numpy()].tolist(), pl.String)
        for side in ("label", "predicted")
    ]
    confusion = counts.with_columns(spelt).select(pl.lit(split).alias("split"), pl.all())
    return {"wells": named, "confusion": confusion}


def judged_split(
    name: str, wells: ProbeWells, units: Shaped[ndarray, " wells"], settings: EvaluateSettings
) -> tuple[dict[str, Any], JudgedWells | None]:
    """Predict every well from folds that do not hold its unit, with the labels as they are and shuffled."""
    is_shared = is_in_two(wells.label, units)
    members, units = wells.only(is_shared), units[is_shared]
    fold = folds_of(units, salt=name)
    # A hash may put all units of a label into one fold, which leaves none to learn it from.
    is_learnable = is_in_two(members.label, fold)
    judged = members.only(is_learnable)
    unlearnable = {"unlearnable_wells": int(wells.label.size - judged.label.size)}
    if np.unique(judged.label).size < 2:
        return {"reason": reason_against(name, wells, members)} | unlearnable, None
    labels = np.unique(judged.label).size
    if judged.label.size * labels > MOST_SCORES:
        reason = (
            f"{labels} labels of {judged.label.size} wells take hours and gigabytes: pass a coarser --label"
        )
        return {"reason": reason} | unlearnable, None
    units, fold = units[is_learnable], fold[is_learnable]
    metrics, predicted = judged_wells(name, judged, units, fold, settings)
    return unlearnable | metrics, JudgedWells(judged, predicted, units)


def judged_wells(
    name: str,
    wells: ProbeWells,
    units: Shaped[ndarray, " wells"],
    fold: Int[ndarray, " wells"],
    settings: EvaluateSettings,
) -> tuple[dict[str, Any], Int[ndarray, " wells"]]:
    """Judge wells whose labels are all found in two folds or more; also what was predicted for them."""
    metrics: dict[str, Any] = {"units": int(np.unique(units).size), "folds": int(np.unique(fold).size)}
    metrics["most_iterations"] = most_iterations(*wells.features.shape, labels=np.unique(wells.label).size)
    calls = {}
    truth = {"": wells.label, "shuffled": shuffled_labels(name, wells, settings.seed)}
    for which, label in truth.items():
        predicted, unconverged = predict_held_out(wells.features, label, fold)
        calls[which] = predicted
        # Shuffling may gather a label in one fold; held against luck, that would make luck look worse.
        at = is_in_two(label, fold)
        if not at.any():
            continue
        unit = np.unique(units[at], return_inverse=True)[1]
        estimates = score_predictions(
            label[at],
            predicted[at],
            unit,
            resamples=settings.bootstraps,
            seed=settings.seed,
            name=f"{name}/{which}",
        )
        scores: dict[str, Any] = {metric: estimate.as_metric() for metric, estimate in estimates.items()}
        if unconverged:
            scores["unconverged_folds"] = unconverged
        metrics |= {which: scores} if which else scores
    return metrics | {"chance": float(np.bincount(wells.label).max() / wells.label.size)}, calls[""]


def is_in_two(label: Int[ndarray, " wells"], group: Shaped[ndarray, " wells"]) -> Bool[ndarray, " wells"]:
    """True for wells whose label is found in two groups or more: no other can be learned from other groups."""
    code = np.unique(group, return_inverse=True)[1]
    pairs = np.unique(np.stack([label, code], axis=1), axis=0)
    return np.asarray((np.bincount(pairs[:, 0], minlength=label.max(initial=0) + 1) >= 2)[label])


def reason_against(name: str, wells: ProbeWells, shared: ProbeWells) -> str:
    """Say why fewer than two labels are left.

    Args:
        name: Name of the split.
        wells: All wells that have a label.
        shared: Those whose label is found in two units or more.
    """
    if np.unique(shared.label).size >= 2:
        return "fewer than two labels have units in more than one fold"
    if name == "plate_held_out" and np.unique(wells.plate).size < 2:
        return "all labelled wells are on one plate"
    return TOO_FEW_LABELS[name]


def folds_of(units: Shaped[ndarray, " wells"], *, salt: str) -> Int[ndarray, " wells"]:
    """Fold of each well by a hash of its unit; with few units, each is a fold of its own."""
    names, code = np.unique(units, return_inverse=True)
    if names.size <= FOLDS:
        return code
    return np.array([fold_of(name, folds=FOLDS, salt=salt) for name in names])[code]


def shuffled_labels(name: str, wells: ProbeWells, seed: int) -> Int[ndarray, " wells"]:
    """Deal the labels anew: among perturbations where those are held out, else among the wells of a plate."""
    generator = generator_for(seed, "shuffled", name)
    label = wells.label.copy()
    if name == "perturbation_held_out":
        names, first, code = np.unique(wells.perturbation, return_index=True, return_inverse=True)
        return label[first][generator.permutation(names.size)][code]
    for plate in np.unique(wells.plate):
        members = np.flatnonzero(wells.plate == plate)
        label[members] = generator.permutation(label[members])
    return label
