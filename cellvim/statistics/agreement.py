"""How well do predicted labels agree with the true ones, and how sure is that?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

from cellvim.statistics.bootstrap import Estimate, resampled_counts

# Counts held at once: 32 MiB.
BLOCK_ENTRIES = 2**22


def score_predictions(
    label: Int[ndarray, " items"],
    predicted: Int[ndarray, " items"],
    unit: Int[ndarray, " items"],
    *,
    resamples: int,
    seed: int,
    name: str,
) -> dict[str, Estimate]:
    """Accuracy and macro F1, each with a bootstrap interval over units.

    Args:
        label: True label of each prediction, from 0.
        predicted: Predicted label.
        unit: What the prediction belongs to, from 0; predictions of a unit are resampled together.
        resamples: Number of resamples.
        seed: With `name` it decides the resamples.
        name: Name of what is scored, so that no two share their draws.
    """
    size = int(max(label.max(), predicted.max())) + 1
    units = int(unit.max()) + 1
    is_hit = label == predicted
    counts = resampled_counts(units, resamples=resamples, seed=seed, name=name)
    whole, resampled = (
        Tallies(
            hits=tally(drawn, unit[is_hit], label[is_hit], size),
            truths=tally(drawn, unit, label, size),
            calls=tally(drawn, unit, predicted, size),
        )
        for drawn in (np.ones((1, units)), counts)
    )
    estimates = {}
    for metric, measure in (("accuracy", accuracy_of), ("macro_f1", macro_f1_of)):
        value = float(measure(whole)[0])
        estimates[metric] = (
            Estimate.from_resamples(value, measure(resampled)) if units > 1 else Estimate(value)
        )
    return estimates


@dataclass(frozen=True)
class Tallies:
    """Items by label, in each resample: predicted rightly, there, and predicted."""

    hits: Float64[ndarray, "resamples labels"]
    truths: Float64[ndarray, "resamples labels"]
    calls: Float64[ndarray, "resamples labels"]


def tally(
    drawn: Float64[ndarray, "resamples units"],
    unit: Int[ndarray, " items"],
    label: Int[ndarray, " items"],
    labels: int,
) -> Float64[ndarray, "resamples labels"]:
    """Count items by label, each as often as its unit is drawn; never a table of units by labels, which may be large."""
    order = np.argsort(label, kind="stable")
    present, starts = np.unique(label[order], return_index=True)
    counts = np.zeros((len(drawn), labels))
    if not present.size:
        return counts
    height = max(1, BLOCK_ENTRIES // label.size)
    for start in range(0, len(drawn), height):
        at = slice(start, start + height)
        counts[at, present] = np.add.reduceat(drawn[at][:, unit[order]], starts, axis=1)
    return counts


def accuracy_of(found: Tallies) -> Float64[ndarray, " resamples"]:
    """Share of items whose label is predicted."""
    return np.asarray(found.hits.sum(axis=1) / found.truths.sum(axis=1))


def macro_f1_of(found: Tallies) -> Float64[ndarray, " resamples"]:
    """Mean over labels of the harmonic mean of precision and recall; labels neither true nor called are left out."""
    involved = found.truths + found.calls
    is_involved: Bool[ndarray, "resamples labels"] = involved > 0
    f1 = 2 * found.hits / np.where(is_involved, involved, 1)
    return np.asarray(f1.sum(axis=1) / is_involved.sum(axis=1))
