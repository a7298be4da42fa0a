"""Rank correlation and deals of values against scipy and plain enumeration."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from cellvim.statistics.permutation import arrangements, permutation_p, row_spearman, spearman

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


def test_spearman_of_a_row_leaves_out_what_is_not_there() -> None:
    x, y = np.array([[3.0, 1.0, 2.0, 4.0]] * 2), np.array([[1.0, 2.0, np.nan, 5.0], [np.nan] * 4])
    found = row_spearman(x, y)
    assert found[0] == pytest.approx(stats.spearmanr([3, 1, 4], [1, 2, 5]).statistic)
    assert np.isnan(found[1])
    assert np.isnan(row_spearman(np.empty((2, 0)), np.empty((2, 0)))).all()


@given(st.lists(st.integers(0, 2).map(float), min_size=1, max_size=6), st.data())
def test_every_deal_within_blocks_is_there_once(values: list[float], data: st.DataObject) -> None:
    block = np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(values), max_size=len(values))))
    deals = {
        deal
        for order in permutations(range(len(values)))
        if (block[list(order)] == block).all()
        for deal in [tuple(values[place] for place in order)]
    }
    found = arrangements(np.array(values), block, most=1000, seed=0, name="x")
    assert found.is_exact
    assert len(found.values) == len(deals)
    assert set(map(tuple, found.values.tolist())) == deals
    assert found.smallest_p == 1 / len(deals)


def test_a_sample_keeps_blocks_repeats_itself_and_differs_by_name() -> None:
    values, block = np.arange(12.0), np.repeat([0, 1], 6)
    found = arrangements(values, block, most=50, seed=0, name="x")
    assert not found.is_exact
    assert (np.sort(found.values[:, :6], axis=1) == np.arange(6)).all()
    assert (np.sort(found.values[:, 6:], axis=1) == np.arange(6, 12)).all()
    np.testing.assert_array_equal(found.values, arrangements(values, block, most=50, seed=0, name="x").values)
    assert (found.values != arrangements(values, block, most=50, seed=0, name="y").values).any()
    assert found.p_value(np.zeros(50), 1.0) == found.smallest_p == 1 / 51


def test_p_of_a_constant_is_undefined() -> None:
    assert np.isnan(permutation_p(np.arange(4.0), np.ones(4), seed=0))
