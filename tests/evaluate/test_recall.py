"""Recall of known relationships: exact ranks against a full matrix, files of every kind, planted and random pairs."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from cellvim.config import EvaluateSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.evaluate import recall as module
from cellvim.evaluate.recall import place_pairs, recall
from cellvim.evaluate.relations import read_relations
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, aggregate

Write = Callable[[Any, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: Any, name: str = "relations.csv") -> Path:
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".parquet"):
            content.write_parquet(path)
        else:
            content.write_csv(path, separator="\t" if name.endswith(".tsv") else ",")
        return path

    return to_file


def screen_of(features: np.ndarray, names: list[str], relations: Path | None, **columns: list[Any]) -> Screen:
    size = len(names)
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": ["P"] * size,
            "Metadata_Well": [f"{chr(65 + row // 48)}{row % 48 + 1:02}" for row in range(size)],
            "Metadata_Perturbation": names,
            "Metadata_ControlType": ["negcon" if name == "DMSO" else None for name in names],
            **{f"Metadata_{name}": values for name, values in columns.items()},
        },
        schema_overrides={"Metadata_ControlType": pl.String},
    )
    labels = tuple(f"emb_{index}" for index in range(features.shape[1]))
    raw = aggregate(Profiles(metadata, features.astype(np.float32), labels, {}, Path("t.parquet"), "t"))
    settings = EvaluateSettings(
        tables=(Path("t"),), out=Path("o"), normalize="none", bootstraps=200, relations=relations
    )
    return Screen(raw, raw, settings)


def genes(count: int) -> list[str]:
    return [f"g{number:03}" for number in range(count)]


def complexes(
    *, strength: float, count: int = 120, size: int = 3, seed: int = 0
) -> tuple[np.ndarray, pl.DataFrame]:
    """Genes in complexes, half of them reversed, and the pairs within complexes."""
    rng = np.random.default_rng(seed)
    directions = np.repeat(rng.normal(size=(count // size, 30)), size, axis=0)
    sign = np.where(np.arange(count) % size == 0, -1, 1)[:, None]
    features = strength * sign * directions + rng.normal(size=(count, 30))
    pairs = [
        pair
        for start in range(0, count, size)
        for pair in combinations(genes(count)[start : start + size], 2)
    ]
    return features, pl.DataFrame(pairs, schema=["one", "other"], orient="row")


@pytest.mark.parametrize("block_entries", [2**22, 60, 1])
def test_ranks_are_those_of_the_full_matrix(block_entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ENTRIES", block_entries)
    features = np.random.default_rng(0).normal(size=(41, 7))
    features[1] = 2 * features[0]
    first, second = np.triu_indices(41, k=1)
    every = cosine_similarity(features)[first, second]
    placed = place_pairs(features, first, second)
    assert np.allclose(placed.similarity, every, atol=1e-12)
    # The pair itself is among all pairs, half below and half above itself.
    assert np.allclose(
        placed.percentile,
        [((every < own - 1e-13).mean() + (every < own + 1e-13).mean()) / 2 for own in every],
    )
    low, high = np.sort(every)[[every.size // 20 - 1, -(every.size // 20)]]
    assert (placed.is_recalled == ((every <= low) | (every >= high))).all()
    assert placed.is_recalled.sum() == 2 * (every.size // 20)


def test_recall_is_the_share_of_known_pairs_in_the_tails(write: Write) -> None:
    features, pairs = complexes(strength=0.7)
    result = recall(screen_of(features, genes(120), write(pairs, "r.csv")))
    every = cosine_similarity(features.astype(np.float32).astype(np.float64))[np.triu_indices(120, k=1)]
    low, high = np.sort(every)[[every.size // 20 - 1, -(every.size // 20)]]
    similarity = result.rows["similarity"].to_numpy()
    expected = ((similarity <= low) | (similarity >= high)).mean()
    assert 0.2 < expected < 1
    assert result.metrics["recall"]["value"] == pytest.approx(expected)
    assert result.metrics["pairs"] == 120


def test_planted_pairs_are_recalled_whether_alike_or_opposite_and_shuffled_ones_are_not(write: Write) -> None:
    features, pairs = complexes(strength=3)
    result = recall(screen_of(features, genes(120), write(pairs, "r.csv")))
    assert result.metrics["recall"]["low"] > 0.95
    assert {percentile < 0.5 for percentile in result.rows["percentile"]} == {True, False}
    assert result.metrics["chance"] == pytest.approx(0.1, abs=0.001)
    assert abs(result.metrics["shuffled"] - 0.1) < 0.04


def test_pairs_of_meaningless_profiles_are_recalled_by_chance(write: Write) -> None:
    features, pairs = complexes(strength=0, count=300)
    value = recall(screen_of(features, genes(300), write(pairs, "r.csv"))).metrics["recall"]
    assert value["low"] < 0.1 < value["high"]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapsed_embedding_recalls_nothing(write: Write, value: float) -> None:
    features, pairs = complexes(strength=3)
    flat = np.full_like(features, value)
    metrics = recall(screen_of(flat, genes(120), write(pairs, "r.csv"))).metrics
    assert metrics["recall"] == {"value": 0, "low": 0, "high": 0}


def test_the_interval_knows_that_pairs_of_one_perturbation_are_recalled_together() -> None:
    settings = EvaluateSettings(tables=(Path("t"),), out=Path("o"), bootstraps=500)
    hubs = [(f"hub {number}", f"g{number} {other}") for number in range(12) for other in range(12)]
    columns = ["first", "second", "level"]
    pairs = pl.DataFrame([(*pair, "perturbation") for pair in hubs], schema=columns, orient="row")
    together = pairs.with_columns((pl.int_range(144) // 12 % 2 == 0).alias("is_recalled"))
    apart = pairs.with_columns((pl.int_range(144) % 2 == 0).alias("is_recalled"))
    width = {}
    for name, table in (("together", together), ("apart", apart)):
        found = module.recall_of(table, settings, "test")
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value == 0.5 < found.high
        width[name] = found.high - found.low
    # As if there were 12 pairs, not 144; and at least as wide as a bootstrap over pairs.
    assert width["together"] > 3.9 * (0.25 / 12) ** 0.5 * 0.8
    assert 3.9 * (0.25 / 144) ** 0.5 < width["apart"] < width["together"]


def test_doubled_self_and_unknown_pairs_are_counted_and_left_out(write: Write) -> None:
    features, _ = complexes(strength=1)
    rows = [
        "g000,g001,A",
        "g001,g000,A",
        "g000,g001,B",
        "g002,g002,A",
        "g003,nobody,A",
        "g004,,A",
        "g005,g006,",
    ]
    result = recall(screen_of(features, genes(120), write("one,other,source\n" + "\n".join(rows), "r.csv")))
    expected = [("g000", "g001", "A"), ("g000", "g001", "B"), ("g005", "g006", None)]
    assert result.rows.select("first", "second", "source").rows() == expected
    counts = {"pairs": 2, "pairs_without_profiles": 1, "unknown_names": 1}
    counts |= {"self_pairs": 1, "doubled_pairs": 1, "incomplete_pairs": 1}
    assert {name: result.metrics[name] for name in counts} == counts
    assert {name: own["pairs"] for name, own in result.metrics["sources"].items()} == {"A": 1, "B": 1}


def test_a_column_of_scores_is_not_taken_for_sources(write: Write) -> None:
    features, pairs = complexes(strength=1)
    scored = pairs.with_columns(pl.Series("score", np.arange(pairs.height) / 7))
    metrics = recall(screen_of(features, genes(120), write(scored, "r.csv"))).metrics
    assert "sources" not in metrics
    assert metrics["too_many_sources"] == 120


def test_names_are_perturbations_or_else_compounds(write: Write) -> None:
    compounds = [f"c{number:02}" for number in range(12) for _ in range(2)]
    names = [f"{compound}@{1 + row % 2} uM" for row, compound in enumerate(compounds)]
    features = np.random.default_rng(0).normal(size=(24, 5))
    content = "a,b\nc00@1 uM,c00@2 uM\nc03,c01\nc03,c04@1 uM\n"
    result = recall(screen_of(features, names, write(content, "r.csv"), Compound=compounds))
    assert result.rows.select("first", "second", "level").rows() == [
        ("c00@1 uM", "c00@2 uM", "perturbation"),
        ("c01", "c03", "compound"),
    ]
    own = features.astype(np.float32)
    expected = [cosine_similarity(own)[0, 1], cosine_similarity(own[[2, 6]] + own[[3, 7]])[0, 1]]
    assert result.rows["similarity"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert result.metrics["pairs_without_profiles"] == 1
    assert result.metrics["unknown_names"] == 0


def test_every_format_gives_the_same(write: Write) -> None:
    features, pairs = complexes(strength=1)
    found = [
        recall(screen_of(features, genes(120), write(table, f"r{suffix}"))).metrics
        for suffix in (".csv", ".tsv", ".parquet")
        for table in (pairs, pairs.select("other", "one").reverse())
    ]
    assert all(metrics == found[0] for metrics in found)


def test_the_order_of_wells_changes_nothing(write: Write) -> None:
    features, pairs = complexes(strength=0.5)
    screen = screen_of(features, genes(120), write(pairs, "r.csv"))
    moved = aggregate(screen.raw.only(np.random.default_rng(3).permutation(120)))
    first, second = recall(screen), recall(Screen(moved, moved, screen.settings))
    assert first.metrics == second.metrics
    assert first.rows.equals(second.rows)


def test_numbers_are_names_as_they_are_written(write: Write) -> None:
    for content, expected in (("007,1.50", ("007", "1.50")), ("NA,nan", ("NA", "nan"))):
        relations = read_relations(write(f"a,b\n{content}\n", "r.csv"), known=())
        assert relations.pairs.select("first", "second").rows() == [expected]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "r.csv", "cannot be read"),
        ("one\ng001\n", "r.csv", "a pair needs two"),
        ("one,other\n", "r.csv", "no rows"),
        ("g000,g001\ng002,g003\n", "r.csv", "begins with a pair"),
        ("a,b\nc,d,e,f\n", "r.csv", "cannot be read"),
        (b"\xff\xfe\x00,\x01\n\xff,\xff\n", "r.csv", "cannot be read"),
        (b"PAR1 not really", "r.parquet", "cannot be read"),
        (pl.DataFrame({"a": [["g000"]], "b": ["g001"]}), "r.parquet", "not names"),
        ("a,b\ng000,g001\n", "r.xlsx", "ending"),
    ],
)
def test_other_files_are_refused(write: Write, content: Any, name: str, message: str) -> None:
    features, _ = complexes(strength=1)
    with pytest.raises(InputError, match=message):
        recall(screen_of(features, genes(120), write(content, name)))


def test_reasons_instead_of_numbers(write: Write, tmp_path: Path) -> None:
    features, pairs = complexes(strength=1)
    assert "--relations" in recall(screen_of(features, genes(120), None)).metrics["reason"]
    strangers = write("a,b\nx,y\n", "s.csv")
    assert "x, y" in recall(screen_of(features, genes(120), strangers)).metrics["reason"]
    few = screen_of(features[:5], genes(5), write(pairs, "r.csv"))
    assert "fewer than 20 pairs" in recall(few).metrics["reason"]
    controls = screen_of(features[:5], ["DMSO"] * 5, write(pairs, "r.csv"))
    assert "reason" in recall(controls).metrics
    with pytest.raises(NotFoundError):
        recall(screen_of(features, genes(120), tmp_path / "absent.csv"))
