"""Nearest neighbours of other compounds: against a plain loop, with planted and with meaningless labels."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cellvim.config import EvaluateSettings
from cellvim.evaluate import nearest
from cellvim.evaluate.intervals import mean_over_units
from cellvim.evaluate.nsc import nsc, nscb
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, aggregate

TASKS = {"nsc": nsc, "nscb": nscb}


def screen_of(columns: dict[str, Any], features: np.ndarray, **settings: Any) -> Screen:
    wells = [f"{'ABCDEFGHIJKLMNOP'[row // 24 % 16]}{row % 24 + 1:02}" for row in range(len(features))]
    metadata = pl.DataFrame({f"Metadata_{name}": values for name, values in columns.items()})
    metadata = metadata.with_columns(pl.Series("Metadata_Well", wells))
    if "ControlType" not in columns:
        metadata = metadata.with_columns(pl.lit(None, dtype=pl.String).alias("Metadata_ControlType"))
    names = tuple(f"emb_{index}" for index in range(features.shape[1]))
    raw = aggregate(Profiles(metadata, features.astype(np.float32), names, {}, Path("t.parquet"), "t"))
    chosen = {"normalize": "none", "bootstraps": 200} | settings
    return Screen(raw, raw, EvaluateSettings(tables=(Path("t"),), out=Path("o"), **chosen))


def planted(
    *,
    strength: float = 4.0,
    compounds: int = 24,
    moas: int = 4,
    plates: int = 3,
    seed: int = 0,
    **settings: Any,
) -> Screen:
    """Compounds in two doses on every plate; a profile is the direction of its mechanism and noise."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(moas, 16))
    columns: dict[str, list[Any]] = {
        name: [] for name in ("Plate", "Perturbation", "Compound", "MoA", "ControlType")
    }
    features = []
    for plate in range(plates):
        for number in range(compounds):
            for dose in ("1 uM", "2 uM"):
                row = (f"P{plate}", f"c{number:02}@{dose}", f"c{number:02}", f"moa {number % moas}", None)
                for values, value in zip(columns.values(), row, strict=True):
                    values.append(value)
                features.append(strength * directions[number % moas] + rng.normal(size=16))
        for values, value in zip(
            columns.values(), (f"P{plate}", "DMSO", "DMSO", None, "negcon"), strict=True
        ):
            values.append(value)
        features.append(rng.normal(size=16))
    return screen_of(columns, np.array(features), **settings)


def asked_by_loop(screen: Screen, *, across_batches: bool) -> list[tuple[str, str, str, str, bool | None]]:
    """The definition, one query at a time."""
    keys = ["Metadata_Perturbation", "Metadata_Compound"] + ["Metadata_Plate"] * across_batches
    table = screen.raw.metadata.with_columns(
        pl.Series("profile", screen.raw.features.astype(np.float64).tolist())
    ).filter(pl.col("Metadata_ControlType").is_null())
    profiles = []
    for _, own in sorted(table.group_by(keys)):
        mean = np.mean(own["profile"].to_list(), axis=0).astype(np.float32).astype(np.float64)
        profiles.append((own.row(0, named=True), mean / np.linalg.norm(mean)))
    found = []
    for query, vector in profiles:
        others = [
            (other, float(vector @ profile))
            for other, profile in profiles
            if other["Metadata_Compound"] != query["Metadata_Compound"]
            and not (across_batches and other["Metadata_Plate"] == query["Metadata_Plate"])
        ]
        best = max(others, key=lambda pair: pair[1])[0]
        can_be_right = any(other["Metadata_MoA"] == query["Metadata_MoA"] for other, _ in others)
        right = best["Metadata_MoA"] == query["Metadata_MoA"] if can_be_right else None
        found.append(
            (query["Metadata_Perturbation"], best["Metadata_Perturbation"], best["Metadata_MoA"], right)
        )
    return found


