"""Choosing the best of several tables: the choice is judged by perturbations that had no say in it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate.choice import FOLDS, choose_table, cross_fitted
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.stage import EvaluatedTable
from cellvim.folds import fold_of
from cellvim.profiles import Profiles

SETTINGS = EvaluateSettings(tables=(Path("t"),), out=Path("o"), bootstraps=200)


def table_of(
    scores: np.ndarray,
    name: str,
    *,
    task: str = "replicate_retrieval",
    doses: int = 1,
    layers: list[int] | None = None,
) -> EvaluatedTable:
    """A table judged already: normalised mAP by perturbation; `doses` perturbations in a row are one compound."""
    names = [f"drug {number:03}" for number in range(len(scores))]
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": ["P"] * len(names),
            "Metadata_Well": [f"A{number:02}" for number in range(len(names))],
            "Metadata_Perturbation": names,
            "Metadata_Compound": [f"compound {number // doses}" for number in range(len(names))],
            "Metadata_ControlType": pl.Series([None] * len(names), dtype=pl.String),
        }
    )
    provenance = {} if layers is None else {"layers": layers}
    wells = Profiles(metadata, np.zeros((len(names), 1), np.float32), ("f",), provenance, Path("t"), name)
    rows = pl.DataFrame({"Metadata_Perturbation": names, "map": scores, "normalized_map": scores})
    return EvaluatedTable(name, Screen(wells, wells, SETTINGS), {task: TaskResult(task, {}, {"": rows})})  # type: ignore[arg-type, dict-item]


def noise(seed: int, *, tables: int = 12, perturbations: int = 60) -> list[EvaluatedTable]:
    scores = np.random.default_rng(seed).normal(size=(tables, perturbations))
    return [table_of(own, f"block {number}") for number, own in enumerate(scores)]


def value(metric: float | dict[str, float]) -> float:
    return metric["value"] if isinstance(metric, dict) else metric


def test_the_best_of_many_tables_of_noise_promises_too_much_and_the_choice_does_not() -> None:
    found = [choose_table(noise(seed), SETTINGS) for seed in range(16)]
    naive = np.array([each["naive"] for each in found if each])
    judged = np.array([value(each["estimate"]) for each in found if each])
    assert naive.min() > 0
    assert naive.mean() > 0.15
    assert abs(judged.mean()) < 3 * judged.std() / len(judged) ** 0.5
    covered = [each["estimate"]["low"] <= 0 <= each["estimate"]["high"] for each in found if each]
    assert np.mean(covered) > 0.5


def test_a_table_that_is_better_is_chosen_by_every_fold_and_loses_nothing_by_it() -> None:
    tables = noise(0, tables=4)
    best = table_of(np.random.default_rng(1).normal(3, 1, 60), "block 9", layers=[9])
    found = choose_table([*tables, best], SETTINGS)
    assert found is not None
    assert found["chosen"] == "block 9"
    assert found["tables"][-1]["times_chosen"] == found["folds"] == FOLDS
    assert found["tables"][-1]["layers"] == [9]
    assert found["tables"][0]["layers"] is None
    assert value(found["estimate"]) == pytest.approx(found["naive"]) == value(found["tables"][-1]["mean"])


def test_folds_are_judged_as_a_loop_would() -> None:
    rng = np.random.default_rng(2)
    scores, fold = rng.normal(size=(40, 5)), rng.integers(0, 4, 40)
    choice, held_out = cross_fitted(scores, fold)
    for row in range(40):
        others = scores[[other for other in range(40) if fold[other] != fold[row]]]
        assert held_out[row] == scores[row, np.argmax(others.mean(axis=0))]
    assert set(choice) == set(range(4))


def test_doses_of_a_compound_are_never_on_both_sides() -> None:
    """Each compound loves a table of its own: who chose by one dose would be right about the other."""
    rng = np.random.default_rng(3)
    loved = np.repeat(rng.normal(size=(8, 30)), 2, axis=1)
    tables = [table_of(own, f"block {number}", doses=2) for number, own in enumerate(loved)]
    found = choose_table(tables, SETTINGS)
    assert found is not None
    assert found["compounds"] == 30
    assert found["perturbations"] == 60
    fold = np.repeat([fold_of(f"compound {number}", folds=FOLDS, salt="choice") for number in range(30)], 2)
    assert value(found["estimate"]) == pytest.approx(cross_fitted(loved.T, fold)[1].mean())


def test_only_what_all_tables_have_counts_and_activity_stands_in() -> None:
    long, short = table_of(np.ones(40), "long"), table_of(np.zeros(25), "short")
    found = choose_table([long, short], SETTINGS)
    assert found is not None
    assert (found["task"], found["perturbations"]) == ("replicate_retrieval", 25)
    active = [table_of(np.ones(30), "a", task="activity"), table_of(np.zeros(30), "b", task="activity")]
    found = choose_table(active, SETTINGS)
    assert found is not None
    assert (found["task"], found["chosen"]) == ("activity", "a")


def test_what_cannot_be_chosen_says_why() -> None:
    assert choose_table(noise(0, tables=1), SETTINGS) is None
    few = choose_table(noise(0, tables=2, perturbations=4), SETTINGS)
    assert few is not None
    assert "too few" in few["reason"]
    unlike = [table_of(np.ones(30), "a"), table_of(np.ones(30), "b", task="activity")]
    found = choose_table(unlike, SETTINGS)
    assert found is not None
    assert "no task" in found["reason"]


def test_two_runs_are_the_same() -> None:
    assert choose_table(noise(5), SETTINGS) == choose_table(noise(5), SETTINGS)
