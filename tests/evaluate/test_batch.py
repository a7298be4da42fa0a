"""Batch measures against scikit-learn and a plain loop, on data with and without planted batch effects."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import silhouette_samples
from sklearn.preprocessing import OneHotEncoder

from cellvim.config import EvaluateSettings
from cellvim.evaluate import batch as module
from cellvim.evaluate import batch_measures, nearest
from cellvim.evaluate.batch import batch
from cellvim.evaluate.batch_measures import nearest_agreement, silhouettes, variance_explained
from cellvim.evaluate.nearest import differing
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, aggregate, normalize

SETTINGS = EvaluateSettings(tables=(Path("t"),), out=Path("o"), normalize="none", bootstraps=200)
HEADLINES = (
    "nearest_batch_accuracy",
    "controls_nearest_batch_accuracy",
    "nearest_perturbation_accuracy",
    "silhouette",
    "silhouette_by_perturbation",
    "variance_explained_by_batch",
    "variance_explained_by_perturbation",
)


def planted(
    *,
    offset: float = 0.0,
    strength: float = 0.0,
    plates: int = 4,
    perturbations: int = 20,
    controls: int = 16,
    features: int = 24,
    method: str = "none",
    **columns: list[Any],
) -> Screen:
    """Every perturbation twice on every plate: plate offset, its own direction, and noise."""
    rng = np.random.default_rng(0)
    names = [f"c{number:02}" for number in range(perturbations)] * 2 + ["DMSO"] * controls
    directions = np.concatenate(
        [np.tile(rng.normal(size=(perturbations, features)), (2, 1)), np.zeros((controls, features))]
    )
    values = [
        offset * rng.normal(size=features) + strength * directions + rng.normal(size=directions.shape)
        for _ in range(plates)
    ]
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": [f"P{plate}" for plate in range(plates) for _ in names],
            "Metadata_Well": [f"{'ABCDEFGH'[row // 12]}{row % 12 + 1:02}" for row in range(len(names))]
            * plates,
            "Metadata_Perturbation": names * plates,
            "Metadata_ControlType": ["negcon" if name == "DMSO" else None for name in names] * plates,
            **{f"Metadata_{name}": own for name, own in columns.items()},
        },
        schema_overrides={"Metadata_ControlType": pl.String},
    )
    labels = tuple(f"emb_{index}" for index in range(features))
    raw = aggregate(Profiles(metadata, np.concatenate(values).astype(np.float32), labels, {}, Path("t"), "t"))
    return Screen(raw, normalize(raw, method), SETTINGS.model_copy(update={"normalize": method}))


def row_of(screen: Screen, measure: str, column: str) -> dict[str, Any]:
    rows = batch(screen).rows.filter((pl.col("measure") == measure) & (pl.col("batch_column") == column))
    assert rows.height == 1
    return rows.row(0, named=True)


@pytest.mark.parametrize("block_entries", [2**22, 50])
def test_silhouettes_are_those_of_scikit_learn(block_entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_measures, "BLOCK_ENTRIES", block_entries)
    rng = np.random.default_rng(0)
    features, group = rng.normal(size=(60, 6)), rng.integers(0, 7, 60)
    features += rng.normal(size=(7, 6))[group]
    features[3] = 0
    group[5] = 99
    expected = silhouette_samples(features, group, metric="cosine")
    for queries in (np.arange(60), np.array([59, 3, 5, 8])):
        assert np.allclose(silhouettes(features, group, queries), expected[queries])


@pytest.mark.parametrize("features", [5, 80])
def test_variance_explained_is_the_regression_of_every_principal_component(features: int) -> None:
    rng = np.random.default_rng(1)
    values, group = rng.normal(size=(50, features)) + 3, rng.integers(0, 4, 50)
    values += rng.normal(size=(4, features))[group]
    pca = PCA().fit(values)
    components = pca.transform(values)
    dummies = OneHotEncoder(sparse_output=False).fit_transform(group[:, None])
    share = [LinearRegression().fit(dummies, own).score(dummies, own) for own in components.T]
    expected = float(np.average(share, weights=pca.explained_variance_))
    found = variance_explained(values, group, np.arange(50), SETTINGS, "test")
    assert found.value == pytest.approx(expected)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.value < found.high <= 1


@pytest.mark.parametrize("by", ["batch", "unit"])
def test_resampled_variance_is_that_of_a_table_with_units_repeated(by: str) -> None:
    rng = np.random.default_rng(2)
    values, unit, group = rng.normal(size=(30, 4)), np.repeat(np.arange(6), 5), np.tile(np.arange(3), 10)
    centred = values - values.mean(axis=0)
    spread = np.bincount(unit, weights=(centred**2).sum(axis=1))
    drawn = np.array([2, 0, 1, 1, 0, 2])
    rows = np.concatenate([np.flatnonzero(unit == code) for code in range(6) for _ in range(drawn[code])])
    copies = np.repeat(np.arange(6), 5)
    codes = group[rows] if by == "batch" else copies
    split = [
        np.flatnonzero((group if by == "batch" else unit) == code) for code in range(6 if by == "unit" else 3)
    ]
    function = batch_measures.between_groups if by == "batch" else batch_measures.between_units
    found = function(drawn[None].astype(float), centred, unit, split, spread)
    assert found[0] == pytest.approx(variance_explained(values[rows], codes, codes, SETTINGS, "test").value)


@pytest.mark.parametrize("block_entries", [2**22, 50])
def test_nearest_neighbours_are_those_of_a_plain_loop(
    block_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "BLOCK_ENTRIES", block_entries)
    rng = np.random.default_rng(3)
    values, group, other = rng.normal(size=(40, 5)), rng.integers(0, 3, 40), rng.integers(0, 6, 40)
    found, chance = nearest_agreement(values, group, differing(other))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    for row in range(40):
        allowed = [place for place in range(40) if other[place] != other[row]]
        best = max(allowed, key=lambda place: float(unit[row] @ unit[place]))
        assert found[row] == (group[best] == group[row])
        assert chance[row] == pytest.approx(np.mean(group[allowed] == group[row]))


def test_without_batch_effects_every_measure_is_near_chance() -> None:
    rows = batch(planted(perturbations=40)).rows
    assert rows.height == 7
    for row in rows.iter_rows(named=True):
        assert row["low"] - 0.02 <= row["chance"] <= row["high"] + 0.02
    near = rows.filter(
        pl.col("measure").str.starts_with("nearest"), pl.col("batch_column") == "Metadata_Plate"
    )
    assert near["chance"].to_numpy() == pytest.approx([0.25, 0.25], abs=0.02)


def test_planted_batch_offsets_are_seen_by_every_measure() -> None:
    screen = planted(offset=10)
    metrics = batch(screen).metrics
    for name in ("nearest_batch_accuracy", "controls_nearest_batch_accuracy", "variance_explained_by_batch"):
        assert metrics[name]["value"] > 0.95
    assert metrics["silhouette"]["value"] > 0.8
    assert metrics["nearest_perturbation_accuracy"]["value"] < 0.2


def test_biology_is_not_taken_for_a_batch_effect() -> None:
    metrics = batch(planted(strength=5)).metrics
    assert metrics["nearest_perturbation_accuracy"]["low"] > 0.95
    # Two wells of it on each of the three other plates, among 120.
    assert metrics["chance_of_perturbation"] == pytest.approx(6 / 120)
    assert metrics["variance_explained_by_perturbation"]["low"] > 0.9
    assert metrics["silhouette_by_perturbation"]["low"] > 0.7
    # If replicates could be found, it would be 1 in 7: each has one on its own plate and six elsewhere.
    assert metrics["nearest_batch_accuracy"]["value"] == pytest.approx(metrics["chance"], abs=0.07)
    assert metrics["variance_explained_by_batch"]["value"] < 0.01


def test_normalisation_on_controls_takes_most_of_an_offset_away() -> None:
    before, after = (batch(planted(offset=3, method=method)).metrics for method in ("none", "standardize"))
    for name in ("nearest_batch_accuracy", "controls_nearest_batch_accuracy", "variance_explained_by_batch"):
        assert after[name]["high"] < before[name]["low"]


def test_controls_that_the_fit_has_seen_would_hide_the_batch() -> None:
    """Why controls are judged after a fit without them: their plate's centre repels them from each other."""
    screen = planted(method="standardize", features=100, controls=8, plates=6)
    controls = np.flatnonzero(screen.raw.is_control)
    plate = screen.wells.plate[controls]
    itself = differing(np.arange(controls.size))
    seen, chance = nearest_agreement(screen.normalized.features[controls], plate, itself)
    unseen = row_of(screen, "nearest neighbour (negative controls)", "Metadata_Plate")
    assert seen.mean() < 0.5 * chance.mean()
    assert unseen["high"] > unseen["chance"]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapsed_embedding_tells_neither_batch_nor_biology(value: float) -> None:
    screen = planted()
    features = np.full_like(screen.raw.features, value)
    flat = Profiles(screen.raw.metadata, features, screen.raw.feature_names, {}, Path("t"), "t")
    for row in batch(Screen(flat, flat, SETTINGS)).rows.iter_rows(named=True):
        expected = row["chance"] if row["measure"].startswith("nearest") else 0
        assert row["value"] == pytest.approx(expected, abs=1e-9)


