"""Batch or biology? How much profiles know of their batch, beside how much they know of what was done."""

from typing import Any

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import forest
from cellvim.evaluate.report.sections.reading import decimals, rounded_row, rows_of
from cellvim.evaluate.report.sections.tables import table
from cellvim.evaluate.report.wording import spelled

BIOLOGY = "biology"
MEASURES = {
    "nearest neighbour": "share of wells whose nearest neighbour is of the same batch, or the same perturbation",
    "nearest neighbour (negative controls)": "the same among negative controls, which differ in nothing but the batch",
    "silhouette": "how much tighter wells group by it than they mix, from -1 to 1; 0 is no grouping",
    "variance explained": "share of the variance of the profiles that it explains",
}


def batch_or_biology(content: ReportContent) -> dict[str, Any] | None:
    """Measures of batch beside the same measures of biology, and chance."""
    rows = rows_of(content, "batch")
    if rows is None:
        return None
    found = []
    for row in rows.iter_rows(named=True):
        numbers = rounded_row(row, ("value", "low", "high", "chance"))
        if numbers["value"] is None:
            continue
        of = str(row["batch_column"])
        name = BIOLOGY if of == BIOLOGY else spelled(of.removeprefix("Metadata_"))
        found.append(
            {"measure": str(row["measure"]), "of": name, "is_biology": of == BIOLOGY,
             "label": f"{row['measure']}: {name}", **numbers}
        )  # fmt: skip
    if not found:
        return None
    return {
        "rows": found,
        "measures": {key: MEASURES[key] for key in MEASURES if any(row["measure"] == key for row in found)},
        "findings": findings(found),
        "alternative": " ".join(["Forest of batch measures beside biology's.", *findings(found)]),
        "table": table(
            (("Measure", "text"), ("Of", "text"), ("Value", "estimate"), ("Chance", "score")),
            [[row["measure"], row["of"], {key: row[key] for key in ("value", "low", "high")}, row["chance"]] for row in found],
        ),
    }  # fmt: skip


def findings(rows: list[dict[str, Any]]) -> list[str]:
    """Say for each measure which of the two is the stronger, held against chance: small groups explain much by luck."""
    found = []
    for measure in dict.fromkeys(row["measure"] for row in rows):
        biology = [row for row in rows if row["measure"] == measure and row["is_biology"]]
        batch = [row for row in rows if row["measure"] == measure and not row["is_biology"]]
        if not biology or not batch:
            continue
        worst = max(batch, key=beyond_chance)
        word = "more than" if beyond_chance(worst) > beyond_chance(biology[0]) else "less than"
        found.append(
            f"By {measure}, {worst['of']} ({beside_chance(worst)}) shows {word} biology "
            f"({beside_chance(biology[0])}), each held against its chance."
        )
    return found


def beyond_chance(row: dict[str, Any]) -> float:
    """Share of the way from chance to 1."""
    chance = row["chance"] or 0.0
    return float((row["value"] - chance) / (1 - chance)) if chance < 1 else 0.0


def beside_chance(row: dict[str, Any]) -> str:
    return f"{decimals(row['value'])}, chance {decimals(row['chance'])}"


SECTION = Section(
    key="batch_or_biology",
    title_for_nav="Batch or biology",
    template="sections/batch_or_biology.html.j2",
    data=batch_or_biology,
    scripts=("sections/tables", "sections/layers", "sections/forest", "sections/batch_or_biology"),
    specifications=lambda: {"batch_or_biology": forest("value", domain=None)},
    after="maps",
)
