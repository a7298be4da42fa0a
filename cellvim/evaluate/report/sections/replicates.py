"""Are replicates alike? Their median correlation beside that of random groups of wells."""

from typing import Any

import polars as pl

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import histogram
from cellvim.evaluate.report.sections.reading import (
    by_table,
    decimals,
    first_metrics,
    in_words,
    percent,
    rows_of,
    shown,
    texts,
    values,
)
from cellvim.evaluate.report.sections.tables import table
from cellvim.evaluate.report.wording import counted

TASK, METRIC = "percent_replicating", "fraction_replicating"


def replicates(content: ReportContent) -> dict[str, Any] | None:
    """Bins of both distributions, the threshold or thresholds, and one row per perturbation, most alike first."""
    rows, bins = rows_of(content, TASK), rows_of(content, f"{TASK}_histogram")
    if rows is None or bins is None:
        return None
    fraction = shown(first_metrics(content, TASK).get(METRIC))
    thresholds = sorted({value for value in values(rows["threshold"]) if value is not None})
    ranked = rows.sort(["similarity", "Metadata_Perturbation"], descending=[True, False], nulls_last=True)
    columns = ("Metadata_Perturbation", "replicates", "similarity", "threshold", "is_replicating")
    between = " to ".join(decimals(value) for value in dict.fromkeys((thresholds[0], thresholds[-1])))
    return {
        "bins": shares_of_bins(bins),
        "thresholds": thresholds,
        "between": between,
        "fraction": fraction,
        "replicating": int(rows["is_replicating"].sum()),
        "perturbations": rows.height,
        "alternative": (
            f"Histogram: {percent(int(rows['is_replicating'].sum()) / rows.height)} of {counted(rows.height, 'perturbation')} have "
            f"replicates more alike than 95 % of random groups (threshold {between}); "
            f"with its interval, {in_words(fraction, as_percent=True)}."
        ),
        "tables": by_table(content, TASK, METRIC),
        "table": table(
            (
                ("Perturbation", "choose"),
                ("Wells", "whole"),
                ("Median correlation", "score"),
                ("Threshold", "score"),
                ("Replicates", "check"),
            ),
            list(zip(texts(ranked[columns[0]]), *(ranked[name].to_list() for name in columns[1:]), strict=True)),
        ),
        "bin_table": table(
            (("Group", "text"), ("From", "score"), ("To", "score"), ("Count", "whole")),
            [[one["kind"], one["low"], one["high"], one["count"]] for one in shares_of_bins(bins)],
        ),
    }  # fmt: skip


def shares_of_bins(bins: pl.DataFrame) -> list[dict[str, Any]]:
    """Bins of random groups, then of replicates; the shares of each add up to 1."""
    share = (
        pl.col("share") if "share" in bins.columns else pl.col("count") / pl.col("count").sum().over("kind")
    )
    known = bins.filter(pl.col("kind").is_in(["null", "replicates"])).sort(["kind", "low"])
    return [
        {"kind": kind, "low": low, "high": high, "count": int(count), "share": part}
        for kind, low, high, count, part in zip(
            known["kind"].to_list(),
            values(known["low"]),
            values(known["high"]),
            known["count"].to_list(),
            values(known.select(share.alias("share")).to_series()),
            strict=True,
        )
    ]


SECTION = Section(
    key="replicates",
    title_for_nav="Replicates",
    template="sections/replicates.html.j2",
    data=replicates,
    scripts=("sections/tables", "sections/layers", "sections/replicates"),
    specifications=lambda: {"replicates": histogram()},
    after="perturbations",
)
