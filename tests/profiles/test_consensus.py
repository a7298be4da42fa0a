"""One profile per perturbation: what is averaged, what is kept, and that rotations commute with the mean."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ortho_group

from cellvim.profiles import REPLICATES, Profiles, consensus

PERTURBATION = "Metadata_Perturbation"
MakeProfiles = Callable[..., Profiles]


@pytest.fixture
def wells(make_profiles: MakeProfiles) -> Profiles:
    features = np.random.default_rng(0).normal(size=(7, 4))
    names = ["b", "a", "b", None, "b", "a", "c"]
    return make_profiles(features, Perturbation=names, Moa=["x", "y", "x", "x", "x", "y", "x"])


def test_wells_of_a_perturbation_are_averaged_and_counted(wells: Profiles) -> None:
    found = consensus(wells, [PERTURBATION])
    assert found.metadata[PERTURBATION].to_list() == ["a", "b", "c"]
    assert found.metadata[REPLICATES].to_list() == [2, 3, 1]
    assert found.metadata["Metadata_Moa"].to_list() == ["y", "x", "x"]
    assert "Metadata_Well" not in found.metadata.columns
    np.testing.assert_allclose(found.features[1], wells.features[[0, 2, 4]].mean(axis=0), rtol=1e-6)


def test_the_median_is_taken_feature_by_feature(wells: Profiles) -> None:
    found = consensus(wells, [PERTURBATION], "median")
    np.testing.assert_allclose(found.features[1], np.median(wells.features[[0, 2, 4]], axis=0), rtol=1e-6)


def test_the_mean_commutes_with_a_rotation_and_the_median_does_not(wells: Profiles) -> None:
    turn = ortho_group.rvs(4, random_state=1)
    turned = replace(wells, features=(wells.features @ turn).astype(np.float32))
    for average, is_equal in (("mean", True), ("median", False)):
        after, before = consensus(turned, [PERTURBATION], average), consensus(wells, [PERTURBATION], average)
        assert np.allclose(after.features, before.features @ turn, atol=1e-5) == is_equal


def test_the_order_of_wells_changes_nothing(wells: Profiles) -> None:
    mixed = wells.only(np.array([6, 3, 1, 4, 0, 5, 2]))
    np.testing.assert_allclose(
        consensus(mixed, [PERTURBATION]).features, consensus(wells, [PERTURBATION]).features, rtol=1e-6
    )
