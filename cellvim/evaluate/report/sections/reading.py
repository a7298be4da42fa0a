"""What sections read from the report's content: one profile table at a time, and numbers that can be shown."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.summary import metrics_of
from cellvim.evaluate.report.wording import estimate_of, rounded

Shown = dict[str, float | None]
"""A number with its 95 % interval: ``{value, low, high}``."""


def rows_of(content: ReportContent, stem: str) -> pl.DataFrame | None:
    """Rows of the first profile table in one of the files beside the page; None if there are none."""
    table = content.tables_on_disk.get(stem)
    if table is None or not content.tables:
        return None
    own = table.filter(pl.col("table").cast(pl.String) == content.tables[0])
    return None if own.is_empty() else own


def shown(metric: Any) -> Shown | None:
    """A metric of metrics.json as sections show it; None where it has no value."""
    estimate = estimate_of(metric)
    if estimate is None:
        return None
    return {"value": rounded(estimate.value), "low": rounded(estimate.low), "high": rounded(estimate.high)}


def first_metrics(content: ReportContent, task: str) -> dict[str, Any]:
    """Metrics of a task of the first profile table; empty if it was not done."""
    return dict(metrics_of(content, content.tables[0], task)) if content.tables else {}


def by_table(content: ReportContent, task: str, metric: str) -> list[dict[str, Any]]:
    """One metric of every profile table; empty where there is only one table."""
    if len(content.tables) < 2:
        return []
    found = [(table, shown(metrics_of(content, table, task).get(metric))) for table in content.tables]
    return [{"table": table, "estimate": estimate} for table, estimate in found if estimate is not None]


def texts(column: pl.Series) -> list[str]:
    """Names as text; an empty one where there is none."""
    return [text or "" for text in column.cast(pl.String).to_list()]


def values(column: pl.Series) -> list[float | None]:
    """Numbers with four digits; None for what is missing or not finite."""
    return [rounded(value) for value in column.to_list()]


def percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{100 * share:.0f} %"


def in_words(estimate: Shown | None, *, as_percent: bool = False) -> str:
    """``0.83 (95 % interval 0.77 to 0.89)``."""
    if estimate is None:
        return "not judged"
    number = percent if as_percent else decimals
    if estimate["low"] is None or estimate["high"] is None:
        return number(estimate["value"])
    return (
        f"{number(estimate['value'])} (95 % interval {number(estimate['low'])} to {number(estimate['high'])})"
    )


def decimals(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.2f}"


def rounded_row(row: Mapping[str, Any], names: tuple[str, ...]) -> Shown:
    """Some numbers of a row; None for what is missing or not finite."""
    return {name: rounded(row.get(name)) for name in names}
