"""How far a study is: which plates are done, and which failed at what."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cellvim.atomic import is_locked
from cellvim.study.plan import StudyPlan

State = Literal["done", "failed", "begun", "waiting"]
_EXIT = re.compile(r"^exit: (\d+)$", re.MULTILINE)
_MOST_LOG_BYTES = 65536
_SHOWN = 20


@dataclass(frozen=True)
class StepState:
    """What became of one step.

    Attributes:
        state: `begun` is running where the study is, and was stopped together with it where it is not.
        error: What it said when it failed, or that it ended without a word.
        hint: What can be done about it.
        result: What it printed with `--json`; empty if it is not done.
        log: Its log, relative to the folder of the study file.
    """

    state: State
    log: Path
    error: str = ""
    hint: str = ""
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PlateState:
    name: str
    ingest: StepState
    embed: StepState

    @property
    def failure(self) -> tuple[str, StepState] | None:
        """Step that failed, and how."""
        for step, state in (("ingest", self.ingest), ("embed", self.embed)):
            if state.state == "failed":
                return step, state
        return None


@dataclass(frozen=True)
class StudyState:
    """Every step of a study.

    Attributes:
        pretrain: None where a model is given.
        is_running: Whether a `cellvim study run` works on it.
    """

    plan: StudyPlan
    plates: tuple[PlateState, ...]
    pretrain: StepState | None
    evaluate: StepState
    is_running: bool = False

    @property
    def failed(self) -> dict[str, tuple[str, StepState]]:
        """Plate to the step that failed."""
        return {plate.name: failure for plate in self.plates if (failure := plate.failure) is not None}

    @property
    def failures(self) -> dict[str, StepState]:
        """Steps of the whole study that failed."""
        steps = {"pretrain": self.pretrain, "evaluate": self.evaluate}
        return {name: step for name, step in steps.items() if step is not None and step.state == "failed"}

    @property
    def plates_lost(self) -> dict[str, str]:
        """Plates that lie in one folder with others and could not be ingested, to the reason; the others are done."""
        results = [(plate.ingest.result or {}) for plate in self.plates if plate.ingest.state == "done"]
        return {name: str(why) for result in results for name, why in result.get("failed", {}).items()}

    @property
    def is_done(self) -> bool:
        """There is a report, and every plate of the study is in it."""
        return all(step.state == "done" for step in self.steps)

    @property
    def steps(self) -> list[StepState]:
        whole = [step for step in (self.pretrain, self.evaluate) if step is not None]
        return [*(step for plate in self.plates for step in (plate.ingest, plate.embed)), *whole]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {
            "study": str(self.plan.file),
            "is_done": self.is_done,
            "is_running": self.is_running,
            "plates": {
                plate.name: {"ingest": plate.ingest.state, "embed": plate.embed.state}
                for plate in self.plates
            },
            "pretrain": self.pretrain.state if self.pretrain else None,
            "evaluate": self.evaluate.state,
            "failed": {
                **{name: _failure(step, state) for name, (step, state) in self.failed.items()},
                **{name: _failure(name, state) for name, state in self.failures.items()},
            },
            "incomplete": {plate.name: lost for plate in self.plates if (lost := units_lost(plate))},
            "report": str(self.plan.out / "report" / "report.html")
            if self.evaluate.state == "done"
            else None,
        }

    def __str__(self) -> str:
        lines = []
        for step in ("ingest", "embed"):
            states = [getattr(plate, step).state for plate in self.plates]
            lines.append(f"{step:9}{self._counted(states)} of {len(states)} plates")
        lines.insert(
            1, f"pretrain {self._said(self.pretrain.state) if self.pretrain else 'a model is given'}"
        )
        lines.append(f"evaluate {self._said(self.evaluate.state)}")
        if self.evaluate.state == "done":
            lines.append(f"report   {self.plan.out / 'report' / 'report.html'}")
        told = [
            *(
                f"{name}: {step}: {state.error}  (log: {state.log})"
                for name, (step, state) in self.failed.items()
            ),
            *(f"{name}: {state.error}  (log: {state.log})" for name, state in self.failures.items()),
        ]
        lost = [f"{plate.name}: {text}" for plate in self.plates if (text := units_lost(plate))]
        if not self.is_running and any(step.state == "begun" for step in self.steps):
            lines.append(f"the study does not run; it goes on with: cellvim study run {self.plan.file}")
        return "\n".join([*lines, *_some("failed", told), *_some("incomplete", lost)])

    def _counted(self, states: list[State]) -> str:
        counts = {state: states.count(state) for state in ("done", "failed", "begun", "waiting")}
        return ", ".join(f"{count} {self._said(state)}" for state, count in counts.items() if count)

    def _said(self, state: str) -> str:
        if state != "begun":
            return state
        return "running" if self.is_running else "interrupted"


def look_at_study(plan: StudyPlan) -> StudyState:
    """Read what the steps left behind."""
    plates = tuple(
        PlateState(plate.name, _step(plan, f"ingest/{plate.name}"), _step(plan, f"embed/{plate.name}"))
        for plate in plan.all_plates
    )
    pretrain = _step(plan, "pretrain") if plan.settings.pretrain is not None else None
    return StudyState(plan, plates, pretrain, _step(plan, "evaluate"), is_locked(plan.results))


def units_lost(plate: PlateState) -> str:
    """Fields and wells that are missing from a plate that is otherwise done; empty if none is."""
    result = plate.ingest.result or {}
    skipped = {
        unit: why
        for each in result.get("plates", [])
        for kind in ("skipped", "failed")
        for unit, why in each.get(kind, {}).items()
    }
    told = []
    if whole := result.get("failed", {}):
        name, why = next(iter(whole.items()))
        told.append(f"of the plates in its folder {len(whole)} not ingested, first {name}: {why}")
    if skipped:
        unit, why = next(iter(skipped.items()))
        told.append(f"{len(skipped)} left out by ingest, first {unit}: {why}")
    failed = (plate.embed.result or {}).get("failed")
    if failed:
        told.append(f"{failed if isinstance(failed, int) else len(failed)} wells not embedded")
    return ", ".join(told)


def _step(plan: StudyPlan, name: str) -> StepState:
    log = plan.out / "logs" / f"{name}.log"
    result = read_result(plan, name)
    if result is not None:
        nothing = name.startswith("ingest/") and not result.get("plates") and result.get("failed")
        if not nothing:
            return StepState("done", log, result=result)
        return StepState("failed", log, error="; ".join(map(str, result["failed"].values())))
    text = _tail(plan.folder / log)
    if text is None:
        return StepState("waiting", log)
    ended = _EXIT.search(text)
    if ended is None:
        return StepState("begun", log)
    if ended[1] == "0":
        # It was done, and somebody removed its result.
        return StepState("waiting", log)
    return StepState(
        "failed", log, error=_last(text, "error: ") or f"ended with {ended[1]}", hint=_last(text, "hint: ")
    )


def read_result(plan: StudyPlan, step: str) -> dict[str, Any] | None:
    """What a step printed with `--json` when it was done; None where it is not, or its file was damaged."""
    try:
        content = json.loads((plan.results / "steps" / f"{step}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _tail(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MOST_LOG_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return None


def _last(text: str, start: str) -> str:
    lines = [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]
    return lines[-1] if lines else ""


def _failure(step: str, state: StepState) -> dict[str, str]:
    return {"step": step, "error": state.error, "hint": state.hint, "log": str(state.log)}


def _some(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - _SHOWN} more (all of them with --json)"] if len(lines) > _SHOWN else []
    return ["", f"{title} ({len(lines)})", *(f"  {line}" for line in lines[:_SHOWN]), *more]
