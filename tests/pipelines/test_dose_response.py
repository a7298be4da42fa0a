"""Dose-response numbers against scipy, their definitions and their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from pipelines.dose_response import (
    Fit,
    axis_scores,
    bootstrap,
    group_precision,
    permutation_p,
    separation,
    spearman,
    z_prime,
)

rough = arrays(np.float64, st.integers(3, 20), elements=st.integers(-5, 5).map(float))


@given(st.data())
def test_spearman_equals_scipy_also_with_ties(data: st.DataObject) -> None:
    x = data.draw(rough.filter(lambda values: np.ptp(values) > 0))
    y = data.draw(
        arrays(np.float64, x.size, elements=st.integers(-5, 5).map(float)).filter(lambda v: np.ptp(v) > 0)
    )
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_of_a_constant_is_undefined() -> None:
    assert np.isnan(spearman(np.arange(4.0), np.ones(4)))


def test_permutation_p_agrees_with_exact_enumeration() -> None:
    x, y = np.arange(6.0), np.array([0.1, 0.3, 0.2, 0.5, 0.4, 0.9])
    exact = stats.permutation_test(
        (y,), lambda v: stats.spearmanr(x, v).statistic, permutation_type="pairings", alternative="greater"
    )
    assert permutation_p(x, y, seed=0) == pytest.approx(exact.pvalue, abs=0.01)


def test_permutation_p_of_noise_is_uniform() -> None:
    generator = np.random.default_rng(3)
    p = [
        permutation_p(np.arange(9.0), generator.normal(size=9), seed=k, permutations=200) for k in range(200)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_z_prime_is_its_formula_and_falls_with_noise() -> None:
    negative, positive = np.array([-1.0, 0.0, 1.0]), np.array([9.0, 10.0, 11.0])
    assert z_prime(negative, positive) == pytest.approx(1 - 3 * 2 / 10)
    assert z_prime(negative * 2, positive) < z_prime(negative, positive)
    assert z_prime(negative, negative) == float("-inf")


def controls(features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wells = np.random.default_rng(seed).normal(size=(30, features))
    index = np.arange(30)
    return wells, index < 6, (index >= 6) & (index < 10)


def as_is(wells: np.ndarray) -> Fit:
    return lambda _: wells


def test_controls_mark_zero_and_one_on_the_axis() -> None:
    wells, negative, positive = controls(3)
    wells[:, 0] += np.where(positive, 50.0, 0.0)
    scores = axis_scores(as_is(wells), is_negative=negative, is_positive=positive)
    assert scores[negative].mean() == pytest.approx(0, abs=0.05)
    assert scores[positive].mean() == pytest.approx(1, abs=0.05)


def test_the_axis_ignores_shift_scale_and_rotation() -> None:
    wells, negative, positive = controls(4)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    expected = axis_scores(as_is(wells), is_negative=negative, is_positive=positive)
    moved = axis_scores(as_is(3 * wells @ rotation + 7), is_negative=negative, is_positive=positive)
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_random_features_do_not_separate_controls() -> None:
    """The reason to leave a control out of its own axis: 500 features of noise fit ten wells perfectly."""
    wells, negative, positive = controls(500)
    scores = axis_scores(as_is(wells), is_negative=negative, is_positive=positive)
    assert z_prime(scores[negative], scores[positive]) < 0
    assert abs(scores[positive].mean() - scores[negative].mean()) < 0.3


def test_a_control_is_placed_by_a_normalisation_that_has_not_seen_it() -> None:
    wells, negative, positive = controls(3)
    seen = []

    def fit(fitted_on: np.ndarray) -> np.ndarray:
        seen.append(fitted_on.copy())
        return wells

    axis_scores(fit, is_negative=negative, is_positive=positive)
    assert len(seen) == 1 + 10
    assert [np.flatnonzero(negative & ~mask).tolist() for mask in seen[1:7]] == [[k] for k in range(6)]


def test_separation_of_noise_is_small_and_of_a_shift_its_size() -> None:
    wells, negative, positive = controls(20)
    noise = separation(as_is(wells), is_negative=negative, is_positive=positive, seed=0)
    wells[:, 0] += np.where(positive, 100.0, 0.0)
    shifted = separation(as_is(wells), is_negative=negative, is_positive=positive, seed=0)
    assert noise.value < 1
    # A control lies sqrt(20 * (1 + 1/5)) from the mean of five others.
    assert shifted.value == pytest.approx(100 / np.sqrt(24), rel=0.15)
    assert shifted.low < shifted.value < shifted.high


def test_group_precision_is_one_for_a_cluster_and_worst_for_a_collapse() -> None:
    member = np.arange(10) < 4
    cluster = np.where(member[:, None], [1.0, 0.0], [0.0, 1.0])
    assert group_precision(cluster, member) == pytest.approx(1)
    assert group_precision(np.ones((10, 2)), member) == pytest.approx(np.mean([1 / 7, 2 / 8, 3 / 9]))


def test_an_axis_needs_two_controls_of_each_kind() -> None:
    wells, negative, _ = controls(2)
    with pytest.raises(ValueError, match="at least two"):
        axis_scores(as_is(wells), is_negative=negative, is_positive=np.arange(30) == 9)


def test_bootstrap_covers_the_mean_and_repeats() -> None:
    sample = np.random.default_rng(5).normal(2.0, 1.0, 200)
    estimate = bootstrap(lambda x: float(x.mean()), sample, seed=1)
    assert estimate.low < 2.0 < estimate.high
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * sample.std() / np.sqrt(200), rel=0.15)
    assert bootstrap(lambda x: float(x.mean()), sample, seed=1) == estimate
