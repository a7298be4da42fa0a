"""Percent replicating against a plain loop over numpy.corrcoef, with planted and with meaningless replicates."""

from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate import percent_replicating as module
from cellvim.evaluate.percent_replicating import null_groups, number_of_groups, percent_replicating
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, aggregate


def screen_of(names: list[str], features: np.ndarray, *, plates: int = 2, **settings: Any) -> Screen:
    size = len(names)
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": [f"P{row % plates}" for row in range(size)],
            "Metadata_Well": [
                f"{chr(65 + row // 24 // plates % 26)}{row // plates % 24 + 1:02}" for row in range(size)
            ],
            "Metadata_Perturbation": names,
            "Metadata_ControlType": ["negcon" if name == "DMSO" else None for name in names],
        },
        schema_overrides={"Metadata_ControlType": pl.String},
    )
    labels = tuple(f"emb_{index}" for index in range(features.shape[1]))
    raw = aggregate(Profiles(metadata, features.astype(np.float32), labels, {}, Path("t.parquet"), "t"))
    chosen = {"normalize": "none", "bootstraps": 200} | settings
    return Screen(raw, raw, EvaluateSettings(tables=(Path("t"),), out=Path("o"), **chosen))


def planted(*, strength: float, perturbations: int = 30, replicates: int = 4, seed: int = 0) -> Screen:
    rng = np.random.default_rng(seed)
    names = [f"c{number:03}" for number in range(perturbations) for _ in range(replicates)] + ["DMSO"] * 8
    directions = np.repeat(rng.normal(size=(perturbations, 40)), replicates, axis=0)
    features = rng.normal(size=(len(names), 40))
    features[: len(directions)] += strength * directions
    return screen_of(names, features)


def median_by_loop(features: np.ndarray) -> float:
    return float(
        np.median([np.corrcoef(a, b)[0, 1] for a, b in combinations(features.astype(np.float64), 2)])
    )


def test_similarity_and_threshold_are_those_of_a_plain_loop() -> None:
    """Three perturbations of few wells: every group of wells of different ones is enumerated."""
    names = ["a", "a", "b", "b", "b", "c", "c"]
    features = np.random.default_rng(0).normal(size=(7, 6))
    rows = percent_replicating(screen_of(names, features)).rows
    members = {name: [row for row, own in enumerate(names) if own == name] for name in "abc"}
    for row in rows.iter_rows(named=True):
        own = members[row["Metadata_Perturbation"]]
        assert row["similarity"] == pytest.approx(median_by_loop(features[own].astype(np.float32)), abs=1e-6)
        null = []
        for chosen in combinations(members.values(), row["null_size"]):
            # Perturbations are equally likely, then their wells: a group stands for 12 over its number of choices.
            times = 12 // int(np.prod([len(wells) for wells in chosen]))
            null += [
                median_by_loop(features[list(group)]) for group in product(*chosen) for _ in range(times)
            ]
        expected = np.quantile(null, 0.95, method="inverted_cdf")
        assert row["threshold"] == pytest.approx(expected, abs=1e-6)
        assert row["is_replicating"] == (row["similarity"] > row["threshold"])


def test_groups_are_counted_as_they_are_enumerated() -> None:
    wells = [np.arange(3), np.arange(3, 5), np.arange(5, 9), np.arange(9, 10)]
    counts = np.array([own.size for own in wells])
    for size in (1, 2, 3, 4):
        members, weight = module.every_group(wells, size)
        assert len(members) == number_of_groups(counts, size)
        assert len(np.unique(members, axis=0)) == len(members)
        assert weight.sum() == pytest.approx(len(list(combinations(wells, size))))
    assert number_of_groups(np.full(500, 4), 2) == module.NULL_GROUPS + 1


