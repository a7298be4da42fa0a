"""Run a study through Snakemake: to a report, or to a short list of plates that failed and why."""

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cellvim.atomic import locked, remove_leftovers, write_bytes, write_json
from cellvim.errors import InputError, SomeFailedError
from cellvim.study.again import (
    forget_jobs,
    forget_plates,
    jobs_of,
    model_stays,
    steps_of,
    was_overwriting,
)
from cellvim.study.cluster import (
    cancel_left_jobs,
    job_prefix,
    passing_refusals,
    refusals_in,
    refuse_unquotable,
    what_passes,
)
from cellvim.study.plan import LEFT_OUT_FILE, StudyPlan
from cellvim.study.process import count_results, run_snakemake
from cellvim.study.status import StudyState, look_at_study
from cellvim.study.workflow import environment, executor_of, profile_folder, snakemake_command

logger = logging.getLogger(__name__)

_MOST_LINES = 5
_PAUSES_S = (60, 120, 300, 600, 900)
"""Until Slurm is asked again; from the beginning whenever anything was done in between."""
_KILLED = """
error: its job was killed: out of memory, out of time, cancelled, or its node died
hint: `sacct` or logs/slurm tell which, on a cluster; more memory_mb or minutes, under `jobs:`, may help
exit: 137
"""


@dataclass(frozen=True)
class RunOptions:
    """How a study is run; what it computes stands in its file.

    Attributes:
        profile: Name or folder of a Snakemake profile.
        jobs: Cores on this machine, or jobs at a time on a cluster; all cores, or what the profile says, if None.
        overwrite: Replace results of other settings.
        again: Names of plates to make again, in place of what there is of them.
        dry_run: Only say what would be run.
        stop_on_failure: Make no report while a plate is missing.
        arguments: More for Snakemake.
    """

    profile: str = "local"
    jobs: int | None = None
    overwrite: bool = False
    again: tuple[str, ...] = ()
    dry_run: bool = False
    stop_on_failure: bool = False
    arguments: tuple[str, ...] = ()


class StudyFailedError(SomeFailedError):
    """Some plates failed, or the report could not be made.

    Attributes:
        state: What is done and what is not.
    """

    def __init__(self, state: StudyState, found: str, *, hint: str) -> None:
        self.state = state
        super().__init__(found, hint=hint)


def run_study(plan: StudyPlan, options: RunOptions) -> StudyState:
    """Run what is missing of a study. Plates that fail are left out of the report, and named.

    Raises:
        StudyFailedError: Some plates failed and the rest is done, or there is no report.
        LockedError: The study is being run already.
    """
    profile = profile_folder(options.profile)
    is_slurm = executor_of(profile) == "slurm"
    if is_slurm:
        refuse_unquotable(plan.folder, plan.results)
    if options.dry_run:
        _list_steps(plan, profile, options)
        return look_at_study(plan)
    plan.results.mkdir(parents=True, exist_ok=True)
    with locked(plan.results) as lock:
        if is_slurm:
            cancel_left_jobs(job_prefix(plan.results))
        _forget_what_is_run(plan, options)
        while True:
            code, said = _run_with_patience(plan, profile, options, lock)
            if code > 0:
                _tell_of_the_killed(plan)
            state = look_at_study(plan)
            failed = set(state.failed) - plan.left_out
            if code == 0 or not failed or options.stop_on_failure:
                break
            plan = plan.without(failed)
            if not plan.plates:
                break
            logger.info(
                "without %s, which failed, the study goes on", ", ".join(sorted(failed)[:_MOST_LINES])
            )
    _require_report(state, code, said)
    return state


def _run_with_patience(
    plan: StudyPlan, profile: Path, options: RunOptions, lock: int
) -> tuple[int, list[str]]:
    """Run Snakemake, and again after a while where Slurm took no job, or Snakemake died beside its jobs.

    Returns:
        Its last exit code, and what it said before that.
    """
    pauses, done = iter(_PAUSES_S), count_results(plan)
    while True:
        _write_inputs(plan, options)
        code, said = run_snakemake(plan, profile, lock, jobs=options.jobs, arguments=options.arguments)
        why = what_passes(job_prefix(plan.results), said) if code and executor_of(profile) == "slurm" else ""
        if (now := count_results(plan)) > done:
            pauses, done = iter(_PAUSES_S), now
        pause = next(pauses, None) if why else None
        if pause is None:
            return code, said
        logger.warning("%s; the study goes on in %d s", why, pause)
        time.sleep(pause)


def _forget_what_is_run(plan: StudyPlan, options: RunOptions) -> None:
    if options.overwrite and not was_overwriting(plan):
        _forget_results(plan)
    forget_plates(plan, options.again)
    forget_jobs(plan)
    _forget_failures(plan)
    (plan.results / "logs" / "snakemake.log").unlink(missing_ok=True)


