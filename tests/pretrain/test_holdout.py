"""Scores of held-out wells: what a well is called, what chance is, and what is said where there is no score."""

import numpy as np
import pytest

from cellvim.dataset.splits import LEAKY, PLATE_HELD_OUT
from cellvim.pretrain.holdout import holdout_lines, score_split

TRUTH = np.array([0, 1, 1, 2])
WELL = np.array([0, 0, 1, 1, 1, 2, 3, 3])
CALLS = np.array([0, 1, 1, 1, 0, 0, 2, 2])
CERTAIN, UNSURE = 0.98, 0.4


def log_probabilities(certainty: np.ndarray) -> np.ndarray:
    rows = np.repeat((1 - certainty)[:, None] / 2, 3, axis=1)
    rows[np.arange(CALLS.size), CALLS] = certainty
    return np.log(rows)


def test_a_well_is_called_by_the_mean_of_its_crops() -> None:
    """The first well has one crop for each of two classes; the surer one decides."""
    for sure, right in ((0, 3), (1, 2)):
        certainty = np.full(CALLS.size, UNSURE)
        certainty[sure] = CERTAIN
        scores = score_split(TRUTH, log_probabilities(certainty), WELL, np.arange(4), seed=0, name="x")
        assert scores["accuracy_per_well"]["value"] == right / 4
        assert scores["accuracy_per_crop"]["value"] == 5 / 8
    assert scores["wells"] == 4
    assert scores["crops"] == 8
    assert scores["classes"] == 3
    assert scores["chance_commonest"] == 0.5
    assert scores["chance_uniform"] == pytest.approx(1 / 3)


def test_intervals_are_a_function_of_the_seed() -> None:
    wells = np.arange(60)
    guesses = np.log(np.random.default_rng(0).dirichlet(np.ones(3), size=60))
    first, again, other = (
        score_split(wells % 3, guesses, wells, wells, seed=seed, name="x") for seed in (1, 1, 2)
    )
    assert first == again
    assert first["macro_f1_per_well"] != other["macro_f1_per_well"]


def test_wells_that_were_held_out_together_are_resampled_together() -> None:
    """Ten perturbations of twelve wells that all go the same way: ten things were seen, and not 120."""
    units, truth = np.repeat(np.arange(10), 12), np.tile([0, 1], 60)
    called = np.where(units % 2, truth, 1 - truth)
    guesses = np.log(np.where(np.eye(2)[called] > 0, CERTAIN, 1 - CERTAIN))
    wells = np.arange(120)
    apart, together, one = (
        score_split(truth, guesses, wells, unit, seed=0, name="x")["accuracy_per_well"]
        for unit in (wells, units, np.zeros_like(wells))
    )
    assert together["value"] == apart["value"] == one == 0.5
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_lines_for_people_hold_score_chance_and_reason() -> None:
    certainty = np.full(CALLS.size, CERTAIN)
    scores = score_split(TRUTH, log_probabilities(certainty), WELL, np.arange(4), seed=0, name="x")
    results = {"splits": {LEAKY: scores, PLATE_HELD_OUT: {"reason": "one plate", "unlearnable_wells": 0}}}
    leaky, by_plate = holdout_lines(results)
    assert leaky.startswith("  random_cell (leaky): 0.750 (")
    assert leaky.endswith("of 4 wells named, chance 0.500")
    assert by_plate == "  plate_held_out: not done, one plate"
    assert holdout_lines(None) == []
