"""Which questions the first table could not answer, and why."""

from collections.abc import Mapping
from typing import Any

from cellvim.evaluate.report.content import TASK_LABELS, ReportContent
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.reading import first_metrics
from cellvim.evaluate.report.wording import spelled

NAMES = {"nsc": "NSC", "nscb": "NSCB"}


def not_done(content: ReportContent) -> dict[str, Any] | None:
    """Tasks that give a reason instead of numbers."""
    tables = content.metrics.get("tables") or [{"tasks": content.metrics.get("tasks", {})}]
    tasks = tables[0].get("tasks", {})
    found = []
    for task in tasks:
        metrics = first_metrics(content, task)
        if isinstance(metrics, Mapping) and metrics.get("reason"):
            name = NAMES.get(task) or TASK_LABELS.get(task) or spelled(task).capitalize()
            found.append({"task": name, "reason": str(metrics["reason"])})
    return {"tasks": found} if found else None


SECTION = Section(
    key="not_done",
    title_for_nav="Not possible",
    template="sections/not_done.html.j2",
    data=not_done,
    after="probes",
)