def test_another_column_of_batches_is_judged_beside_the_plate() -> None:
    weeks = [f"week {plate // 2}" for plate in range(4) for _ in range(56)]
    result = batch(planted(Batch=weeks))
    assert result.metrics["batch"] == "Metadata_Plate"
    (week,) = result.metrics["other_batches"]
    assert week["batch"] == "Metadata_Batch"
    assert week["chance"] == pytest.approx(0.5, abs=0.01)
    assert set(result.rows["batch_column"]) == {"Metadata_Plate", "Metadata_Batch", "biology"}
    assert result.rows.filter(pl.col("batch_column") == "biology").height == 3


def test_of_many_wells_some_perturbations_ask_and_all_wells_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = planted(strength=2, offset=1)
    whole = row_of(screen, "nearest neighbour", "Metadata_Plate")
    monkeypatch.setattr(module, "MOST_QUERIES", 80)
    some = row_of(screen, "nearest neighbour", "Metadata_Plate")
    assert (whole["count"], some["count"]) == (160, 80)
    assert some["value"] == pytest.approx(whole["value"], abs=0.2)


def test_the_order_of_rows_changes_nothing() -> None:
    screen = planted(offset=1, strength=1)
    order = np.random.default_rng(3).permutation(screen.raw.metadata.height)
    moved = aggregate(screen.raw.only(order))
    first, second = batch(screen), batch(Screen(moved, moved, screen.settings))
    assert first.metrics == second.metrics
    assert first.rows.equals(second.rows)


