"""What the terminal says: a readable line for every task, whatever it found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellvim.config import TASK_NAMES, EvaluateSettings
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.summary import EvaluateSummary, choice_lines, comparison_lines, task_lines
from cellvim.evaluate.tasks import TASKS
from cellvim.profiles import Profiles, normalize


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


RETRIEVAL = {"mean_map": estimate(0.6), "fraction_significant": estimate(0.5), "chance_map": 0.25}
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "activity", RETRIEVAL | {"perturbations": 9},
        ["  activity: mean mAP 0.600 (0.500 to 0.700), chance 0.250; 50% of 9 perturbations with q < 0.05"],
    ),
    (
        "activity",
        RETRIEVAL | {"perturbations": 9, "fraction_significant": 0.0, "beyond_reach_alone": 9, "smallest_p": 0.0123},
        [("  activity: mean mAP 0.600 (0.500 to 0.700), chance 0.250; 0% of 9 perturbations with q < 0.05; alone, none "
          "could reach it (p at best 0.012)")],
    ),
    (
        "consistency", RETRIEVAL | {"perturbations": 9, "labels": 4},
        ["  consistency: mean mAP 0.600 (0.500 to 0.700), chance 0.250; 50% of 4 labels with q < 0.05"],
    ),
    (
        "nsc", {"accuracy": estimate(0.6), "chance": 0.2, "shuffled": 0.18, "queries": 9},
        [("  nsc: nearest neighbour shares the label for 0.600 (0.500 to 0.700) of 9 queries, chance 0.200, "
         "shuffled labels 0.180")],
    ),
    ("nscb", {"reason": "one batch"}, ["  nscb: not done, one batch"]),
    (
        "percent_replicating", {"fraction_replicating": estimate(0.7), "perturbations": 9, "chance": 0.05},
        ["  percent_replicating: 70% (60% to 80%) of 9 perturbations, 5% by chance"],
    ),
    (
        "recall", {"recall": 0.3, "pairs": 40, "chance": 0.1, "sources": {"CORUM": {"recall": 0.3, "pairs": 40}}},
        ["  recall: 30% of 40 known pairs in the tails, 10% by chance"],
    ),
    (
        "batch", {"nearest_batch_accuracy": 0.5, "chance": 0.2, "silhouette": 0.1, "variance_explained_by_batch": 0.3},
        ["  batch: nearest neighbour of the same batch 0.500 (chance 0.200); variance explained by batch 0.300"],
    ),
    (
        "probe",
        {"label": "x", "plate_held_out": {"accuracy": estimate(0.7), "shuffled": {"accuracy": 0.2}}, "other": {"reason": "few"},
         "random": {"macro_f1": 0.1}},
        ["  probe, plate_held_out: accuracy 0.700 (0.600 to 0.800), shuffled labels 0.200", "  probe, other: not done, few"],
    ),
    ("new_task", {"score": estimate(0.5), "count": 3, "by": {"a": 1}}, ["  new_task: score 0.500 (0.400 to 0.600)"]),
    ("new_task", {"count": 3}, ["  new_task: done"]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "metrics", "lines"), CASES)
def test_every_task_has_a_line(task: str, metrics: dict[str, Any], lines: list[str]) -> None:
    assert task_lines(task, metrics) == lines


def test_what_the_tasks_really_give_can_be_said(make_screen: Callable[..., Profiles], tmp_path: Path) -> None:
    raw = make_screen(strengths=(4.0,) * 6, plates=2, replicates=2, controls=8)
    settings = EvaluateSettings(
        tables=(tmp_path / "a.parquet",), out=tmp_path, label="Metadata_Moa", null_size=50, bootstraps=20
    )
    screen = Screen(raw, normalize(raw, "standardize"), settings)
    for task in TASK_NAMES:
        lines = task_lines(task, TASKS[task](screen).metrics)
        assert lines
        assert all(line.startswith(f"  {task}") and len(line) < 400 and "{" not in line for line in lines)


def test_differences_that_are_certain_come_first_and_the_others_say_so() -> None:
    entries = [
        {
            "table": "b",
            "against": "a",
            "task": "activity",
            "metric": "mean_map",
            "difference": found,
            "shared": 9,
        }
        for found in (estimate(0.05), estimate(0.3), 0.2)
    ]
    assert comparison_lines(entries) == [
        "differences:",
        "  b - a, activity mean_map: 0.300 (0.200 to 0.400), 9 shared",
        "  b - a, activity mean_map: 0.050 (-0.050 to 0.150), 9 shared; may be chance",
        "  b - a, activity mean_map: 0.200, 9 shared; may be chance",
    ]
    few = [entry | {"units": 5} for entry in entries]
    assert all(line.endswith("may be chance") for line in comparison_lines(few)[1:])
    assert comparison_lines([entries[1] | {"units": 6}])[1].endswith("shared")
    assert comparison_lines(entries * 3)[-1] == "  and 3 more in metrics.json"
    assert comparison_lines([]) == []


def test_the_choice_says_what_it_is_worth_or_why_there_is_none() -> None:
    choice = {"chosen": "block 4", "task": "activity", "estimate": estimate(0.5), "naive": 0.61}
    assert choice_lines(choice) == [
        (
            "choice: block 4 by activity; a table so chosen has mean normalised mAP 0.500 (0.400 to 0.600) "
            "on perturbations that had no say (0.610 on those that had)"
        )
    ]
    assert choice_lines({"reason": "too few compounds"}) == ["choice: not made, too few compounds"]
    assert choice_lines({}) == []


def test_a_summary_goes_from_tables_to_the_report(tmp_path: Path) -> None:
    table = {"name": "a", "wells": 96, "plates": 2, "negative_controls": 16, "features_used": 24}
    metrics = {
        "tables": [table | {"tasks": {"nscb": {"reason": "one batch"}}}],
        "comparison": [],
        "choice": None,
    }
    summary = EvaluateSummary(tmp_path, tmp_path / "report.html", metrics)
    assert str(summary).splitlines() == [
        "a: 96 wells on 2 plate(s), 16 negative controls, 24 features",
        "  nscb: not done, one batch",
        f"report: {tmp_path / 'report.html'}",
    ]
    assert summary.as_dict()["tables"] == metrics["tables"]
