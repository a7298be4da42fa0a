"""Scores of predictions, against scikit-learn."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from cellvim.statistics import resampled_counts, score_predictions


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 6, 80), rng.integers(0, 6, 80)
    unit = rng.integers(0, 9, 80)
    scores = score_predictions(truth, predicted, unit, resamples=200, seed=0, name="x")
    assert scores["accuracy"].value == pytest.approx(accuracy_score(truth, predicted))
    assert scores["macro_f1"].value == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_predictions_of_one_unit_have_no_interval() -> None:
    truth = np.array([0, 1, 1])
    scores = score_predictions(truth, truth, np.zeros(3, int), resamples=20, seed=0, name="x")
    assert scores["accuracy"].as_metric() == scores["macro_f1"].as_metric() == 1.0


def test_intervals_are_those_of_a_loop_that_repeats_units() -> None:
    rng = np.random.default_rng(3)
    truth, predicted, unit = rng.integers(0, 5, 60), rng.integers(0, 5, 60), rng.integers(0, 7, 60)
    found = score_predictions(truth, predicted, unit, resamples=40, seed=1, name="x")
    drawn = resampled_counts(7, resamples=40, seed=1, name="x").astype(int)
    again = [np.repeat(np.arange(60), counts[unit]) for counts in drawn]
    for metric, score in (
        ("accuracy", accuracy_score),
        ("macro_f1", lambda a, b: f1_score(a, b, average="macro")),
    ):
        expected = np.quantile([score(truth[rows], predicted[rows]) for rows in again], [0.025, 0.975])
        assert (found[metric].low, found[metric].high) == pytest.approx(tuple(expected))


def test_memory_holds_no_table_of_units_by_labels() -> None:
    """2,000 wells of 2,000 labels, each a unit of its own: that table would take 32 MB, three times."""
    label = np.arange(2000)
    tracemalloc.start()
    score_predictions(label, label[::-1].copy(), label, resamples=20, seed=0, name="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
