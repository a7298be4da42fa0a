"""Which questions the tables could not answer, and why."""

from typing import Any

from cellvim.evaluate.report.content import TASK_LABELS, ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.summary import metrics_of, tasks_of
from cellvim.evaluate.report.wording import listed, spelled

NAMES = {"nsc": "NSC", "nscb": "NSCB"}


def not_done(content: ReportContent) -> dict[str, Any] | None:
    """Tasks that give a reason instead of numbers; of several tables, which ones, where they differ."""
    tables = content.tables or ("",)
    found = []
    for task in dict.fromkeys(task for table in tables for task in tasks_of(content, table)):
        asked = {table: metrics_of(content, table, task).get("reason") for table in tables}
        for reason in dict.fromkeys(reason for reason in asked.values() if reason):
            those = [table for table in tables if asked[table] == reason]
            name = NAMES.get(task) or TASK_LABELS.get(task) or spelled(task).capitalize()
            of = "" if len(those) == len(tables) else f" ({listed(those)})"
            found.append({"task": f"{name}{of}", "reason": str(reason)})
    return {"tasks": found} if found else None


SECTION = Section(
    key="not_done",
    title_for_nav="Not possible",
    template="sections/not_done.html.j2",
    data=not_done,
    after="probes",
)