def test_plates_that_share_nothing_are_judged_by_their_controls() -> None:
    screen = planted(offset=10, plates=2)
    apart = screen.raw.metadata.with_columns(
        pl.when(pl.col("Metadata_ControlType").is_null())
        .then(pl.concat_str("Metadata_Perturbation", "Metadata_Plate"))
        .otherwise(pl.col("Metadata_Perturbation"))
        .alias("Metadata_Perturbation")
    )
    raw = Profiles(apart, screen.raw.features, screen.raw.feature_names, {}, Path("t"), "t")
    metrics = batch(Screen(raw, raw, SETTINGS)).metrics
    assert metrics["judged"] == "negative controls"
    assert metrics["nearest_batch_accuracy"]["value"] == 1
    assert not {"silhouette", "variance_explained_by_batch"} & metrics.keys()


def test_plates_without_controls_are_judged_by_their_treated_wells() -> None:
    metrics = batch(planted(controls=0)).metrics
    assert set(HEADLINES) - metrics.keys() == {"controls_nearest_batch_accuracy"}
    few = batch(planted(controls=3, method="standardize")).metrics
    assert set(HEADLINES) - few.keys() <= {"controls_nearest_batch_accuracy"}


def test_reasons_instead_of_numbers() -> None:
    assert batch(planted(plates=1)).metrics == {"reason": "all wells are on one plate"}
    assert "no perturbation" in batch(planted(perturbations=1, controls=0)).metrics["reason"]
    assert "no perturbation" in batch(planted(perturbations=0, controls=1)).metrics["reason"]
