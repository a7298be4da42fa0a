"""Several tables side by side: which profiles tell perturbations apart best, and is the difference real?"""

from dataclasses import dataclass

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.summary import metrics_of
from cellvim.evaluate.report.wording import estimate_of
from cellvim.statistics import Estimate


@dataclass(frozen=True)
class ComparedTask:
    """How one table does in one task; None where it was not judged."""

    strength: Estimate | None
    chance: Estimate | None
    significant: Estimate | None


@dataclass(frozen=True)
class ComparedTable:
    name: str
    tasks: tuple[ComparedTask, ...]


def comparison(content: ReportContent) -> list[ComparedTable]:
    """One row per table in the order given; empty if there is only one table to speak of."""
    if len(content.tables) < 2:
        return []
    return [
        ComparedTable(table, tuple(_task(content, table, task) for task in content.tasks))
        for table in content.tables
    ]


def _task(content: ReportContent, table: str, task: str) -> ComparedTask:
    metrics = metrics_of(content, table, task)
    keys = ("mean_map", "chance_map", "fraction_significant")
    return ComparedTask(*(estimate_of(metrics.get(key)) for key in keys))
