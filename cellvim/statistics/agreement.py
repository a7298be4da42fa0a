"""How well do predicted labels agree with the true ones, and how sure is that?"""

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

from cellvim.statistics.bootstrap import Estimate, resampled_counts


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
    hits = tally(unit[label == predicted], label[label == predicted], units, size)
    truths, calls = tally(unit, label, units, size), tally(unit, predicted, units, size)
    whole = np.ones((1, units))
    counts = resampled_counts(units, resamples=resamples, seed=seed, name=name)
    estimates = {}
    for metric, measure in (("accuracy", accuracy_of), ("macro_f1", macro_f1_of)):
        value = measure(hits, truths, calls, whole)[0]
        resampled = measure(hits, truths, calls, counts)
        estimates[metric] = Estimate.from_resamples(value, resampled) if units > 1 else Estimate(float(value))
    return estimates


def tally(
    unit: Int[ndarray, " items"], label: Int[ndarray, " items"], units: int, labels: int
) -> Float64[ndarray, "units labels"]:
    """Count items by unit and label."""
    return (
        np.bincount(unit * labels + label, minlength=units * labels).reshape(units, labels).astype(np.float64)
    )


Tally = Float64[ndarray, "units labels"]


def accuracy_of(
    hits: Tally,
    truths: Tally,
    calls: Tally,  # noqa: ARG001 - measures are called alike
    counts: Float64[ndarray, "resamples units"],
) -> Float64[ndarray, " resamples"]:
    """Share of items whose label is predicted."""
    return np.asarray((counts @ hits.sum(axis=1)) / (counts @ truths.sum(axis=1)))


def macro_f1_of(
    hits: Tally, truths: Tally, calls: Tally, counts: Float64[ndarray, "resamples units"]
) -> Float64[ndarray, " resamples"]:
    """Mean over labels of the harmonic mean of precision and recall; labels neither true nor called are left out."""
    involved = counts @ (truths + calls)
    f1 = 2 * (counts @ hits) / np.where(involved > 0, involved, 1)
    is_involved: Bool[ndarray, "resamples labels"] = involved > 0
    return np.asarray(f1.sum(axis=1) / is_involved.sum(axis=1))
