"""Every normalisation against an independent definition, and the laws that all of them share."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power
from sklearn.decomposition import PCA

from cellvim.errors import InputError
from cellvim.profiles import Profiles, fit_normalization, fit_sphere, normalize
from cellvim.profiles.sphere import fit_alignment

MakeProfiles = Callable[..., Profiles]

METHODS = ("standardize", "mad", "sphere", "tvn", "pca")
FLOAT32_ROUNDING = 1e-4
"""Of values of order 1 to 100 that are stored in float32 once after work in float64."""
PLATES = {"P1": slice(0, 40), "P2": slice(40, 80)}
CONTROLS = 16


@pytest.fixture(scope="module")
def screen(make_profiles: MakeProfiles) -> Profiles:
    """Two plates of 40 wells, 6 correlated features, 16 controls first; plates differ in gain and offset."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6))
    features[40:] = 3 * features[40:] + 10
    control = (["negcon"] * CONTROLS + [None] * (40 - CONTROLS)) * 2
    wells = [f"{row}{column:02}" for row in "ABCD" for column in range(1, 11)]
    plates = ["P1"] * 40 + ["P2"] * 40
    return make_profiles(
        features, Plate=plates, Well=wells * 2, ControlType=control, Week=["w1"] * 40 + ["w2"] * 40
    )


def with_values(profiles: Profiles, features: np.ndarray) -> Profiles:
    return replace(profiles, features=np.ascontiguousarray(features, np.float32))


def by_pycytominer(profiles: Profiles, **settings: object) -> np.ndarray:
    """Each plate by itself, fitted on its controls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pycytominer

        names = list(profiles.feature_names)
        tables = []
        for plate in profiles.plates:
            rows = profiles.metadata["Metadata_Plate"] == plate
            table = pd.DataFrame(profiles.features[rows.to_numpy()].astype(np.float64), columns=names)
            table["Metadata_ControlType"] = profiles.metadata.filter(rows)["Metadata_ControlType"].fill_null(
                "x"
            )
            tables.append(
                pycytominer.normalize(
                    table,
                    features=names,
                    meta_features=["Metadata_ControlType"],
                    samples="Metadata_ControlType == 'negcon'",
                    **settings,
                )[names].to_numpy()
            )
        return np.concatenate(tables)


def test_mad_is_that_of_pycytominer(screen: Profiles) -> None:
    expected = by_pycytominer(screen, method="mad_robustize", mad_robustize_epsilon=0)
    np.testing.assert_allclose(normalize(screen, "mad").features, expected, rtol=1e-5, atol=1e-5)


def test_standardize_is_that_of_pycytominer_but_for_the_degrees_of_freedom(screen: Profiles) -> None:
    expected = by_pycytominer(screen, method="standardize") * np.sqrt((CONTROLS - 1) / CONTROLS)
    np.testing.assert_allclose(normalize(screen, "standardize").features, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["ZCA", "ZCA-cor"])
def test_whitening_without_a_ridge_is_that_of_pycytominer(screen: Profiles, method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycytominer.operations import Spherize

        wells = screen.features.astype(np.float64)
        controls = wells[screen.is_control]
        spherize = Spherize(epsilon=0, method=method, return_numpy=True).fit(pd.DataFrame(controls))
        expected = spherize.transform(pd.DataFrame(wells))
    if method == "ZCA-cor":
        result = fit_sphere(controls, ridge=0.0).apply(wells)
    else:
        centre = controls.mean(axis=0)
        result = fit_alignment(controls - centre, ridge=0.0).apply(wells - centre)
    np.testing.assert_allclose(result, expected, atol=1e-8)


def tvn_by_loop(profiles: Profiles, batches: list[str]) -> np.ndarray:
    """The design's four steps one after the other, with scikit-learn's PCA and SciPy's matrix power."""
    wells, controls = profiles.features.astype(np.float64), profiles.is_control
    own = wells[controls]
    wells = (wells - own.mean(0)) / own.std(0, ddof=1)
    wells = PCA(svd_solver="full").fit(wells[controls]).transform(wells)
    for batch in set(batches):
        rows = np.array([each == batch for each in batches])
        own = wells[rows & controls]
        wells[rows] = (wells[rows] - own.mean(0)) / own.std(0, ddof=1)
        covariance = np.cov(wells[rows & controls], rowvar=False, ddof=1)
        wells[rows] = wells[rows] @ fractional_matrix_power(covariance + 0.5 * np.eye(wells.shape[1]), -0.5)
    return wells


