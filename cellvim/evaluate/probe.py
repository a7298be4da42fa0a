"""Linear probes: can a linear classifier read a label off profiles of plates or perturbations it never saw?"""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cellvim.config import EvaluateSettings
from cellvim.folds import fold_of
from cellvim.profiles import Profiles, require_column
from cellvim.profiles.schema import CONTROL_TYPE, EMPTY, PERTURBATION, PLATE, WELL
from cellvim.statistics import generator_for, score_predictions
from cellvim.store import compound_columns, name_compounds

logger = logging.getLogger(__name__)

FOLDS = 5
LEAKY = "random_well (leaky)"
MOST_ITERATIONS = 500
FEWEST_WELLS_PER_LABEL = 2
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
        plate: Name of the plate.
        perturbation: Name of the compound, whatever its dose, where that is known; else of the perturbation.
        well: Name of the plate and the well.
    """

    features: Float[ndarray, "wells features"]
    label: Int[ndarray, " wells"]
    plate: Shaped[ndarray, " wells"]
    perturbation: Shaped[ndarray, " wells"]
    well: Shaped[ndarray, " wells"]

    def only(self, kept: Bool[ndarray, " wells"]) -> "ProbeWells":
        return ProbeWells(
            self.features[kept], self.label[kept], self.plate[kept], self.perturbation[kept], self.well[kept]
        )


def run_probes(profiles: Profiles, settings: EvaluateSettings) -> dict[str, Any]:
    """Train and judge a probe per split; a split that the table does not allow says why.

    Controls and empty wells take no part, nor do labels with a single well. A split leaves out the labels that
    it cannot ask for, as they are never on both sides of it, and counts their wells.

    Args:
        profiles: Normalised wells.
        settings: Column to predict, bootstraps, seed.

    Returns:
        Per split: ``accuracy`` and ``macro_f1`` with intervals over held-out units, the same with
        ``shuffled`` labels, ``chance`` (share of the commonest label); or ``reason``. In both cases
        ``unlearnable_wells``.
    """
    column = require_column(profiles, settings.label) if settings.label else PERTURBATION
    wells = labelled_wells(profiles, column)
    metrics: dict[str, Any] = {
        "label": column,
        "wells": int(wells.well.size),
        "labels": int(np.unique(wells.label).size),
    }
    given = (PERTURBATION, *compound_columns(profiles.metadata.columns))
    splits = {"plate_held_out": wells.plate, "perturbation_held_out": wells.perturbation, LEAKY: wells.well}
    for name, units in splits.items():
        is_circular = name == "perturbation_held_out" and column in given
        metrics[name] = (
            {"reason": LABEL_IS_PERTURBATION} if is_circular else judged_split(name, wells, units, settings)
        )
    return metrics


def labelled_wells(profiles: Profiles, column: str) -> ProbeWells:
    """Treated wells whose label occurs at least twice."""
    metadata = profiles.metadata.with_columns(pl.col(column).cast(pl.String).alias("label"))
    is_treated = ~pl.Series(profiles.is_control) & pl.Series(
        metadata.select(
            pl.col(CONTROL_TYPE).ne_missing(EMPTY) & pl.col(PERTURBATION).is_not_null()
        ).to_series()
    )
    counts = metadata.filter(is_treated & metadata["label"].is_not_null())["label"].value_counts()
    common = counts.filter(pl.col("count") >= FEWEST_WELLS_PER_LABEL)["label"].implode()
    rows = np.flatnonzero((is_treated & metadata["label"].is_in(common).fill_null(value=False)).to_numpy())
    kept = metadata[rows]
    # Doses of a compound share what they do: one of them in training would give the others away.
    compound = name_compounds(metadata)[rows]
    return ProbeWells(
        features=profiles.features[rows],
        label=np.unique(kept["label"].to_numpy().astype(str), return_inverse=True)[1],
        plate=kept[PLATE].to_numpy().astype(str),
        perturbation=compound.to_numpy().astype(str),
        well=kept.select(pl.concat_str(PLATE, WELL, separator="/")).to_series().to_numpy().astype(str),
    )


def judged_split(
    name: str, wells: ProbeWells, units: Shaped[ndarray, " wells"], settings: EvaluateSettings
) -> dict[str, Any]:
    """Predict every well from folds that do not hold its unit, with the labels as they are and shuffled."""
    is_shared = is_in_two(wells.label, units)
    members, units = wells.only(is_shared), units[is_shared]
    fold = folds_of(units, salt=name)
    # A hash may put all units of a label into one fold, which leaves none to learn it from.
    is_learnable = is_in_two(members.label, fold)
    judged = members.only(is_learnable)
    unlearnable = {"unlearnable_wells": int(wells.label.size - judged.label.size)}
    if np.unique(judged.label).size < 2:
        return {"reason": reason_against(name, wells, members)} | unlearnable
    return unlearnable | judged_wells(name, judged, units[is_learnable], fold[is_learnable], settings)


def judged_wells(
    name: str,
    wells: ProbeWells,
    units: Shaped[ndarray, " wells"],
    fold: Int[ndarray, " wells"],
    settings: EvaluateSettings,
) -> dict[str, Any]:
    """Judge wells whose labels are all found in two folds or more."""
    metrics: dict[str, Any] = {"units": int(np.unique(units).size), "folds": int(np.unique(fold).size)}
    truth = {"": wells.label, "shuffled": shuffled_labels(name, wells, settings.seed)}
    for which, label in truth.items():
        predicted, unconverged = predict_held_out(wells.features, label, fold)
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
    return metrics | {"chance": float(np.bincount(wells.label).max() / wells.label.size)}


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


def predict_held_out(
    features: Float[ndarray, "wells features"], label: Int[ndarray, " wells"], fold: Int[ndarray, " wells"]
) -> tuple[Int[ndarray, " wells"], int]:
    """Predict each of two folds or more from all others; also the number of folds that did not converge."""
    predicted = np.empty_like(label)
    unconverged = 0
    for number in np.unique(fold):
        is_test = fold == number
        if np.unique(label[~is_test]).size < 2:
            predicted[is_test] = label[~is_test][0]
            continue
        predicted[is_test], is_converged = fit_and_predict(
            features[~is_test], label[~is_test], features[is_test]
        )
        unconverged += not is_converged
    return predicted, unconverged


def fit_and_predict(
    train: Float[ndarray, "train features"],
    label: Int[ndarray, " train"],
    test: Float[ndarray, "test features"],
) -> tuple[Int[ndarray, " test"], bool]:
    """Multinomial logistic regression with a ridge, on features standardised by the training wells."""
    scaler = StandardScaler().fit(train.astype(np.float64))
    x, y = scaler.transform(train.astype(np.float64)), scaler.transform(test.astype(np.float64))
    # A ridge does not mind rotation: with fewer wells than features, the wells' own axes say the same in less.
    if x.shape[0] < x.shape[1]:
        axes = np.linalg.svd(x, full_matrices=False)[2]
        x, y = x @ axes.T, y @ axes.T
    # One thread: these fits are many and small, and two threads that wait for each other took 60 times as long.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=1.0, max_iter=MOST_ITERATIONS).fit(x, label)
    is_converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return np.asarray(model.predict(y)), is_converged
