"""Do known relationships come back? Recall by source, and where each known pair lies among all pairs."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import forest
from cellvim.evaluate.report.sections.reading import (
    by_table,
    first_metrics,
    in_words,
    rows_of,
    shown,
    texts,
    values,
)
from cellvim.evaluate.report.sections.tables import table
from cellvim.evaluate.report.wording import counted

MOST_PAIRS = 500
ALL_PAIRS = "all pairs"


def relationships(content: ReportContent) -> dict[str, Any] | None:
    """Recall of all pairs and of each source, with intervals; the pairs themselves, most similar first."""
    rows = rows_of(content, "recall")
    metrics = first_metrics(content, "recall")
    whole = shown(metrics.get("recall"))
    if rows is None or whole is None:
        return None
    chance = shown(metrics.get("chance")) or {"value": 0.1}
    pairs = int(metrics.get("pairs", rows.height))
    sources = [{"label": ALL_PAIRS, "pairs": pairs, **whole}, *source_rows(metrics)]
    ranked = rows.sort(["similarity", "first", "second"], descending=[True, False, False], nulls_last=True)
    drawn = (
        pl.concat([ranked.head(MOST_PAIRS // 2), ranked.tail(MOST_PAIRS // 2)])
        if ranked.height > MOST_PAIRS
        else ranked
    )
    return {
        "sources": sources,
        "chance": chance["value"],
        "pairs": pairs,
        "recall": whole,
        "alternative": (
            f"Forest: {in_words(whole, as_percent=True)} of {counted(pairs, 'known pair')} are among the 5 % most or "
            f"least similar of all pairs; by chance {100 * (chance['value'] or 0):.0f} %."
        ),
        "is_cut": ranked.height > MOST_PAIRS,
        "tables": by_table(content, "recall", "recall"),
        "source_table": table(
            (("Source", "text"), ("Pairs", "whole"), ("Recalled", "share")),
            [[one["label"], one["pairs"], {key: one[key] for key in ("value", "low", "high")}] for one in sources],
        ),
        "table": table(
            (("First", "choose"), ("Second", "choose"), ("Source", "text"), ("Cosine", "score"),
             ("Percentile", "percent"), ("Recalled", "check")),
            list(zip(*(texts(drawn[name]) for name in ("first", "second", "source")), values(drawn["similarity"]),
                     values(drawn["percentile"]), drawn["is_recalled"].to_list(), strict=True)),
        ),
    }  # fmt: skip


def source_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sources, best recalled first; none where the pairs name only one."""
    found = []
    for source, values_of_source in metrics.get("sources", {}).items():
        estimate = shown(values_of_source.get("recall"))
        if estimate is not None:
            found.append({"label": str(source), "pairs": values_of_source.get("pairs"), **estimate})
    return sorted(found, key=lambda one: (-one["value"], one["label"]))


SECTION = Section(
    key="relationships",
    title_for_nav="Known relationships",
    template="sections/relationships.html.j2",
    data=relationships,
    scripts=("sections/tables", "sections/layers", "sections/forest", "sections/relationships"),
    specifications=lambda: {"relationships": forest("share recalled", domain=(0.0, 1.0))},
    after="appearance",
)
