"""Do wells with the same target or mechanism group? Consistency by label, and nearest neighbours."""

from typing import Any

import numpy as np
import polars as pl

from cellvim.evaluate.precision import expected_average_precision
from cellvim.evaluate.report.content import SIGNIFICANT_Q, ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import forest
from cellvim.evaluate.report.sections.reading import (
    by_table,
    decimals,
    first_metrics,
    rows_of,
    shown,
    texts,
    values,
)
from cellvim.evaluate.report.sections.tables import Columns, table
from cellvim.evaluate.report.summary import metrics_of
from cellvim.evaluate.report.wording import counted, listed, spelled

MOST_DRAWN = 20
NEAREST = {
    "nsc": "nearest of another compound (NSC)",
    "nscb": "nearest of another compound in another batch (NSCB)",
}


def label_groups(content: ReportContent) -> dict[str, Any] | None:
    """Labels, strongest first, with chance and members; and how often a nearest neighbour shares the label."""
    labels = label_rows(content)
    nearest = nearest_rows(content)
    if not labels and not nearest:
        return None
    found = [label for label in labels if label["is_significant"]]
    names = listed([label["label"] for label in found])
    column = str(
        first_metrics(content, "consistency").get("label") or first_metrics(content, "nsc").get("label") or ""
    )
    return {
        "column": spelled(column.removeprefix("Metadata_")),
        "labels": labels[:MOST_DRAWN],
        "label_count": len(labels),
        "significant": len(found),
        "beyond_reach": sum((label["smallest_p"] or 0) * len(labels) >= SIGNIFICANT_Q for label in labels),
        "alternative": (
            f"Forest of {counted(min(len(labels), MOST_DRAWN), 'label')}: {len(found)} of {len(labels)} are found "
            f"better than by chance (q < {SIGNIFICANT_Q:g}){': ' + names if found else ''}."
        ),
        "tables": by_table(content, "consistency", "mean_map"),
        "nearest": nearest,
        "table": table(
            (("Label", "text"), ("Perturbations", "whole"), ("mAP", "score"), ("normalised", "score"),
             ("Chance", "score"), ("p", "probability"), ("q", "probability"), ("Members, best first", "choose_many")),
            [[one["label"], one["perturbations"], one["value"], one["normalized"], one["chance"], one["p"], one["q"],
              [member["name"] for member in one["members"]]] for one in labels],
        ),
        "wrong": wrong_neighbours(content),
    }  # fmt: skip


def label_rows(content: ReportContent) -> list[dict[str, Any]]:
    rows, members = rows_of(content, "consistency"), rows_of(content, "consistency_perturbations")
    if rows is None:
        return []
    by_label = {} if members is None else members_by_label(members)
    ranked = rows.sort(["map", "label"], descending=[True, False], nulls_last=True)
    found = []
    for row in ranked.iter_rows(named=True):
        own = by_label.get(str(row["label"]), {"members": [], "chance": None})
        q = row["q"]
        found.append(
            {
                "label": str(row["label"]),
                "perturbations": row["perturbations"],
                **{key: values(pl.Series([row[name]]))[0] for key, name in NUMBERS.items()},
                "is_significant": q is not None and q < SIGNIFICANT_Q,
                **own,
            }
        )
    return found


NUMBERS = {"value": "map", "normalized": "normalized_map", "p": "p", "q": "q", "smallest_p": "smallest_p"}


def members_by_label(members: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Perturbations of each label with their average precision, best first, and what a random order would get."""
    found = {}
    for (label,), own in members.group_by(["label"], maintain_order=True):
        ranked = own.sort(["ap", "Metadata_Perturbation"], descending=[True, False])
        sizes = (own[name].cast(pl.Int64).to_numpy() for name in ("positives", "total"))
        names = zip(texts(ranked["Metadata_Perturbation"]), values(ranked["ap"]), strict=True)
        found[str(label)] = {
            "members": [{"name": name, "ap": ap} for name, ap in names],
            "chance": values(pl.Series([np.mean(expected_average_precision(*sizes))]))[0],
        }
    return found


def nearest_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Accuracy of NSC and NSCB for every profile table, beside chance and shuffled labels; why it was not done."""
    found = []
    for task, words in NEAREST.items():
        for name in content.tables:
            metrics = metrics_of(content, name, task)
            if not metrics:
                continue
            found.append(
                {
                    "task": task,
                    "words": words,
                    "table": name,
                    "accuracy": shown(metrics.get("accuracy")),
                    "chance": shown(metrics.get("chance")),
                    "shuffled": shown(metrics.get("shuffled")),
                    "queries": metrics.get("queries"),
                    "reason": str(metrics.get("reason", "")),
                    "in_words": decimals((shown(metrics.get("accuracy")) or {"value": None})["value"]),
                }
            )
    return found


def wrong_neighbours(content: ReportContent) -> dict[str, Any]:
    """Queries of NSC with what they found: the wrong ones first."""
    rows = rows_of(content, "nsc")
    columns: Columns = (("Perturbation", "choose"), ("Label", "text"), ("Nearest", "choose"), ("Its label", "text"),
               ("Cosine", "score"), ("Right", "check"))  # fmt: skip
    if rows is None:
        return table(columns, [])
    ranked = rows.sort(["is_correct", "similarity"], descending=[False, True], nulls_last=True)
    names = ("Metadata_Perturbation", "label", "nearest", "nearest_label")
    cells = [texts(ranked[name]) for name in names]
    return table(
        columns, list(zip(*cells, values(ranked["similarity"]), ranked["is_correct"].to_list(), strict=True))
    )


SECTION = Section(
    key="label_groups",
    title_for_nav="Targets and mechanisms",
    template="sections/label_groups.html.j2",
    data=label_groups,
    scripts=("sections/tables", "sections/layers", "sections/forest", "sections/label_groups"),
    specifications=lambda: {"label_groups": forest("mean average precision (mAP)", domain=(0.0, 1.0))},
    after="appearance",
)
