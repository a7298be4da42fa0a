"""How well does a classifier name wells that it has not seen? Three answers from one run, one of them leaky."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from cellvim.config import PretrainSettings
from cellvim.dataset import prefetched
from cellvim.dataset.splits import (
    LEAKY,
    PERTURBATION_HELD_OUT,
    PLATE_HELD_OUT,
    Division,
    LabelledWell,
)
from cellvim.dataset.views import read_views
from cellvim.statistics import Estimate, score_predictions

if TYPE_CHECKING:
    from cellvim.pretrain.supervised import ClassifierObjective

RESAMPLES = 1000


def judge_held_out(
    objective: "ClassifierObjective", division: Division, settings: PretrainSettings
) -> dict[str, Any]:
    """Judge each held-out set of a division.

    Args:
        objective: The trained classifier.
        division: What it was trained on, and what not.
        settings: Size of the crops, and the seed of the intervals.

    Returns:
        What was predicted, what became of all wells, and under ``splits`` for each set either its scores or the
        ``reason`` why it cannot exist on these plates.
    """
    splits = {}
    for name, held_out in division.held_out.items():
        if held_out.reason is None:
            truth, log_probabilities, well = predict_crops(objective, held_out.wells, division, settings)
            unit = units_of(name, held_out.wells)
            scores = score_split(truth, log_probabilities, well, unit, seed=settings.seed, name=name)
        else:
            scores = {"reason": held_out.reason}
        splits[name] = {**scores, "unlearnable_wells": held_out.unlearnable_wells}
    return {
        "label": division.label,
        "group": division.group,
        "trained_classes": len(division.classes),
        **division.counts,
        "held_out_plates": list(division.held_out_plates),
        "held_out_groups": list(division.held_out_groups),
        "splits": splits,
    }


def holdout_lines(results: Mapping[str, Any] | None) -> list[str]:
    """Scores of each held-out set, one line each, for a terminal."""
    if results is None:
        return []
    return [
        f"  {name}: not done, {split['reason']}"
        if "reason" in split
        else f"  {name}: {split['accuracy_per_well']} of {split['wells']} wells named, chance {split['chance']}"
        for name, split in shown_splits(results)
    ]


def shown_splits(results: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Scores of each held-out set as text, for people."""
    shown = []
    for name, split in results["splits"].items():
        texts = {key: _as_text(value) for key, value in split.items()}
        if "reason" not in split:
            texts["chance"] = f"{max(split['chance_commonest'], split['chance_uniform']):.3f}"
        shown.append((name, texts))
    return shown


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(Estimate(**value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@torch.no_grad()
def predict_crops(
    objective: "ClassifierObjective",
    wells: Sequence[LabelledWell],
    division: Division,
    settings: PretrainSettings,
) -> tuple[Int[ndarray, " wells"], Float[ndarray, "crops classes"], Int[ndarray, " crops"]]:
    """Classify crops of some wells, all channels shown.

    Returns:
        Class of each well, log-probabilities of each crop, and the number of each crop's well.
    """
    device = next(objective.parameters()).device
    crop_px, was_training = settings.crops.crop_px, objective.training
    objective.eval()
    rows, owner = [], []
    views = prefetched(lambda well: read_views(well, crop_px=crop_px), wells)
    for number, (well, images) in enumerate(zip(wells, views, strict=True)):
        logits = objective.classify(images.to(device), well.plate.channels)
        rows.append(logits.double().log_softmax(dim=1).cpu().numpy())
        owner += [number] * len(images)
    objective.train(was_training)
    truth = np.array([division.classes.index(well.label) for well in wells])
    return truth, np.concatenate(rows), np.array(owner)


def units_of(name: str, wells: Sequence[LabelledWell]) -> Int[ndarray, " wells"]:
    """Number of what was held out as one: a plate, a value of the group, or a well. Its wells resemble each other."""
    names = {
        PLATE_HELD_OUT: [well.plate.name for well in wells],
        PERTURBATION_HELD_OUT: [well.group or "" for well in wells],
        LEAKY: [f"{well.plate.name}/{well.well}" for well in wells],
    }[name]
    return np.unique(names, return_inverse=True)[1]


def score_split(
    truth: Int[ndarray, " wells"],
    log_probabilities: Float[ndarray, "crops classes"],
    well: Int[ndarray, " crops"],
    unit: Int[ndarray, " wells"],
    *,
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Score crops, and wells by the mean log-probabilities of their crops; intervals are over units.

    Args:
        truth: Class of each well.
        log_probabilities: Of each crop.
        well: Number of each crop's well, from 0.
        unit: Number of what each well was held out with, from 0. A single unit leaves no interval.
        seed: With `name` it decides the resamples.
        name: Name of the set.
    """
    wells, classes = truth.size, log_probabilities.shape[1]
    crops_of_well = np.bincount(well, minlength=wells)
    sums = np.zeros((wells, classes))
    np.add.at(sums, well, log_probabilities)
    called = (sums / crops_of_well[:, None]).argmax(axis=1)
    by_crop = score_predictions(
        truth[well],
        log_probabilities.argmax(axis=1),
        unit[well],
        resamples=RESAMPLES,
        seed=seed,
        name=f"{name}/crop",
    )
    by_well = score_predictions(truth, called, unit, resamples=RESAMPLES, seed=seed, name=f"{name}/well")
    return {
        "accuracy_per_well": by_well["accuracy"].as_metric(),
        "macro_f1_per_well": by_well["macro_f1"].as_metric(),
        "accuracy_per_crop": by_crop["accuracy"].as_metric(),
        "chance_commonest": float(np.bincount(truth).max() / wells),
        "chance_uniform": 1 / classes,
        "units": int(unit.max()) + 1,
        "wells": wells,
        "crops": int(well.size),
        "classes": int(np.unique(truth).size),
    }
