"""What a study has to make again: what it is asked for, and what lacks its result."""

import json
from collections.abc import Sequence
from typing import Any

from cellvim.atomic import json_bytes
from cellvim.errors import UsageError
from cellvim.study.plan import StudyPlan
from cellvim.study.status import read_result

_MOST_NAMED = 8


def forget_plates(plan: StudyPlan, names: Sequence[str]) -> None:
    """Take the mark that they are done from plates, whose images were mended, say.

    Raises:
        UsageError: The study has no such plate.
    """
    known = [plate.name for plate in plan.all_plates]
    for name in names:
        if name not in known:
            found = f"the study has no plate {name!r}"
            more = ", ..." if len(known) > _MOST_NAMED else ""
            raise UsageError(found, hint=f"it has {', '.join(known[:_MOST_NAMED])}{more}")
    for step in steps_of(names):
        (plan.results / "steps" / f"{step}.json").unlink(missing_ok=True)


def steps_of(names: Sequence[str]) -> list[str]:
    """Steps of these plates, as files of results and logs are named."""
    return [f"{step}/{name}" for name in names for step in ("ingest", "embed")]


def jobs_of(plan: StudyPlan, names: Sequence[str]) -> list[str]:
    """Marks of the jobs that begin these plates."""
    batches = (batch for batch, plates in plan.batches.items() if set(plates) & set(names))
    return [str(plan.out / "jobs" / f"ingest-{batch}.done") for batch in batches]


def forget_jobs(plan: StudyPlan) -> None:
    """Let Snakemake run every job again that lacks a result of a step, and what comes after it.

    Snakemake knows jobs by `jobs/`. It takes no offence at a result that is gone where all that was made from it is
    there.
    """
    is_trained = plan.settings.pretrain is None or _has_result(plan, "pretrain")
    is_whole = is_trained and _has_result(plan, "evaluate")
    for batch, names in plan.batches.items():
        lacks = {
            step: not all(_has_result(plan, f"{step}/{name}") for name in names)
            for step in ("ingest", "embed")
        }
        if lacks["ingest"]:
            _forget(plan, f"ingest-{batch}")
        if lacks["ingest"] or lacks["embed"] or not is_trained:
            _forget(plan, f"embed-{batch}")
            is_whole = False
    if not is_trained:
        _forget(plan, "pretrain")
    if not is_whole:
        _forget(plan, "evaluate")


def model_stays(plan: StudyPlan) -> bool:
    """Whether there is a model of these settings: it stays, and the file that it was made by with it, for its record."""
    if (
        not (plan.results / "jobs" / "pretrain.done").exists()
        or not (plan.folder / plan.pretrain_file).exists()
    ):
        return False
    return _earlier_plan(plan) is not None


def was_overwriting(plan: StudyPlan) -> bool:
    """Whether an earlier run was to replace everything and came to no end: then the next one goes on with it."""
    if _has_result(plan, "evaluate"):
        return False
    return (_earlier_plan(plan) or {}).get("overwrite") == ["all"]


def _earlier_plan(plan: StudyPlan) -> dict[str, Any] | None:
    """Content of the last run's `plan.json`; None where there is none, or it trained with other settings."""
    try:
        before = json.loads((plan.results / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    settings = json.loads(json_bytes(plan.as_dict()))["pretrain_settings"]
    return before if isinstance(before, dict) and before.get("pretrain_settings") == settings else None


def _has_result(plan: StudyPlan, step: str) -> bool:
    return read_result(plan, step) is not None


def _forget(plan: StudyPlan, job: str) -> None:
    (plan.results / "jobs" / f"{job}.done").unlink(missing_ok=True)
