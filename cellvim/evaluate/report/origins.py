"""One line under each section: from which table, by which settings, its numbers were computed."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.wording import listed, spelled

SHORT = 12
"""Hexadecimal digits of a hash that are shown; all of them are in the section on provenance."""
TASKS_OF: Mapping[str, tuple[str, ...]] = {
    "comparison": ("activity", "distinctiveness", "replicate_retrieval"),
    "perturbations": ("activity", "distinctiveness", "replicate_retrieval"),
    "probes": ("probe",),
    "layer_choice": ("activity",),
    "paired_comparison": ("activity", "distinctiveness", "replicate_retrieval"),
    "dose_overview": ("dose",),
    "replicates": ("percent_replicating",),
    "label_groups": ("consistency", "nsc", "nscb"),
    "relationships": ("recall",),
    "batch_or_biology": ("batch",),
    "confusion": ("probe",),
}
PICTURED = {"appearance": ("normalize",), "maps": ("normalize", "seed"), "plates": ("normalize",)}
"""Sections that show profiles rather than a task, and the settings of the run that decide them."""
OF_FIRST_TABLE = frozenset({"appearance", "maps", "plates"})


def origins(content: ReportContent) -> dict[str, str]:
    """By section, where its numbers come from; empty where the metrics do not tell."""
    told = content.metrics.get("provenance")
    if not isinstance(told, Mapping):
        return {}
    chosen = {section: _settings(told, tasks) for section, tasks in TASKS_OF.items()}
    every = _settings(told, tuple(told.get("tasks", ())))
    chosen |= {
        section: {key: every[key] for key in keys if key in every} for section, keys in PICTURED.items()
    }
    return {
        section: f"From {_tables(told, only_first=section in OF_FIRST_TABLE)}: {_in_words(settings)}."
        for section, settings in chosen.items()
        if settings
    }


def with_origin(html: Markup, origin: str) -> Markup:
    """Put the line at the end of a laid-out section, with the way to the whole story."""
    head, end, tail = str(html).rpartition("</section>")
    if not origin or not end:
        return html
    line = f'<p class="origin">{escape(origin)} <a href="#provenance">The way back</a></p>\n'
    # Both parts were escaped when they were laid out.
    return Markup(f"{head}{line}{end}{tail}")  # noqa: S704


def _settings(told: Mapping[str, Any], tasks: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for task in tasks:
        found |= told.get("tasks", {}).get(task, {})
    return found


def _tables(told: Mapping[str, Any], *, only_first: bool) -> str:
    tables = list(told.get("tables", {}).items())
    named = [
        f"{name} ({sha256[:SHORT] if isinstance(sha256, str) else f'{len(sha256)} files'})"
        for name, sha256 in (tables[:1] if only_first else tables)
    ]
    return listed(named)


def _in_words(settings: Mapping[str, Any]) -> str:
    parts = []
    for key, value in settings.items():
        if value is not False and (key != "label_separator" or "label" in settings):
            text = "" if value is True else f" {value:,}" if isinstance(value, int) else f" {value}"
            parts.append(f"{spelled(key)}{text}")
    return ", ".join(parts)