def _list_steps(plan: StudyPlan, profile: Path, options: RunOptions) -> None:
    """Let Snakemake say what it would run; nothing of the study is touched."""
    again = jobs_of(plan, options.again)
    arguments = (
        *(("--forcerun", *again) if again else ()),
        "--dry-run",
        "--quiet",
        "rules",
        *(("--forceall",) if options.overwrite else ()),
        *options.arguments,
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "plan.json"
        write_json(config, plan.as_dict())
        command = snakemake_command(plan, profile, config, jobs=options.jobs, arguments=arguments)
        listed = subprocess.run(  # noqa: S603
            command, stdout=sys.stderr, cwd=plan.folder, env=environment(), check=False
        )
    if listed.returncode:
        found = f"Snakemake ended with {listed.returncode} and listed nothing"
        raise InputError(found, hint="its words above say why")


def _forget_results(plan: StudyPlan) -> None:
    """Let every command be given again; each keeps what is as it would make it."""
    for result in (plan.results / "steps").rglob("*.json"):
        result.unlink()


def _tell_of_the_killed(plan: StudyPlan) -> None:
    """Say in their logs that steps came to no end of their own: Snakemake has given them up, and runs nothing more."""
    for step in look_at_study(plan).steps:
        if step.state == "begun":
            with (plan.folder / step.log).open("a", encoding="utf-8") as log:
                log.write(_KILLED)


def _forget_failures(plan: StudyPlan) -> None:
    """Remove the logs of steps that are not done, so that only what fails now counts as failed."""
    for step in look_at_study(plan).steps:
        if step.state != "done":
            (plan.folder / step.log).unlink(missing_ok=True)


def _write_inputs(plan: StudyPlan, options: RunOptions) -> None:
    remove_leftovers(plan.results)
    if not model_stays(plan):
        plan.write_pretrain_file()
    replaced = ["all"] if options.overwrite else steps_of(options.again)
    write_json(plan.results / "plan.json", {**plan.as_dict(), "overwrite": replaced})
    _set_tables_aside(plan)
    failed = {name: failure for name, failure in look_at_study(plan).failed.items() if name in plan.left_out}
    table = pl.DataFrame(
        [(name, step, state.error) for name, (step, state) in sorted(failed.items())],
        schema={"plate": pl.String, "step": pl.String, "error": pl.String},
        orient="row",
    )
    write_bytes(plan.results / LEFT_OUT_FILE, table.write_csv().encode())


def _set_tables_aside(plan: StudyPlan) -> None:
    """Move away tables of plates that the report is not about: `evaluate` takes the whole folder.

    A plate that comes back is embedded anew.
    """
    wanted = {plate.name for plate in plan.plates}
    for table in sorted((plan.results / "profiles").glob("*.parquet")):
        plate = table.name.removesuffix(".parquet").removesuffix(".thumbnails")
        if plate in wanted:
            continue
        (plan.results / "steps" / "embed" / f"{plate}.json").unlink(missing_ok=True)
        aside = plan.results / "set_aside" / table.name
        aside.parent.mkdir(exist_ok=True)
        table.replace(aside)
        logger.warning("%s is of no plate of this report; moved to %s", table.name, aside.parent)


def _require_report(state: StudyState, code: int, said: Sequence[str]) -> None:
    file, log = state.plan.file, state.plan.out / "logs" / "snakemake.log"
    if state.is_done and code == 0:
        if lost := state.plates_lost:
            name, why = next(iter(lost.items()))
            found = f"of plates that share a folder, {len(lost)} could not be ingested, first {name}: {why}"
            hint = f"mend them, then: cellvim study run {file} --again ENTRY; `study status` names the entry"
            raise StudyFailedError(state, found, hint=hint)
        return
    if code == 0 and state.evaluate.state == "done" and state.failed:
        found = f"{len(state.failed)} of {len(state.plates)} plates failed and are not in the report"
        hint = f"`cellvim study status {file}` says why; mend them, and run the study again"
        raise StudyFailedError(state, found, hint=hint)
    if state.failed or state.failures:
        what = [*state.failed, *state.failures]
        found = f"no report was made: {len(what)} failed, first {what[0]}: {_first_error(state)}"
        raise StudyFailedError(
            state, found, hint=f"`cellvim study status {file}` lists them; run the study again to resume"
        )
    if refusals := refusals_in(said):
        found = f"Slurm refused a job: {'; '.join(refusals)}"
        hint = f"`jobs:` in {file} asks for it; its whole command is in {log}"
        if passing_refusals(said):
            hint = "submit fewer at a time (--jobs N), or run the study again when Slurm answers; what is done stays"
        raise InputError(found, hint=hint)
    error = InputError(f"Snakemake ended with {code} before the study was done", hint=f"see {log}")
    error.details = tuple([line for line in said if line.strip()][-_MOST_LINES:])
    raise error


def _first_error(state: StudyState) -> str:
    steps = [*(failure[1] for failure in state.failed.values()), *state.failures.values()]
    return steps[0].error