def test_random_groups_hold_one_well_of_each_of_several_perturbations() -> None:
    wells = [np.arange(start, start + 5) for start in range(0, 100, 5)]
    groups = module.random_groups(wells, 4, np.random.default_rng(0))
    assert groups.shape == (module.NULL_GROUPS, 4)
    assert all(np.unique(group // 5).size == 4 for group in groups)
    assert set(groups.ravel()) == set(range(100))


def test_the_sampled_threshold_approaches_that_of_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = module.centred_unit_rows(np.random.default_rng(0).normal(size=(60, 10)))
    wells = [np.arange(start, start + 3) for start in range(0, 60, 3)]
    sampled = null_groups(unit, wells, 2, seed=0)
    monkeypatch.setattr(module, "NULL_GROUPS", 10**5)
    exact = null_groups(unit, wells, 2, seed=0)
    assert (sampled.similarity.size, exact.similarity.size) == (1000, 60 * 57 // 2)
    assert sampled.threshold == pytest.approx(exact.threshold, abs=0.05)


def test_planted_replicates_are_found() -> None:
    metrics = percent_replicating(planted(strength=1.0)).metrics
    assert metrics["fraction_replicating"]["value"] > 0.95
    assert metrics["perturbations"] == 30


def test_of_shuffled_labels_about_five_percent_replicate() -> None:
    screen = planted(strength=1.0, perturbations=200)
    treated = np.flatnonzero(screen.wells.is_treated)
    names = screen.raw.metadata["Metadata_Perturbation"].to_numpy().copy()
    names[treated] = np.random.default_rng(5).permutation(names[treated])
    fraction = percent_replicating(screen_of(list(names), screen.raw.features)).metrics[
        "fraction_replicating"
    ]
    assert 0.01 < fraction["value"] < 0.1
    assert fraction["low"] < 0.05 < fraction["high"] + 0.02


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_collapsed_embedding_does_not_replicate(value: float) -> None:
    screen = planted(strength=1.0)
    flat = np.full_like(screen.raw.features, value)
    ramp = flat + np.arange(flat.shape[1], dtype=np.float32)
    for features in (flat, ramp):
        names = screen.raw.metadata["Metadata_Perturbation"].to_list()
        metrics = percent_replicating(screen_of(names, features)).metrics
        assert metrics["fraction_replicating"] == {"value": 0, "low": 0, "high": 0}


def test_more_replicates_than_perturbations_are_judged_by_the_largest_groups_there_are() -> None:
    screen = planted(strength=1.0, perturbations=3, replicates=12)
    result = percent_replicating(screen)
    assert result.rows["null_size"].to_list() == [3, 3, 3]
    assert result.metrics["smaller_null_groups"] == 3


def test_very_many_replicates_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = planted(strength=1.0, replicates=20)
    whole = percent_replicating(screen).rows
    monkeypatch.setattr(module, "MOST_REPLICATES", 10)
    some = percent_replicating(screen).rows
    assert some["replicates"].to_list() == [20] * 30
    assert np.abs(some["similarity"].to_numpy() - whole["similarity"].to_numpy()).max() < 0.2


def test_histograms_are_comparable_and_complete() -> None:
    result = percent_replicating(planted(strength=0.5))
    table = result.tables["histogram"]
    for kind, total in (("replicates", 30), ("null", module.NULL_GROUPS)):
        own = table.filter(pl.col("kind") == kind)
        assert own.height == module.BINS
        assert own["count"].sum() == total
        assert own["share"].sum() == pytest.approx(1)
        assert np.allclose(np.diff(own["low"]), own["high"][0] - own["low"][0])
        assert own["low"].to_list()[1:] == own["high"].to_list()[:-1]


def test_the_order_of_rows_changes_nothing() -> None:
    screen = planted(strength=0.4)
    order = np.random.default_rng(3).permutation(screen.raw.metadata.height)
    moved = aggregate(screen.raw.only(order))
    first, second = percent_replicating(screen), percent_replicating(Screen(moved, moved, screen.settings))
    assert first.metrics == second.metrics
    assert all(first.tables[kind].equals(second.tables[kind]) for kind in first.tables)


def test_reasons_instead_of_numbers() -> None:
    rng = np.random.default_rng(0)
    cases = [
        (["a", "b", "c"], 4, "no perturbation has a second well"),
        (["a", "a", "DMSO"], 4, "only one perturbation"),
        (["DMSO", "DMSO"], 4, "no perturbation has a second well"),
        (["a", "a", "b", "b"], 1, "single feature"),
    ]
    for names, features, reason in cases:
        result = percent_replicating(screen_of(names, rng.normal(size=(len(names), features))))
        assert reason in result.metrics["reason"]