@pytest.mark.parametrize("batch", [None, "Week"])
def test_tvn_is_its_four_steps(screen: Profiles, batch: str | None) -> None:
    batches = screen.metadata["Metadata_Week" if batch else "Metadata_Plate"].to_list()
    expected = tvn_by_loop(screen, batches)
    result = normalize(screen, "tvn", batch=batch).features
    signs = np.sign((expected * result).sum(0))
    np.testing.assert_allclose(result, expected * signs, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def test_tvn_batches_may_hold_several_plates(screen: Profiles) -> None:
    one = replace(screen, metadata=screen.metadata.with_columns(pl.lit("w1").alias("Metadata_Week")))
    expected = tvn_by_loop(one, ["w1"] * 80)
    result = normalize(one, "tvn", batch="Metadata_Week").features
    signs = np.sign((expected * result).sum(0))
    np.testing.assert_allclose(result, expected * signs, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING)


def covariance_gap(profiles: Profiles) -> float:
    first, second = (
        np.cov(profiles.features[rows][:CONTROLS_PLANTED].T) for rows in (slice(0, 400), slice(400, 800))
    )
    return float(np.linalg.norm(first - second) / np.linalg.norm(first + second))


CONTROLS_PLANTED = 300


def test_tvn_takes_out_the_covariance_of_a_batch_and_standardize_does_not(
    make_profiles: MakeProfiles,
) -> None:
    rng = np.random.default_rng(8)
    features = rng.normal(size=(800, 5))
    features[400:] = features[400:] @ (np.eye(5) + 2 * np.ones((5, 5)))
    control = (["negcon"] * CONTROLS_PLANTED + [None] * 100) * 2
    wells = [f"{row}{column:02}" for row in "ABCDEFGHIJKLMNOPQRST" for column in range(1, 21)] * 2
    planted = make_profiles(features, Plate=["P1"] * 400 + ["P2"] * 400, Well=wells, ControlType=control)
    assert covariance_gap(normalize(planted, "standardize")) > 0.4
    assert covariance_gap(normalize(planted, "tvn")) < 0.1


def test_pca_turns_standardised_profiles_and_keeps_what_explains_99_percent(screen: Profiles) -> None:
    standardized = normalize(screen, "standardize").features.astype(np.float64)
    reference = PCA(n_components=0.99, svd_solver="full").fit(standardized[screen.is_control])
    result = normalize(screen, "pca")
    assert result.feature_names == tuple(f"pca_{number:04}" for number in range(reference.n_components_))
    expected = standardized @ reference.components_.T
    signs = np.sign((expected * result.features).sum(0))
    np.testing.assert_allclose(
        result.features, expected * signs, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING
    )
    # Largest variance first, and none of the lengths of wells grows.
    variance = result.features[screen.is_control].var(axis=0)
    assert (np.diff(variance) <= 0).all()
    lengths = np.linalg.norm(result.features, axis=1), np.linalg.norm(standardized, axis=1)
    assert (lengths[0] <= lengths[1] * (1 + 1e-5)).all()


@pytest.mark.parametrize("method", ["standardize", "sphere", "tvn", "pca"])
def test_controls_of_each_plate_come_to_lie_around_zero(screen: Profiles, method: str) -> None:
    result = normalize(screen, method).features.astype(np.float64)
    for rows in PLATES.values():
        np.testing.assert_allclose(result[rows][:CONTROLS].mean(axis=0), 0, atol=FLOAT32_ROUNDING)


@pytest.mark.parametrize("method", ["standardize", "sphere"])
def test_controls_of_each_plate_come_to_have_deviation_one(screen: Profiles, method: str) -> None:
    result = normalize(screen, method).features.astype(np.float64)
    for rows in PLATES.values():
        np.testing.assert_allclose(result[rows][:CONTROLS].std(axis=0, ddof=1), 1, atol=FLOAT32_ROUNDING)


@given(gain=st.floats(0.1, 10), offset=st.floats(-5, 5), data=st.data())
@pytest.mark.parametrize("method", ["mad", "standardize"])
def test_a_gain_and_an_offset_of_each_feature_on_one_plate_are_taken_out(
    screen: Profiles, method: str, gain: float, offset: float, data: st.DataObject
) -> None:
    feature = data.draw(st.integers(0, 5))
    features = screen.features.copy()
    features[40:, feature] = features[40:, feature] * gain + offset
    np.testing.assert_allclose(
        normalize(with_values(screen, features), method).features,
        normalize(screen, method).features,
        rtol=2e-3,
        atol=2e-3,
    )


@pytest.mark.parametrize("method", METHODS)
def test_fitting_never_reads_a_treated_well(screen: Profiles, method: str) -> None:
    """Whatever becomes of them, no fitted number changes; a fit that took them for controls would differ."""
    features = screen.features.copy()
    features[~screen.is_control] = np.nan
    blind = fit_normalization(with_values(screen, features), method)
    seeing = fit_normalization(screen, method)
    names = screen.is_control
    np.testing.assert_array_equal(blind.apply(screen).features, seeing.apply(screen).features)

    everything = replace(
        screen, metadata=screen.metadata.with_columns(pl.lit("negcon").alias("Metadata_ControlType"))
    )
    greedy = fit_normalization(everything, method).apply(everything).features
    assert greedy.shape != seeing.apply(screen).features.shape or not np.allclose(
        greedy[names], seeing.apply(screen).features[names], atol=0.01
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_linear_in_wells(screen: Profiles, method: str) -> None:
    """A well half way between two others comes to lie half way: consensus and normalisation commute."""
    fit = fit_normalization(screen, method)
    features = screen.features.copy()
    features[39] = (features[37] + features[38]) / 2
    result = fit.apply(with_values(screen, features)).features
    np.testing.assert_allclose(
        result[39], (result[37] + result[38]) / 2, rtol=FLOAT32_ROUNDING, atol=FLOAT32_ROUNDING
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_changes_next_to_nothing(screen: Profiles, method: str) -> None:
    """Tables are sorted by plate and well before; here sums of controls are taken in another order."""
    order = np.random.default_rng(1).permutation(80)
    mixed = normalize(screen.only(order), method).features
    np.testing.assert_allclose(mixed, normalize(screen, method).features[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_flat_feature_is_dropped_whatever_the_method(screen: Profiles, method: str) -> None:
    features = screen.features.copy()
    features[40:56, 3] = 7.0
    result = normalize(with_values(screen, features), method)
    assert "emb_0003" not in fit_normalization(with_values(screen, features), method).feature_names
    assert result.features.shape[1] <= 5
    assert any(warning.startswith("1 of 6 features dropped") for warning in result.warnings)
    assert np.isfinite(result.features).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_collapsed_table_is_only_centred(screen: Profiles, method: str) -> None:
    result = normalize(with_values(screen, np.full((80, 6), 0.1)), method)
    assert not result.features.any()
    assert result.feature_names == screen.feature_names
    assert "only centred" in result.warnings[-1]


@pytest.mark.parametrize("method", ["tvn", "pca"])
@pytest.mark.parametrize("controls", [3, 5])
def test_fewer_controls_than_features_leave_few_axes_and_say_so(
    make_profiles: MakeProfiles, method: str, controls: int
) -> None:
    features = np.random.default_rng(2).normal(size=(12, 20))
    result = normalize(
        make_profiles(features, ControlType=["negcon"] * controls + [None] * (12 - controls)), method
    )
    assert result.features.shape == (12, controls - 1)
    assert np.isfinite(result.features).all()
    assert f"{controls - 1} axes of 20 features" in result.warnings[-1]
    assert "% of what tells treated wells" in result.warnings[-1]


def test_a_batch_with_too_few_controls_is_refused_by_name(screen: Profiles) -> None:
    weeks = ["w1"] * 79 + ["w3"]
    posed = replace(screen, metadata=screen.metadata.with_columns(pl.Series("Metadata_Week", weeks)))
    with pytest.raises(InputError, match=r"value\(s\) of Metadata_Week have fewer than 3 .* w3"):
        normalize(posed, "tvn", batch="Week")
    with pytest.raises(InputError, match="no column Month"):
        normalize(posed, "tvn", batch="Month")
    normalize(posed, "sphere", batch="Week")
