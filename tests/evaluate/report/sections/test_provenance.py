"""Where the numbers come from, on the page: every hash of a few plates, and every stage of many."""

import dataclasses
from collections.abc import Callable

import pytest

from cellvim.evaluate.report import ReportContent
from cellvim.evaluate.report.sections.provenance import provenance


def test_plates_of_one_command_are_one_step_with_all_their_hashes(
    full_content: ReportContent, render: Callable[[ReportContent], str]
) -> None:
    data = provenance(full_content)
    assert data is not None
    assert [step["number"] for step in data["steps"]] == [1]
    told = full_content.metrics["provenance"]["steps"]
    every = [each["sha256"] for step in told for each in (*step["reads"], *step["makes"])]
    assert sorted(row["sha256"] for row in data["steps"][0]["rows"]) == sorted(every)
    html = render(full_content)
    assert all(sha256 in html for sha256 in every)
    assert "null size 10,000, seed 0. <a href" in html


def test_a_step_of_other_versions_stands_alone_and_says_so(
    full_content: ReportContent, render: Callable[[ReportContent], str]
) -> None:
    told = full_content.metrics["provenance"]
    first, *rest = told["steps"]
    steps = [first | {"versions": {"torch": "2.12.0"}}, *rest]
    content = dataclasses.replace(
        full_content, metrics=full_content.metrics | {"provenance": told | {"steps": steps}}
    )
    data = provenance(content)
    assert data is not None
    assert [step["versions"] for step in data["steps"]] == ["cellvim 0.1.0, torch 2.12.0", "cellvim 0.1.0"]
    assert "cellvim 0.1.0, torch 2.12.0" in render(content)


@pytest.mark.parametrize("settings", [["a" * 64], [f"{number:064}" for number in range(100)]])
def test_many_plates_leave_room_for_what_came_after_them(
    full_content: ReportContent, settings: list[str]
) -> None:
    """A study has an ingest and an embedding for each of a thousand plates, of one settings or of many."""
    told = full_content.metrics["provenance"]
    last = told["steps"][-1] | {"stage": "evaluate", "settings_sha256": "b" * 64}
    many = [
        told["steps"][0]
        | {
            "stage": "ingest",
            "command": f"cellvim ingest {number}",
            "settings_sha256": settings[number % len(settings)],
        }
        for number in range(100)
    ]
    metrics = full_content.metrics | {"provenance": told | {"steps": [*many, last], "steps_left_out": 7}}
    data = provenance(dataclasses.replace(full_content, metrics=metrics))
    assert data is not None
    assert data["steps"][-1]["stage"] == "evaluate"
    assert len(data["steps"]) < 20
    assert sum(1 + step["others"] for step in data["steps"]) + data["left_out"] == 108