@pytest.mark.parametrize("block_entries", [2**22, 100])
@pytest.mark.parametrize("task", TASKS)
def test_neighbours_are_those_of_a_plain_loop(
    task: str, block_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "BLOCK_ENTRIES", block_entries)
    screen = planted(strength=0.8)
    result = TASKS[task](screen)
    columns = ("Metadata_Perturbation", "nearest", "nearest_label", "is_correct")
    expected = asked_by_loop(screen, across_batches=task == "nscb")
    assert result.rows.select(columns).rows() == expected
    right = [row[-1] for row in expected]
    assert 0.2 < np.mean(right) < 1
    assert result.metrics["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert result.metrics["queries"] == len(expected)
    if task == "nscb":
        assert (result.rows["batch"] != result.rows["nearest_batch"]).all()


@pytest.mark.parametrize("spread", [1e-9, 1e-6, 1e-3, 1.0])
def test_neighbours_closer_than_single_precision_can_tell_are_told_apart(spread: float) -> None:
    rng = np.random.default_rng(0)
    features = np.tile(rng.normal(size=(6, 300)), (30, 1)) + spread * rng.normal(size=(180, 300))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    code = np.arange(180)
    for block in nearest.nearest_blocks(features, nearest.differing(code)):
        exact = unit[block.rows] @ unit.T
        exact[np.arange(block.rows.size), block.rows] = -np.inf
        assert np.allclose(block.similarity, exact.max(axis=1), atol=1e-14)
        assert (block.tied == (exact >= exact.max(axis=1, keepdims=True) - nearest.TIE_WIDTH)).all()


def test_without_doses_and_repeats_it_is_the_classifier_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    labels = [f"moa {number % 5}" for number in range(60)]
    columns = {"Plate": ["P"] * 60, "Perturbation": [f"c{n:02}" for n in range(60)], "MoA": labels}
    accuracy = nsc(screen_of(columns, features)).metrics["accuracy"]["value"]
    right = 0
    for row in range(60):
        others = np.delete(np.arange(60), row)
        classifier = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
        classifier.fit(features[others], np.array(labels)[others])
        right += classifier.predict(features[[row]])[0] == labels[row]
    assert accuracy == pytest.approx(right / 60)


@pytest.mark.parametrize("task", TASKS)
def test_planted_mechanisms_are_found_and_shuffled_ones_are_not(task: str) -> None:
    metrics = TASKS[task](planted(compounds=60)).metrics
    assert metrics["accuracy"]["low"] > 0.95
    # Of 59 other compounds 14 share a mechanism.
    assert metrics["chance"] == pytest.approx(14 / 59)
    assert abs(metrics["shuffled"] - metrics["chance"]) < 0.1


@pytest.mark.parametrize("task", TASKS)
def test_meaningless_profiles_score_chance(task: str) -> None:
    metrics = TASKS[task](planted(strength=0, compounds=100)).metrics
    assert metrics["accuracy"]["low"] < metrics["chance"] < metrics["accuracy"]["high"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapsed_embedding_is_never_right(task: str, value: float) -> None:
    screen = planted()
    flat = Profiles(
        screen.raw.metadata,
        np.full_like(screen.raw.features, value),
        screen.raw.feature_names,
        {},
        Path("t"),
        "t",
    )
    metrics = TASKS[task](Screen(flat, flat, screen.settings)).metrics
    assert metrics["accuracy"] == {"value": 0, "low": 0, "high": 0}


def test_an_interval_over_compounds_weighs_each_by_its_queries() -> None:
    settings = EvaluateSettings(tables=(Path("t"),), out=Path("o"), bootstraps=300)
    unit = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 30])
    same = mean_over_units(np.ones(45), unit, settings, "same")
    assert (same.value, same.low, same.high) == (1, 1, 1)
    mixed = mean_over_units((unit == 5).astype(np.float64), unit, settings, "mixed")
    assert mixed.value == pytest.approx(30 / 45)
    # The one compound that matters is not drawn at all in a third of the resamples.
    assert mixed.low == 0


