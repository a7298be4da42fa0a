"""Separation of controls and precision of groups against their definitions and their limits."""

import numpy as np
import pytest

from pipelines.dose_response import Fit, bootstrap, group_precision, separation


def controls(features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wells = np.random.default_rng(seed).normal(size=(30, features))
    index = np.arange(30)
    return wells, index < 6, (index >= 6) & (index < 10)


def as_is(wells: np.ndarray) -> Fit:
    return lambda _: wells


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


def test_bootstrap_covers_the_mean_and_repeats() -> None:
    sample = np.random.default_rng(5).normal(2.0, 1.0, 200)
    estimate = bootstrap(lambda x: float(x.mean()), sample, seed=1)
    assert estimate.low < 2.0 < estimate.high
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * sample.std() / np.sqrt(200), rel=0.15)
    assert bootstrap(lambda x: float(x.mean()), sample, seed=1) == estimate
