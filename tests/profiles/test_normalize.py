"""Normalisation learns from controls only, says what it drops, and stays sensible with few controls."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvim.errors import InputError
from cellvim.profiles import Profiles, control_folds, fit_sphere, normalize

MakeProfiles = Callable[..., Profiles]

METHODS = ("standardize", "mad", "sphere")
FLOAT32_ROUNDING = 1e-4
"""Of values of order 1 to 100 that are stored in float32 once after work in float64."""


@pytest.fixture(scope="module")
def screen(make_profiles: MakeProfiles) -> Profiles:
    """Two plates of 24 wells, 12 correlated features, 8 controls each; the plates differ in gain and offset."""
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(12, 12))
    features = rng.normal(size=(48, 12)) @ mixing
    features[24:] = 3 * features[24:] + 10
    control = (["negcon"] * 8 + [None] * 16) * 2
    wells = [f"{row}{column:02}" for row in "AB" for column in range(1, 13)]
    return make_profiles(features, Plate=["P1"] * 24 + ["P2"] * 24, Well=wells * 2, ControlType=control)


def changed(profiles: Profiles, rows: np.ndarray, make_profiles: MakeProfiles) -> Profiles:
    features = profiles.features.copy()
    features[rows] = np.random.default_rng(9).normal(size=(int(rows.sum()), features.shape[1])) * 50
    columns = {
        name.removeprefix("Metadata_"): profiles.metadata[name].to_list()
        for name in profiles.metadata.columns
    }
    return make_profiles(features, **columns)


@pytest.mark.parametrize("method", METHODS)
def test_wells_that_are_reported_on_do_not_change_the_fit(
    make_profiles: MakeProfiles, screen: Profiles, method: str
) -> None:
    untouched = screen.is_control | (np.arange(48) % 3 == 0)
    other = changed(screen, ~untouched, make_profiles)
    np.testing.assert_array_equal(
        normalize(other, method).features[untouched], normalize(screen, method).features[untouched]
    )


def test_standardize_is_its_definition_per_plate(screen: Profiles) -> None:
    result = normalize(screen, "standardize").features
    for plate in (slice(0, 24), slice(24, 48)):
        own = screen.features[plate].astype(np.float64)
        controls = own[:8]
        expected = (own - controls.mean(0)) / controls.std(0, ddof=1)
        np.testing.assert_allclose(result[plate], expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def test_mad_is_its_definition_per_plate(screen: Profiles) -> None:
    result = normalize(screen, "mad").features
    controls = screen.features[:8].astype(np.float64)
    median = np.median(controls, axis=0)
    expected = (screen.features[:24] - median) / (1.4826 * np.median(np.abs(controls - median), axis=0))
    np.testing.assert_allclose(result[:24], expected, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_gain_and_offset_of_a_plate_are_taken_out(screen: Profiles, method: str) -> None:
    """Whatever a plate's gain, its controls end with centre 0 and spread 1."""
    for plate in (slice(0, 8), slice(24, 32)):
        controls = normalize(screen, method).features[plate].astype(np.float64)
        if method == "mad":
            centre = np.median(controls, axis=0)
            spread = 1.4826 * np.median(np.abs(controls - centre), axis=0)
        else:
            centre, spread = controls.mean(axis=0), controls.std(axis=0, ddof=1)
        np.testing.assert_allclose(centre, 0, atol=FLOAT32_ROUNDING)
        np.testing.assert_allclose(spread, 1, rtol=FLOAT32_ROUNDING)


def test_none_changes_nothing(screen: Profiles) -> None:
    assert normalize(screen, "none") is screen


@pytest.mark.parametrize("method", METHODS)
def test_a_feature_that_is_flat_among_some_plates_controls_is_dropped_and_counted(
    make_profiles: MakeProfiles, screen: Profiles, method: str
) -> None:
    features = screen.features.copy()
    features[24:32, 5] = 7.0
    columns = {
        name.removeprefix("Metadata_"): screen.metadata[name].to_list() for name in screen.metadata.columns
    }
    result = normalize(make_profiles(features, **columns), method)
    assert "emb_0005" not in result.feature_names
    assert result.features.shape == (48, 11)
    assert result.warnings[-1].startswith("1 of 12 features dropped")


@pytest.mark.parametrize("method", METHODS)
def test_a_collapsed_table_becomes_zeros_and_says_so(make_profiles: MakeProfiles, method: str) -> None:
    flat = make_profiles(np.full((10, 4), 0.1), ControlType=["negcon"] * 4 + [None] * 6)
    result = normalize(flat, method)
    assert not result.features.any()
    assert "no feature varies" in result.warnings[-1]


@pytest.mark.parametrize("method", METHODS)
def test_too_few_controls_are_refused(make_profiles: MakeProfiles, method: str) -> None:
    features = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(InputError, match="no negative controls") as caught:
        normalize(make_profiles(features), method)
    assert "--control" in caught.value.hint
    with pytest.raises(InputError, match=r"fewer than 3 negative controls .* P"):
        normalize(make_profiles(features, ControlType=["negcon"] + [None] * 5), method)


@given(seed=st.integers(0, 2**31), controls=st.integers(2, 9), features=st.integers(1, 12))
def test_sphere_is_zca_of_the_correlation_matrix(seed: int, controls: int, features: int) -> None:
    """Same as the definition by a full eigendecomposition, with more or fewer controls than features."""
    sample = np.random.default_rng(seed).normal(size=(controls, features)) * 5 + 2
    standardized = (sample - sample.mean(0)) / sample.std(0, ddof=1)
    eigenvalues, vectors = np.linalg.eigh(
        np.cov(standardized.T).reshape(features, features) + 0.5 * np.eye(features)
    )
    expected = standardized @ (vectors / np.sqrt(eigenvalues)) @ vectors.T
    np.testing.assert_allclose(fit_sphere(sample, ridge=0.5).apply(sample), expected, atol=1e-9)


def test_without_a_ridge_whitened_controls_have_identity_covariance() -> None:
    rng = np.random.default_rng(1)
    sample = rng.normal(size=(200, 15)) @ rng.normal(size=(15, 15))
    whitened = fit_sphere(sample, ridge=0.0).apply(sample)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(15), atol=1e-9)


def test_no_direction_is_amplified_over_plain_standardisation() -> None:
    """Six controls say nothing about most of 200 directions: those must not be blown up."""
    rng = np.random.default_rng(2)
    sphere = fit_sphere(rng.normal(size=(6, 200)))
    wells = rng.normal(size=(50, 200)) * 3
    standardized = (wells - sphere.centre) / sphere.spread
    lengths = np.linalg.norm(sphere.apply(wells), axis=1)
    assert (lengths <= np.linalg.norm(standardized, axis=1) * (1 + 1e-12)).all()


def test_control_folds_deal_every_control_once_and_spread_plates(screen: Profiles) -> None:
    fold = control_folds(screen, 3)
    assert (fold[~screen.is_control] == -1).all()
    for plate in (slice(0, 24), slice(24, 48)):
        assert sorted(np.bincount(fold[plate][:8]).tolist()) == [2, 3, 3]
