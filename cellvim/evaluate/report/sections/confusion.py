"""Which labels does a probe take for which? Confusion by split, as a heat map or as the commonest mistakes."""

from typing import Any

import polars as pl

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import confusion_heat
from cellvim.evaluate.report.sections.reading import percent, rows_of, texts, values
from cellvim.evaluate.report.sections.tables import table
from cellvim.evaluate.report.wording import counted

MOST_DRAWN = 40
"""Labels whose cells can still be told apart."""
MOST_PAIRS = 50


def confusion(content: ReportContent) -> dict[str, Any] | None:
    """One confusion matrix per split: cells where the labels are few enough to draw, else the commonest mistakes."""
    rows = rows_of(content, "probe_confusion")
    if rows is None:
        return None
    return {
        "splits": [
            of_split(str(split), own) for (split,), own in rows.group_by(["split"], maintain_order=True)
        ]
    }


def of_split(split: str, rows: pl.DataFrame) -> dict[str, Any]:
    labels = sorted({*texts(rows["label"]), *texts(rows["predicted"])}, key=lambda name: (name.lower(), name))
    cells = cells_of(rows)
    mistakes = sorted(
        (cell for cell in cells if cell["label"] != cell["predicted"] and cell["count"]),
        key=lambda cell: (-(cell["share"] or 0), -cell["count"], cell["label"], cell["predicted"]),
    )
    is_drawn = len(labels) <= MOST_DRAWN
    listed = cells if is_drawn else mistakes[:MOST_PAIRS]
    worst = mistakes[0] if mistakes else None
    finding = (
        f"commonest mistake: {percent(worst['share'])} of the wells of {worst['label']} are taken for {worst['predicted']}"
        if worst
        else "no well is taken for another label"
    )
    return {
        "split": split,
        "labels": labels if is_drawn else [],
        "label_count": len(labels),
        "cells": cells if is_drawn else [],
        "finding": finding,
        "alternative": f"Confusion of {counted(len(labels), 'label')}, split {split}; {finding}.",
        "table": table(
            (("True", "text"), ("Predicted", "text"), ("Wells", "whole"), ("Share of the label", "share")),
            [[cell["label"], cell["predicted"], cell["count"],
              {"value": cell["share"], "low": cell["low"], "high": cell["high"]}]
             for cell in listed if cell["count"] and cell["share"] is not None],
        ),
    }  # fmt: skip


def cells_of(rows: pl.DataFrame) -> list[dict[str, Any]]:
    columns = {name: texts(rows[name]) for name in ("label", "predicted")}
    numbers = {name: values(rows[name]) for name in ("share", "low", "high")}
    return [
        {name: column[place] for name, column in columns.items()}
        | {"count": int(count or 0)}
        | {name: column[place] for name, column in numbers.items()}
        for place, count in enumerate(rows["count"].to_list())
    ]


SECTION = Section(
    key="confusion",
    title_for_nav="Confusion",
    template="sections/confusion.html.j2",
    data=confusion,
    scripts=("sections/tables", "sections/layers", "sections/confusion"),
    specifications=lambda: {"confusion": confusion_heat()},
    after="probes",
)
