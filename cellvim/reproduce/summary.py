"""What `cellvim reproduce` prints, for people and for machines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

from cellvim.errors import CellvimError
from cellvim.provenance import Artifact
from cellvim.provenance.chain import is_there
from cellvim.reproduce.checking import hash_of
from cellvim.reproduce.plan import Input, Plan, Step
from cellvim.reproduce.running import Outcome

SHORT = 12
MOST_LINES = 24
"""Inputs or outputs of a step that are listed; of more, those that are not as recorded, and a count."""


@dataclass(frozen=True)
class PlanSummary:
    """The chain behind a result, and how its inputs stand."""

    plan: Plan

    def as_dict(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {
            "record": str(self.plan.start),
            "steps": [_step_as_dict(step) for step in self.plan.steps],
            "versions": {
                name: {"recorded": recorded, "installed": installed}
                for name, (recorded, installed) in self.plan.versions.items()
            },
            "hindrances": self.plan.hindrances,
            "can_be_run": not self.plan.hindrances,
        }

    def __str__(self) -> str:
        lines = [line for step in self.plan.steps for line in _step_lines(step)]
        for name, (recorded, installed) in self.plan.versions.items():
            lines.append(f"version  {name} {recorded} recorded, {installed or 'not'} installed")
        if not self.plan.versions:
            lines.append("versions  those recorded are those installed")
        hindrances = self.plan.hindrances
        lines += [f"cannot be run again  {hindrance}" for hindrance in hindrances[:MOST_LINES]]
        if not hindrances:
            lines.append("can be run again  every input is there and unchanged")
        return "\n".join(lines)


@dataclass(frozen=True)
class RunSummary:
    """What came out when the chain was run again."""

    out: Path
    outcomes: Sequence[Outcome]

    @property
    def is_same(self) -> bool:
        return all(outcome.is_same for outcome in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {
            "out": str(self.out),
            "is_same": self.is_same,
            "steps": [
                {
                    "number": outcome.number,
                    "stage": outcome.stage,
                    "is_same": outcome.is_same,
                    "was_there": outcome.was_there,
                    "settings": list(outcome.settings),
                    "outputs": [
                        {"name": each.name, "recorded": each.recorded, "now": each.now}
                        for each in outcome.compared
                    ],
                }
                for outcome in self.outcomes
            ],
        }

    def __str__(self) -> str:
        return "\n".join(line for outcome in self.outcomes for line in _outcome_lines(outcome))


def _step_as_dict(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "command": list(step.words),
        "cwd": str(step.cwd),
        "refused": step.refused or None,
        "records": [str(node.file) for node in step.nodes],
        "cellvim": step.nodes[-1].record.cellvim,
        "settings_sha256": step.nodes[-1].record.settings_sha256,
        "seed": step.nodes[-1].record.seed,
        "environment": step.nodes[-1].record.environment,
        "attempts": sum(max(1, len(node.record.attempts)) for node in step.nodes[-1:]),
        "inputs": [
            {
                "name": each.artifact.name,
                "kind": each.artifact.kind,
                "path": str(each.path),
                "sha256": each.artifact.sha256,
                "state": each.finding.state,
                "detail": each.finding.detail or None,
                "now": each.finding.sha256,
                "made_by": each.made_by,
                "note": each.note or None,
            }
            for each in step.inputs
        ],
        "outputs": [
            {"name": artifact.name, "sha256": artifact.sha256, "state": _state(artifact, path)}
            for artifact, path in step.outputs
        ],
    }


def _step_lines(step: Step) -> Iterator[str]:
    record = step.nodes[-1].record
    yield f"{step.number}  {join(step.words)}"
    seed = "" if record.seed is None else f", seed {record.seed}"
    variables = "".join(f", {name}={value}" for name, value in record.environment.items())
    yield f"   in {step.cwd}; cellvim {record.cellvim}, settings {record.settings_sha256[:SHORT]}{seed}{variables}"
    for file in step.changed_records:
        yield f"   altered  {file}: its settings are not those that its hash is of"
    yield from _shortened([_input_line(each) for each in step.inputs], "inputs")
    made = [(artifact, _state(artifact, path)) for artifact, path in step.outputs]
    lines = [
        f"   makes  {artifact.name}  {state}  {artifact.sha256[:SHORT]}"
        + (f"  ({artifact.kind})" if artifact.kind == "pixels" else "")
        for artifact, state in made
    ]
    yield from _shortened(lines, "outputs")


def _input_line(each: Input) -> str:
    files = f" ({each.artifact.count:,} files)" if each.artifact.count else ""
    source = f"  from step {each.made_by}" if each.made_by else ""
    # A plate has two hashes: with its plate map, and of its pixels alone, which is all that a training reads.
    part = "pixels" if each.artifact.kind == "pixels" else ""
    said = "; ".join(text for text in (part, each.finding.detail, each.note) if text)
    return (
        f"   reads  {each.artifact.name}{files}  {each.finding.state}  {each.artifact.sha256[:SHORT]}{source}"
        + (f"  ({said})" if said else "")
    )


def _shortened(lines: list[str], what: str) -> list[str]:
    """All lines, or of many the first ones and every one that is not as recorded."""
    if len(lines) <= MOST_LINES:
        return lines
    odd = [line for line in lines[MOST_LINES:] if "  same  " not in line]
    rest = len(lines) - MOST_LINES - len(odd)
    return [*lines[:MOST_LINES], *odd, f"   ...    {rest:,} more {what}, all the same"]


def _state(artifact: Artifact, path: Path | str) -> str:
    """Whether an output still lies where it was made; what reads it is checked in depth there."""
    if isinstance(path, str):
        return "not checked"
    if not is_there(path):
        return "missing"
    try:
        return "same" if hash_of(artifact, path) == artifact.sha256 else "changed"
    except (CellvimError, OSError, ValueError, LookupError, TypeError):
        return "changed"


def _outcome_lines(outcome: Outcome) -> Iterator[str]:
    head = f"step {outcome.number}  {outcome.stage}"
    if outcome.is_same:
        there = ", made by an earlier call" if outcome.was_there else ""
        yield f"{head}  same bytes  ({len(outcome.compared)} outputs{there})"
        return
    if not outcome.compared:
        yield f"{head}  not compared  (the record is of an older version and names no outputs)"
    different = [each for each in outcome.compared if not each.is_same]
    if different:
        yield f"{head}  differs  ({len(different)} of {len(outcome.compared)} outputs)"
    elif outcome.settings:
        yield f"{head}  differs in its settings"
    for each in different[:MOST_LINES]:
        now = "nothing was made" if each.now is None else f"now {each.now[:SHORT]}"
        yield f"   {each.name}  recorded {each.recorded[:SHORT]}, {now}"
    for setting in dict.fromkeys(outcome.settings):
        yield f"   setting {setting}"