def test_ties_are_right_only_if_all_of_them_would_be() -> None:
    east, north = (1.0, 0.0), (0.0, 1.0)
    columns = {
        "Plate": ["P"] * 6,
        "Perturbation": ["a", "b", "c", "d", "e", "f"],
        "MoA": ["x", "x", "x", "y", "y", "x"],
    }
    # a, b and c are alike; d, e and f are alike, and f is of another kind.
    # Of different lengths: what rounding leaves between them is no difference.
    features = np.array([east] * 3 + [north] * 3) @ [[0.3, 0.7, 0.1], [0.9, -0.2, 0.4]]
    rows = nsc(screen_of(columns, features * np.array([[1], [3], [7], [1], [5], [11]]))).rows
    assert rows["is_correct"].to_list() == [True, True, True, False, False, False]
    assert rows["nearest"].to_list() == ["b", "a", "a", "e", "d", "d"]


def test_of_several_labels_one_is_enough_and_the_rare_are_left_out() -> None:
    features = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [-1, -1]])
    labels = ["x|y", "y|z", "w", "x", "only"]
    columns = {"Plate": ["P"] * 5, "Perturbation": list("abcde"), "MoA": labels}
    result = nsc(screen_of(columns, features))
    assert result.rows["is_correct"].to_list() == [True, True, None, False, None]
    assert result.rows["label"].to_list() == labels
    assert result.metrics["queries"] == 3
    assert result.metrics["unanswerable"] == 2
    assert result.metrics["accuracy"]["value"] == pytest.approx(2 / 3)
    assert result.metrics["accuracy_of_all"] == pytest.approx(2 / 5)


def test_a_label_of_one_batch_cannot_be_found_in_another() -> None:
    columns = {
        "Plate": ["P", "P", "Q", "Q", "P", "Q"],
        "Perturbation": ["a", "b", "c", "d", "e", "f"],
        "MoA": ["x", "x", "y", "y", "z", "z"],
    }
    result = nscb(screen_of(columns, np.random.default_rng(0).normal(size=(6, 3))))
    assert result.metrics["queries"] == 2
    assert result.metrics["unanswerable"] == 4


@pytest.mark.parametrize("task", TASKS)
def test_the_order_of_rows_changes_nothing(task: str) -> None:
    screen = planted(strength=0.8)
    order = np.random.default_rng(3).permutation(screen.raw.metadata.height)
    moved = aggregate(screen.raw.only(order))
    first, second = TASKS[task](screen), TASKS[task](Screen(moved, moved, screen.settings))
    assert first.metrics == second.metrics
    assert first.rows.equals(second.rows)


def test_reasons_instead_of_numbers() -> None:
    features = np.random.default_rng(0).normal(size=(4, 3))
    plain: dict[str, Any] = {"Plate": ["P"] * 4, "Perturbation": list("abcd")}
    cases = [
        (nsc, plain, "--label"),
        (nsc, plain | {"MoA": ["x", None, None, None]}, "only one compound"),
        (nsc, plain | {"MoA": ["x", "y", "z", "w"]}, "no label is shared"),
        (nscb, plain | {"MoA": ["x", "x", "y", "y"]}, "one batch"),
        (nscb, plain | {"Plate": list("PPQQ"), "MoA": ["x", "x", "y", "y"]}, "in another batch"),
        (nsc, plain | {"MoA": ["x"] * 4, "ControlType": ["negcon"] * 4}, "no treated well"),
    ]
    for task, columns, reason in cases:
        assert reason in task(screen_of(columns, features)).metrics["reason"]


def test_real_compounds_find_their_mechanism_more_often_than_chance(shared: Path) -> None:
    from cellvim.profiles import annotate, normalize, read_profiles

    path = shared / "data/lincs_profiles/SQ00015054_normalized_feature_select.csv.gz"
    control = "Metadata_broad_sample=DMSO"
    profiles = annotate(
        read_profiles(path), platemap=None, perturbation="Metadata_broad_sample", control=control
    )
    raw = aggregate(profiles)
    settings = EvaluateSettings(tables=(path,), out=Path("o"), normalize="standardize")
    metrics = nsc(Screen(raw, normalize(raw, "standardize"), settings)).metrics
    assert metrics["accuracy"]["low"] > metrics["chance"]
