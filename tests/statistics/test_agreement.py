"""Scores of predictions, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from cellvim.statistics import score_predictions


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
