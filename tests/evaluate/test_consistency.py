"""Consistency against a plain loop, its laws and its controls."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cellvim.config import EvaluateSettings
from cellvim.evaluate.consistency import consistency
from cellvim.evaluate.questions import shared_labels
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval import Space, score_queries
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles

EXACT = 1e-12
"""Sums of the same few fractions in another order."""


def random_labels(seed: int, *, units: int = 30) -> tuple[np.ndarray, list[tuple[str, ...]], np.ndarray]:
    """Profiles, up to three labels of seven for each (some have none), and a compound for every two or so."""
    rng = np.random.default_rng(seed)
    labels = [
        tuple(sorted({f"target {code}" for code in rng.integers(0, 7, rng.integers(0, 4))}))
        for _ in range(units)
    ]
    return rng.normal(size=(units, 5)), labels, rng.integers(0, units // 2, units)


def by_definition(
    features: np.ndarray, labels: Sequence[tuple[str, ...]], compound: np.ndarray
) -> dict[tuple[int, str], tuple[float, int, int]]:
    """One unit, one label, one candidate at a time, judged by scikit-learn."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = {}
    for query, own in enumerate(labels):
        for label in own:
            others = [other for other in range(len(unit)) if compound[other] != compound[query]]
            positive = [other for other in others if label in labels[other]]
            negative = [other for other in others if labels[other] and not set(own) & set(labels[other])]
            if positive and negative:
                relevant = [True] * len(positive) + [False] * len(negative)
                similarity = unit[positive + negative] @ unit[query]
                value = float(average_precision_score(relevant, similarity))
                found[query, label] = (value, len(positive), len(relevant))
    return found


@hypothesis_settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_every_query_is_its_definition(seed: int) -> None:
    features, labels, compound = random_labels(seed)
    question, names = shared_labels(labels, compound)
    scores = score_queries([Space.whole(features)], question)
    expected = by_definition(features, labels, compound)

    asked = [(int(unit), names[group]) for unit, group in zip(scores.unit, scores.group, strict=True)]
    assert sorted(asked) == sorted(expected)
    found = zip(scores.average_precision, scores.positives, scores.total, strict=True)
    np.testing.assert_allclose(list(found), [expected[key] for key in asked], atol=EXACT)
    assert scores.dropped == sum(map(len, labels)) - len(expected)


def test_nobody_with_a_label_asks_nothing() -> None:
    question, names = shared_labels([(), ()], np.arange(2))
    assert score_queries([Space.whole(np.eye(2))], question).unit.size == 0
    assert names == ()


SHARED = ("alpha", "beta", "gamma")


def labelled_screen(
    *,
    strength: float = 2.0,
    compounds: int = 24,
    doses: int = 1,
    seed: int = 0,
    labels: Sequence[str | None] | None = None,
) -> Screen:
    """Two plates; compounds of one label share a direction, and every well has noise of its own."""
    rng = np.random.default_rng(seed)
    own_labels = labels or [SHARED[number % 3] for number in range(compounds)]
    directions = {label: rng.normal(size=30) for label in sorted(set(own_labels) - {None})}
    rows, features = [], []
    for plate in ("P1", "P2"):
        for place in range(compounds * doses + 6):
            number = place // doses
            is_control = number >= compounds
            label = None if is_control else own_labels[number]
            compound = "DMSO" if is_control else f"drug {number}"
            name = compound if is_control else f"{compound}@{place % doses}"
            kind = "negcon" if is_control else None
            rows.append((plate, f"{'ABCDEFGH'[place // 12]}{place % 12 + 1:02}", name, compound, kind, label))
            effect = strength * directions[label] if label else 0
            features.append(rng.normal(size=30) + effect)
    columns = ("Plate", "Well", "Perturbation", "Compound", "ControlType", "Target")
    metadata = pl.DataFrame(rows, schema={f"Metadata_{name}": pl.String for name in columns}, orient="row")
    return screen_of(metadata, np.array(features, np.float32))


def screen_of(metadata: pl.DataFrame, features: np.ndarray, **chosen: object) -> Screen:
    names = tuple(f"emb_{index:04}" for index in range(features.shape[1]))
    profiles = Profiles(metadata, features, names, {}, Path("screen.parquet"), "screen")
    settings = EvaluateSettings(
        tables=(profiles.source,), out=Path("o"), null_size=2000, bootstraps=50, **chosen
    )
    return Screen(profiles, profiles, settings)


def values_of(result: TaskResult) -> dict[str, float]:
    names = ("mean_map", "mean_normalized_map", "fraction_significant")
    return {name: result.metrics[name]["value"] for name in names}


def test_a_planted_mechanism_is_found() -> None:
    result = consistency(labelled_screen())
    assert values_of(result)["mean_normalized_map"] > 0.95
    assert values_of(result)["fraction_significant"] == 1
    assert result.metrics["label"] == "Metadata_Target"
    assert (result.metrics["labels"], result.metrics["perturbations"]) == (3, 24)
    assert result.rows.columns == ["label", "perturbations", "map", "normalized_map", "p", "q", "smallest_p"]
    columns = ["Metadata_Perturbation", "label", "ap", "normalized_ap", "positives", "total"]
    assert result.tables["perturbations"].columns == columns


def test_shuffled_labels_are_at_chance() -> None:
    """On average over 40 deals of the labels, within four standard errors."""
    found = []
    for seed in range(40):
        dealt = np.random.default_rng(seed).permutation([SHARED[number % 3] for number in range(24)])
        screen = labelled_screen(labels=[SHARED[number % 3] for number in range(24)])
        names = [f"drug {number}" for number in range(24)]
        column = pl.col("Metadata_Compound").replace_strict(names, dealt.tolist(), default=None)
        metadata = screen.raw.metadata.with_columns(column.alias("Metadata_Target"))
        found.append(values_of(consistency(screen_of(metadata, screen.raw.features)))["mean_normalized_map"])
    assert abs(np.mean(found)) < 4 * np.std(found, ddof=1) / len(found) ** 0.5
    assert np.std(found) < 0.1


