"""Is one table better than the other? Paired differences over what both have judged."""

from collections.abc import Mapping
from typing import Any

from cellvim.evaluate.comparison import FEWEST_UNITS
from cellvim.evaluate.report.content import TASK_LABELS, ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import forest
from cellvim.evaluate.report.sections.reading import in_words, shown
from cellvim.evaluate.report.sections.tables import table
from cellvim.evaluate.report.wording import counted, spelled

MOST_DRAWN = 30
PLAIN = "mean map"
"""Drawn only where it has no normalised twin: chance is part of it."""


def paired_comparison(content: ReportContent) -> dict[str, Any] | None:
    """Differences with intervals, in the order of metrics.json; a difference is certain where 0 lies outside."""
    found = [row for entry in content.metrics.get("comparison") or () if (row := difference_row(entry))]
    if not found:
        return None
    certain = [row for row in found if row["is_certain"] and row["metric"] != PLAIN]
    drawn = [row for row in found if row["metric"] != PLAIN][:MOST_DRAWN] or found[:MOST_DRAWN]
    return {
        "rows": drawn,
        "differences": len(found),
        "certain": len(certain),
        "findings": [sentence(row) for row in certain[:5]],
        "alternative": (
            f"Forest of {counted(len(drawn), 'paired difference')} around 0: {len(certain)} of {len(found)} have an interval "
            "without 0."
            + "".join(f" {sentence(row)}" for row in certain[:3])
        ),
        "table": table(
            (("Task", "text"), ("Measure", "text"), ("Table", "text"), ("Against", "text"), ("Difference", "estimate"),
             ("Shared", "whole")),
            [[row["task"], row["metric"], row["table"], row["against"], {key: row[key] for key in ("value", "low", "high")},
              row["shared"]] for row in found],
        ),
    }  # fmt: skip


def difference_row(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    difference = shown(entry.get("difference"))
    if difference is None:
        return None
    task, metric = str(entry.get("task", "")), spelled(str(entry.get("metric", "")))
    low, high = difference["low"], difference["high"]
    return {
        "task": TASK_LABELS.get(task, spelled(task).capitalize()),
        "metric": metric,
        "table": str(entry.get("table", "")),
        "against": str(entry.get("against", "")),
        "shared": entry.get("shared"),
        "is_certain": low is not None
        and high is not None
        and (low > 0 or high < 0)
        and entry.get("units", FEWEST_UNITS) >= FEWEST_UNITS,
        **difference,
    }


def sentence(row: Mapping[str, Any]) -> str:
    word = "better" if row["value"] > 0 else "worse"
    return f"{row['task']}: {row['table']} is {word} than {row['against']} by {magnitude(row)}."


def magnitude(row: Mapping[str, Any]) -> str:
    """Size of a difference whatever its sign, with its interval."""
    low, high = sorted(abs(row[key]) for key in ("low", "high"))
    return in_words({"value": abs(row["value"]), "low": low, "high": high})


SECTION = Section(
    key="paired_comparison",
    title_for_nav="Differences",
    template="sections/paired_comparison.html.j2",
    data=paired_comparison,
    scripts=("sections/tables", "sections/layers", "sections/forest", "sections/paired_comparison"),
    specifications=lambda: {"paired_comparison": forest("difference", domain=None)},
    after="comparison",
)
