"""Which table is best, such as which block of an encoder? And how good is a choice on what had no say in it?"""

from collections.abc import Mapping
from typing import Any

from cellvim.evaluate.report.content import TASK_LABELS, ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import block_line, forest
from cellvim.evaluate.report.sections.reading import decimals, in_words, shown
from cellvim.evaluate.report.sections.tables import table
from cellvim.evaluate.report.wording import counted, rounded, spelled


def layer_choice(content: ReportContent) -> dict[str, Any] | None:
    """Mean of every table, the one chosen, its score, and what a table so chosen scores on held-out perturbations."""
    choice = content.metrics.get("choice")
    if not isinstance(choice, Mapping) or "chosen" not in choice:
        return None
    rows = [row for entry in choice.get("tables", ()) if (row := table_row(entry, choice))]
    estimate, naive = shown(choice["estimate"]), rounded(choice["naive"])
    if not rows or estimate is None or naive is None:
        return None
    task = str(choice.get("task", ""))
    has_blocks = len(rows) > 1 and all(row["block"] is not None for row in rows)
    if has_blocks:
        rows.sort(key=lambda row: (row["block"], row["label"]))
    return {
        "task": TASK_LABELS.get(task, spelled(task).capitalize()),
        "rows": rows,
        "has_blocks": has_blocks,
        "chosen": str(choice["chosen"]),
        "estimate": estimate,
        "naive": naive,
        "folds": choice.get("folds"),
        "compounds": choice.get("compounds"),
        "optimism": in_words_of_optimism(estimate, naive),
        "alternative": (
            f"{'Line' if has_blocks else 'Forest'} of {counted(len(rows), 'table')}: {choice['chosen']} is best "
            f"({decimals(naive)}); tables so chosen score {in_words(estimate)} on held-out perturbations."
        ),
        "table": table(
            (("Table", "text"), ("Block", "whole"), ("Mean normalised mAP", "estimate"), ("Chosen by folds", "whole")),
            [[row["label"], row["block"], {key: row[key] for key in ("value", "low", "high")}, row["times_chosen"]]
             for row in rows],
        ),
    }  # fmt: skip


def table_row(entry: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any] | None:
    mean = shown(entry.get("mean"))
    if mean is None:
        return None
    layers = entry.get("layers")
    is_single = isinstance(layers, list) and len(layers) == 1
    return {
        "label": str(entry.get("name", "")),
        "block": layers[0] if is_single and layers else None,
        "is_chosen": entry.get("name") == choice["chosen"],
        "times_chosen": entry.get("times_chosen"),
        **mean,
    }


def in_words_of_optimism(estimate: Mapping[str, float | None], naive: float) -> str:
    """How much the score of the best table promises beyond what choosing it delivers."""
    gap = naive - (estimate["value"] or 0.0)
    if gap > 0:
        return f"Its score on all perturbations, {decimals(naive)}, is {gap:.3f} too high, for luck had a say in it."
    return f"Its score on all perturbations, {decimals(naive)}, is no higher: here, luck played no part in the choice."


SECTION = Section(
    key="layer_choice",
    title_for_nav="Which table",
    template="sections/layer_choice.html.j2",
    data=layer_choice,
    scripts=("sections/tables", "sections/layers", "sections/forest", "sections/layer_choice"),
    specifications=lambda: {
        "block_line": block_line(),
        "table_means": forest("mean normalised mAP", domain=None),
    },
    after="comparison",
)