def test_a_collapsed_embedding_is_at_the_bottom() -> None:
    screen = labelled_screen()
    result = consistency(screen_of(screen.raw.metadata, np.full_like(screen.raw.features, 0.3)))
    queries = result.tables["perturbations"]
    worst = [
        np.mean([k / (total - positives + k) for k in range(1, positives + 1)])
        for positives, total in queries.select("positives", "total").iter_rows()
    ]
    np.testing.assert_allclose(queries["ap"], worst, atol=EXACT)
    assert values_of(result)["fraction_significant"] == 0
    assert (result.rows["p"] > 0.9).all()


def test_white_noise_gives_few_small_p() -> None:
    """Compounds without any effect: 40 screens of 8 labels of three compounds."""
    labels = [f"target {number % 8}" for number in range(24)]
    p = [
        consistency(labelled_screen(strength=0, seed=seed, labels=labels)).rows["p"].to_numpy()
        for seed in range(40)
    ]
    found = np.concatenate(p)
    for level in (0.05, 0.2):
        assert (found < level).mean() <= level + 3 * (level * (1 - level) / found.size) ** 0.5


def test_doses_of_a_compound_neither_help_nor_hinder() -> None:
    """Each compound has a label of its own and doses alike: nobody is found, for nobody else shares it."""
    screen = labelled_screen(doses=3, compounds=12, labels=[f"target {number}" for number in range(12)])
    assert "shared by two compounds" in consistency(screen).metrics["reason"]
    shared = consistency(labelled_screen(doses=3, compounds=12))
    queries = shared.tables["perturbations"]
    assert queries["positives"].to_list() == [3 * 3] * 36
    assert queries["total"].to_list() == [3 * 11] * 36


def test_labels_of_a_perturbation_are_those_of_all_its_wells() -> None:
    screen = labelled_screen()
    is_first = (pl.col("Metadata_Plate") == "P1") & (pl.col("Metadata_Perturbation") == "drug 0@0")
    changed = pl.when(is_first).then(pl.lit("beta | gamma")).otherwise("Metadata_Target")
    metadata = screen.raw.metadata.with_columns(changed.alias("Metadata_Target"))
    queries = consistency(screen_of(metadata, screen.raw.features)).tables["perturbations"]
    own = queries.filter(pl.col("Metadata_Perturbation") == "drug 0@0")
    # With all three labels it has no negative; to the others of "beta" it is one more positive.
    assert own.is_empty()
    assert set(queries.filter(label="beta")["positives"]) == {8}


@hypothesis_settings(max_examples=10)
@given(data=st.data())
def test_names_of_labels_and_order_of_rows_mean_nothing(data: st.DataObject) -> None:
    screen = labelled_screen(strength=0.3)
    names = dict(zip(SHARED, data.draw(st.permutations(SHARED)), strict=True))
    order = data.draw(st.permutations(range(screen.raw.metadata.height)))
    renamed = screen.raw.metadata.with_columns(pl.col("Metadata_Target").replace(names))
    before = consistency(screen).rows.with_columns(pl.col("label").replace(names)).sort("label")
    rows = np.array(order)
    after = consistency(screen_of(renamed[rows], screen.raw.features[rows])).rows
    assert after["label"].to_list() == before["label"].to_list()
    for column in ("map", "normalized_map", "p", "q"):
        np.testing.assert_allclose(after[column], before[column], atol=1e-9)


@given(seed=st.integers(0, 2**31))
def test_rotating_and_scaling_rows_mean_nothing(seed: int) -> None:
    features, labels, compound = random_labels(seed)
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    question = shared_labels(labels, compound)[0]
    before = score_queries([Space.whole(features)], question)
    after = score_queries([Space.whole(features @ rotation * rng.uniform(0.1, 9, (30, 1)))], question)
    np.testing.assert_allclose(after.average_precision, before.average_precision, atol=EXACT)


def on_more_plates(screen: Screen, features: np.ndarray, **chosen: object) -> Screen:
    """The same wells on two more plates, with other profiles."""
    other = screen.raw.metadata.with_columns(pl.col("Metadata_Plate").str.replace("P", "Q"))
    both = pl.concat([screen.raw.metadata, other])
    return screen_of(both, np.concatenate([screen.raw.features, features]), **chosen)


@pytest.mark.parametrize("seed", range(3))
def test_doubling_every_well_changes_no_number(seed: int) -> None:
    """The consensus of a perturbation stays what it was."""
    screen = labelled_screen(strength=0.5, seed=seed)
    assert consistency(on_more_plates(screen, screen.raw.features)).rows.equals(consistency(screen).rows)


def test_the_median_is_another_consensus() -> None:
    screen = labelled_screen(strength=0.3)
    other = labelled_screen(strength=0.3, seed=1).raw.features
    means, medians = (
        consistency(on_more_plates(screen, other, consensus=average)).rows["map"]
        for average in ("mean", "median")
    )
    assert not means.equals(medians)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([None] * 24, "name it with --label"),
        ([f"target {number}" for number in range(24)], "shared by two compounds"),
        (["the only one"] * 24, "are the same"),
    ],
)
def test_tables_that_do_not_allow_it_say_why(labels: list[str | None], reason: str) -> None:
    result = consistency(labelled_screen(labels=labels))
    assert reason in result.metrics["reason"]
    assert "--label" in result.metrics["reason"]
    assert not result.tables
