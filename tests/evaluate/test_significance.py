"""P-values: exact where rank lists can be counted, never dependent on neighbours, and honest under the null."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import false_discovery_control

from cellvim.evaluate.precision import average_precision, expected_average_precision
from cellvim.evaluate.questions import WellLabels, replicates
from cellvim.evaluate.retrieval import Space, score_queries
from cellvim.evaluate.significance import NullDistributions, benjamini_hochberg, random_places


def test_small_nulls_are_all_orders_there_are() -> None:
    """Every order of 2 positives among 5, judged one by one, gives the same distribution."""
    relevant = np.array([True, True, False, False, False])
    orders = [average_precision(np.array(order, float), relevant) for order in permutations(range(5))]
    null = NullDistributions(null_size=10, seed=0).of(2, 5)
    assert null.size == math.comb(5, 2)
    np.testing.assert_allclose(np.repeat(null, len(orders) // null.size), np.sort(orders))


@pytest.mark.parametrize(("positives", "total"), [(1, 40), (3, 60), (20, 60)])
def test_sampled_nulls_come_close_to_the_exact_mean(positives: int, total: int) -> None:
    size = 1000 if positives > 1 else 30
    null = NullDistributions(null_size=size, seed=1).of(positives, total)
    assert null.size == size
    expected = expected_average_precision(np.array([positives]), np.array([total]))[0]
    assert abs(null.mean() - expected) < 4 * null.std() / size**0.5


@given(positives=st.integers(1, 8), extra=st.integers(1, 60), seed=st.integers(0, 1000))
def test_random_places_are_distinct_and_inside(positives: int, extra: int, seed: int) -> None:
    total = positives + extra
    places = random_places(positives, total, 50, np.random.default_rng(seed))
    assert places.shape == (50, positives)
    assert places.min() >= 1
    assert places.max() <= total
    assert (np.diff(places, axis=1) > 0).all()


@pytest.mark.parametrize(("positives", "total"), [(2, 5), (2, 3), (3, 6)])
def test_random_places_are_equally_likely(positives: int, total: int) -> None:
    """Also where most places are drawn, and where half of them are and many are drawn twice."""
    places = random_places(positives, total, 6000, np.random.default_rng(0))
    counts = np.unique(places, axis=0, return_counts=True)[1]
    sets = math.comb(total, positives)
    assert counts.size == sets
    assert (np.abs(counts - 6000 / sets) < 5 * (6000 / sets) ** 0.5).all()


def test_a_p_value_does_not_depend_on_what_was_asked_before() -> None:
    alone, after = NullDistributions(null_size=500, seed=3), NullDistributions(null_size=500, seed=3)
    after.of(4, 77)
    np.testing.assert_array_equal(alone.of(5, 99), after.of(5, 99))
    assert not np.array_equal(alone.of(5, 99), NullDistributions(null_size=500, seed=4).of(5, 99))


def test_the_best_ranking_reaches_the_smallest_p_and_the_worst_reaches_one() -> None:
    nulls = NullDistributions(null_size=10000, seed=0)
    worst = np.mean([1 / 7, 2 / 8])
    values = np.array([1, worst, 1, worst])
    found = nulls.test(np.array([0, 1, 0, 1]), values, np.full(4, 2), np.full(4, 8))
    assert found.mean.tolist() == pytest.approx([1, worst])
    assert found.p[0] == found.smallest_p[0] == found.smallest_p[1] == 1 / (1 + math.comb(8, 2))
    assert found.p[1] == pytest.approx(math.comb(8, 2) / (1 + math.comb(8, 2)))


@given(seed=st.integers(0, 2**31))
def test_groups_tested_together_get_what_each_gets_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = np.r_[np.arange(6), rng.integers(0, 6, 14)]
    positives, total = rng.integers(1, 4, 20), rng.integers(5, 8, 20)
    values = rng.random(20)
    nulls = NullDistributions(null_size=60, seed=0)
    together = nulls.test(group, values, positives, total)
    for code in range(6):
        own = group == code
        alone = nulls.test(np.zeros(own.sum(), int), values[own], positives[own], total[own])
        shapes = np.unique(np.stack([positives, total], 1)[own], axis=0, return_counts=True)
        null = nulls.of_mean(tuple((int(p), int(n), int(c)) for (p, n), c in zip(*shapes, strict=True)))
        assert together.mean[code] == pytest.approx(values[own].mean(), abs=1e-12)
        assert (
            together.p[code] == alone.p[0] == (1 + (null > values[own].mean() + 1e-9).sum()) / (1 + null.size)
        )
        assert together.smallest_p[code] == alone.smallest_p[0]


def test_a_mean_that_equals_a_null_value_up_to_rounding_does_not_count_as_smaller() -> None:
    """Three equal average precisions, summed and divided, need not give that value back."""
    nulls = NullDistributions(null_size=10000, seed=0)
    null = nulls.of(3, 12)
    values = null[[10, 100, 200]]
    for value in values:
        noisy = value + np.array([-1e-15, 0, 1e-15])
        found = nulls.test(np.arange(3), noisy, np.full(3, 3), np.full(3, 12))
        assert np.ptp(found.p) == 0


def test_the_null_of_a_mean_lies_between_those_of_its_queries() -> None:
    nulls = NullDistributions(null_size=2000, seed=0)
    mixed = nulls.of_mean(((2, 8, 2), (3, 30, 1)))
    assert mixed.mean() == pytest.approx((2 * nulls.of(2, 8).mean() + nulls.of(3, 30).mean()) / 3, abs=0.01)
    assert (np.diff(mixed) >= 0).all()
    np.testing.assert_array_equal(nulls.of_mean(((2, 8, 2),)), nulls.of(2, 8))


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)))
def test_benjamini_hochberg_agrees_with_scipy(p: np.ndarray) -> None:
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p, method="bh"), atol=1e-12)


@pytest.mark.parametrize("controls", [(9, 9, 9), (5, 8, 12)])
def test_random_embeddings_are_not_called_active(controls: tuple[int, ...]) -> None:
    """Under the null p-values may be large, never small too often: 12 screens of 20 perturbations, 3 plates."""
    nulls = NullDistributions(null_size=2000, seed=0)
    found = []
    for seed in range(12):
        labels = null_screen(controls, perturbations=20)
        features = np.random.default_rng(seed).normal(size=(labels.plate.size, 16))
        found.append(p_values(features, labels, nulls))
    p = np.concatenate(found)
    for level in (0.01, 0.05, 0.2):
        allowed = level + 3 * (level * (1 - level) / p.size) ** 0.5
        assert (p <= level).mean() <= allowed
    assert np.mean([(benjamini_hochberg(one) < 0.05).mean() for one in found]) <= 0.05


def null_screen(controls: tuple[int, ...], *, perturbations: int) -> WellLabels:
    plates = [
        (plate, np.r_[np.zeros(n, int), 1 + np.arange(perturbations)]) for plate, n in enumerate(controls)
    ]
    plate = np.concatenate([np.full(codes.size, number) for number, codes in plates])
    perturbation = np.concatenate([codes for _, codes in plates])
    return WellLabels(plate, perturbation, perturbation == 0)


def p_values(features: np.ndarray, labels: WellLabels, nulls: NullDistributions) -> np.ndarray:
    scores = score_queries([Space.whole(features)], replicates(labels, "activity"))
    group = labels.perturbation[scores.unit] - 1
    return nulls.test(group, scores.average_precision, scores.positives, scores.total).p
