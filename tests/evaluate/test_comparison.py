"""Paired differences of tables: the mean of what a loop subtracts, and certain only where something is there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate.comparison import COMPARED, compare_tables
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.stage import EvaluatedTable
from cellvim.evaluate.tasks import TASKS
from cellvim.profiles import Profiles, normalize

MakeScreen = Callable[..., Profiles]
SETTINGS = EvaluateSettings(
    tables=(Path("t"),), out=Path("o"), bootstraps=200, null_size=200, normalize="standardize", label="Moa"
)
DONE = (
    "activity",
    "distinctiveness",
    "replicate_retrieval",
    "consistency",
    "nsc",
    "percent_replicating",
    "probe",
)


def judged(profiles: Profiles, name: str) -> EvaluatedTable:
    screen = Screen(profiles, normalize(profiles, "standardize"), SETTINGS)
    return EvaluatedTable(name, screen, {task: run(screen) for task, run in TASKS.items() if task in DONE})


@pytest.fixture(scope="module")
def profiles(make_screen: MakeScreen) -> Profiles:
    return make_screen(strengths=(1.5,) * 8, plates=3, replicates=2)


def noisier(profiles: Profiles, amount: float, seed: int = 0) -> Profiles:
    noise = np.random.default_rng(seed).normal(size=profiles.features.shape)
    return replace(profiles, features=(profiles.features + amount * noise).astype(np.float32))


@pytest.fixture(scope="module")
def tables(profiles: Profiles) -> list[EvaluatedTable]:
    plain = judged(profiles, "plain")
    return [plain, replace(plain, name="again"), judged(noisier(profiles, 20.0), "noisy")]


def differences(entries: list[dict[str, Any]], table: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(entry["task"], entry["metric"]): entry for entry in entries if entry["table"] == table}


def test_the_same_profiles_do_not_differ_and_noisier_ones_are_worse(tables: list[EvaluatedTable]) -> None:
    found = compare_tables(tables, SETTINGS)
    for entry in differences(found, "again").values():
        assert entry["difference"] == {"value": 0, "low": 0, "high": 0}
        assert entry["against"] == "plain"
    worse = differences(found, "noisy")
    for task in ("activity", "replicate_retrieval"):
        assert worse[task, "mean_map"]["difference"]["high"] < 0
        assert worse[task, "mean_map"]["shared"] == worse[task, "mean_map"]["units"] == 8
        assert worse[task, "mean_map"]["of"] == "compound"
    assert {task for task, _ in worse} >= {"activity", "distinctiveness", "replicate_retrieval", "probe"}


def test_differences_are_those_of_the_metrics_where_all_is_shared(tables: list[EvaluatedTable]) -> None:
    """Two tables of the same wells: the mean of paired differences is the difference of means."""
    first, other = tables[0], tables[2]
    found = differences(compare_tables([first, other], SETTINGS), "noisy")
    for task, metric in found:
        entry, names = found[task, metric], metric.split(", ")
        scores = [table.results[task].metrics for table in (first, other)]  # type: ignore[index]
        if len(names) == 2:
            scores = [own[names[1]] for own in scores]
        expected = [
            own[names[0]]["value"] if isinstance(own[names[0]], dict) else own[names[0]] for own in scores
        ]
        assert entry["difference"]["value"] == pytest.approx(expected[1] - expected[0])


def test_probes_are_resampled_by_what_was_held_out(tables: list[EvaluatedTable]) -> None:
    found = differences(compare_tables(tables, SETTINGS), "noisy")
    by_plate = found["probe", "accuracy, plate_held_out"]
    assert by_plate["shared"] == 48
    assert by_plate["units"] == 3
    assert found["probe", "accuracy, random_well (leaky)"]["units"] == 48


def test_tables_of_different_wells_are_compared_on_what_they_share(
    profiles: Profiles, tables: list[EvaluatedTable]
) -> None:
    kept = (profiles.metadata["Metadata_Perturbation"] != "drug 0").to_numpy()
    smaller = profiles.only(np.flatnonzero(kept))
    found = differences(compare_tables([tables[0], judged(smaller, "smaller")], SETTINGS), "smaller")
    assert found["activity", "mean_map"]["shared"] == 7
    assert found["probe", "accuracy, plate_held_out"]["shared"] == 42
    strange = replace(
        profiles,
        metadata=profiles.metadata.with_columns(
            pl.when(pl.col("Metadata_ControlType").is_null())
            .then(pl.col("Metadata_Perturbation") + "!")
            .otherwise(pl.col("Metadata_Perturbation"))
            .alias("Metadata_Perturbation")
        ),
    )
    others = differences(compare_tables([tables[0], judged(strange, "strange")], SETTINGS), "strange")
    assert not {task for task, _ in others} & {"activity", "replicate_retrieval"}


def test_equally_good_tables_are_rarely_told_apart(make_screen: MakeScreen) -> None:
    """Twenty perturbations, two tables with noise of their own: 0 lies in the interval nearly always."""
    apart = 0
    for seed in range(20):
        plain = make_screen(strengths=(0.5,) * 20, plates=2, replicates=1, seed=seed)
        pair = [
            EvaluatedTable(name, screen, {"replicate_retrieval": TASKS["replicate_retrieval"](screen)})
            for name, number in (("a", 1), ("b", 2))
            for wells in [noisier(plain, 2.0, seed=100 * seed + number)]
            for screen in [Screen(wells, normalize(wells, "standardize"), SETTINGS)]
        ]
        difference = compare_tables(pair, SETTINGS)[0]["difference"]
        apart += not difference["low"] <= 0 <= difference["high"]
    assert apart <= 4


def test_one_table_and_tasks_not_done_compare_nothing(tables: list[EvaluatedTable]) -> None:
    assert compare_tables(tables[:1], SETTINGS) == []
    undone = replace(tables[0], results={"activity": TaskResult.not_done("activity", "why")})
    assert compare_tables([undone, undone], SETTINGS) == []


def test_two_runs_are_the_same_and_every_task_with_items_has_a_comparison(
    tables: list[EvaluatedTable],
) -> None:
    assert compare_tables(tables, SETTINGS) == compare_tables(tables, SETTINGS)
    assert set(TASKS) - set(COMPARED) <= {"batch"}


def recall_of(hits: list[bool], source: str | None, names: list[tuple[str, str]]) -> TaskResult:
    rows = pl.DataFrame(names, schema=["first", "second"], orient="row").with_columns(
        pl.lit(source, dtype=pl.String).alias("source"), pl.Series("is_recalled", hits)
    )
    return TaskResult("recall", {}, {"": rows})


@pytest.mark.parametrize("source", [None, "CORUM"])
def test_recall_is_compared_whether_or_not_pairs_have_a_source(
    tables: list[EvaluatedTable], source: str | None
) -> None:
    """And pairs of one hub, which is second in every one of them, are drawn together."""
    hubs = [(f"a{hub} {other}", f"hub {hub}") for hub in range(8) for other in range(10)]
    spread = [(f"a{number}", f"b{number}") for number in range(80)]
    better = [number // 10 % 2 == 0 for number in range(80)]
    width = {}
    for name, pairs in (("hubs", hubs), ("spread", spread)):
        first, other = (
            replace(tables[0], name=which, results={"recall": recall_of(hits, source, pairs)})
            for which, hits in (("first", [False] * 80), ("other", better))
        )
        (found,) = compare_tables([first, other], SETTINGS)
        assert (found["task"], found["shared"], found["difference"]["value"]) == ("recall", 80, 0.5)
        width[name] = found["difference"]["high"] - found["difference"]["low"]
    assert width["hubs"] > 1.5 * width["spread"]
