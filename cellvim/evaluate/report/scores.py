"""Rows of the table of perturbations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellvim.evaluate.report.content import SIGNIFICANT_Q, ReportContent
from cellvim.evaluate.report.wording import finite, rounded

SCORES = ("map", "normalized_map", "p", "q", "smallest_p")


@dataclass(frozen=True)
class TaskScore:
    """What one task says about one perturbation; None where it could not be judged."""

    map: float | None
    normalized_map: float | None
    p: float | None
    q: float | None
    smallest_p: float | None

    @property
    def is_significant(self) -> bool:
        return self.q is not None and self.q < SIGNIFICANT_Q


@dataclass(frozen=True)
class PerturbationRow:
    table: str
    name: str
    replicates: float | None
    plates: float | None
    scores: tuple[TaskScore, ...]
    picture: int | None

    @property
    def is_significant(self) -> bool:
        """Whether any task finds it."""
        return any(score.is_significant for score in self.scores)


def perturbation_rows(content: ReportContent, faces: Mapping[str, int | None]) -> list[PerturbationRow]:
    """One row per table and perturbation, best first by the first task; ties by name.

    Args:
        content: The report's tables.
        faces: Picture that stands for a perturbation, where there is one.
    """
    order = {table: place for place, table in enumerate(content.tables)}
    rows = [_row(values, content.tasks, faces) for values in content.perturbations.iter_rows(named=True)]

    def best_first(row: PerturbationRow) -> tuple[int, float, str]:
        strength = row.scores[0].map if row.scores else None
        return (order[row.table], 2.0 if strength is None else -strength, row.name)

    return sorted(rows, key=best_first)


def score_columns(rows: Sequence[PerturbationRow], content: ReportContent) -> dict[str, Any]:
    """The same rows by column, for the page's script: names and tables once each, and their places."""
    names = list(dict.fromkeys(row.name for row in rows))
    code = {name: place for place, name in enumerate(names)}
    tables = {table: place for place, table in enumerate(content.tables)}
    return {
        "names": names,
        "name": [code[row.name] for row in rows],
        "table": [tables[row.table] for row in rows],
        "replicates": [row.replicates for row in rows],
        "plates": [row.plates for row in rows],
        "picture": [row.picture for row in rows],
        "scores": {
            task: {key: [getattr(row.scores[place], key) for row in rows] for key in SCORES}
            for place, task in enumerate(content.tasks)
        },
    }


def _row(
    values: Mapping[str, Any], tasks: tuple[str, ...], faces: Mapping[str, int | None]
) -> PerturbationRow:
    name = str(values["Metadata_Perturbation"])
    scores = tuple(TaskScore(*(rounded(values.get(f"{task}_{key}")) for key in SCORES)) for task in tasks)
    replicates, plates = finite(values.get("replicates")), finite(values.get("plates"))
    return PerturbationRow(str(values["table"]), name, replicates, plates, scores, faces.get(name))
