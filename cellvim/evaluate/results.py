"""What a task of the evaluation gives: numbers for metrics.json, and tables for Parquet and the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from cellvim.config import TaskName


@dataclass(frozen=True)
class TaskResult:
    """One task on one table of profiles.

    Args:
        task: Name of the task.
        metrics: What metrics.json says of it: numbers, ``{value, low, high}``, and ``reason`` where the table does
            not allow the task.
        tables: Tables by the ending of their file: ``""`` becomes TASK.parquet, ``"wells"`` TASK_wells.parquet.
    """

    task: TaskName
    metrics: dict[str, Any]
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)

    @classmethod
    def not_done(cls, task: TaskName, reason: str) -> "TaskResult":
        """Say why a table does not allow a task: which column or which wells it lacks."""
        return cls(task, {"reason": reason})

    @property
    def rows(self) -> pl.DataFrame:
        """The leading table: one row per perturbation, label, pair or query, as the task has it."""
        return self.tables[""]
