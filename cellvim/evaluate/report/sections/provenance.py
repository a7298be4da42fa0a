"""Where the numbers come from: the commands from the images to this page, with hashes of all that went between."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.section import Section

MOST_STEPS = 8
"""Of one stage: however many plates there are, a page also shows what came after them."""
MOST_ROWS = 48
"""Inputs or outputs of a step on the page; all are in run.json."""
KINDS = {
    "file": "file",
    "plate": "plate: pixels, plate map, what was skipped",
    "pixels": "plate: pixels",
    "images": "names and content of all files",
    "label images": "label images",
}


def provenance(content: ReportContent) -> dict[str, Any] | None:
    """Steps from the images on; what was done with the same settings to many plates is one step."""
    told = content.metrics.get("provenance")
    if not isinstance(told, Mapping) or not told.get("steps"):
        return None
    shown, rest = _first_of_each_stage(_merged(told["steps"]))
    return {
        "images": told.get("images"),
        "steps": [_shown(number, step) for number, step in enumerate(shown, start=1)],
        "left_out": sum(len(step["commands"]) for step in rest) + int(told.get("steps_left_out", 0)),
        "versions": _spelled(told.get("versions", {})),
    }


def _merged(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for step in steps:
        key = (
            *(step.get(name) for name in ("stage", "settings_sha256", "seed", "cellvim")),
            _spelled(step.get("versions", {})),
        )
        known = found.setdefault(key, {**step, "commands": {}, "reads": {}, "makes": {}, "more": 0})
        known["commands"][step.get("command")] = None
        for what in ("reads", "makes"):
            artifacts = step.get(what, ())
            known[what] |= {(each["name"], each["kind"], each["sha256"]): each for each in artifacts}
            known["more"] += max(0, step.get(f"{what}_count", 0) - len(artifacts))
    return list(found.values())


def _first_of_each_stage(
    steps: Sequence[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    shown: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for step in steps:
        counts[step["stage"]] += 1
        (shown if counts[step["stage"]] <= MOST_STEPS else rest).append(step)
    return shown, rest


def _shown(number: int, step: Mapping[str, Any]) -> dict[str, Any]:
    reads, makes = list(step["reads"].values()), list(step["makes"].values())
    rows = [("reads", each) for each in reads[:MOST_ROWS]] + [("makes", each) for each in makes[:MOST_ROWS]]
    return {
        "number": number,
        "stage": step["stage"],
        "command": step["command"],
        "others": len(step["commands"]) - 1,
        "settings": step["settings_sha256"],
        "seed": step["seed"],
        "versions": _spelled({"cellvim": step["cellvim"], **step.get("versions", {})}),
        "rows": [_row(what, each) for what, each in rows],
        "more": step["more"] + max(0, len(reads) - MOST_ROWS) + max(0, len(makes) - MOST_ROWS),
    }


def _spelled(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _row(what: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
    count = artifact.get("count")
    kind = KINDS.get(artifact["kind"], artifact["kind"])
    return {
        "what": what,
        "name": artifact["name"],
        "kind": kind if count is None else f"{kind} ({count:,})",
        "sha256": artifact["sha256"],
    }


SECTION = Section(
    key="provenance",
    title_for_nav="Where from",
    template="sections/provenance.html.j2",
    data=provenance,
    after="probes",
)
