"""Snakemake as a process: started, watched, and stopped with what it started on this machine."""

import logging
import os
import signal
import subprocess
import time
from pathlib import Path

from cellvim.progress import progress_bar
from cellvim.study.plan import StudyPlan
from cellvim.study.status import look_at_study
from cellvim.study.workflow import environment, executor_of, snakemake_command

logger = logging.getLogger(__name__)

_POLL_S = 2.0
_GRACE_S = 120


def run_snakemake(
    plan: StudyPlan, profile: Path, lock: int, *, jobs: int | None, arguments: tuple[str, ...]
) -> tuple[int, list[str]]:
    """Run Snakemake once, with a bar of the steps that are done; it is stopped where this process is.

    Args:
        plan: Written to `plan.json` before.
        profile: Folder of a Snakemake profile.
        lock: Open file of the study's lock, which is held as long as Snakemake runs.
        jobs: As `snakemake_command` takes them.
        arguments: More for Snakemake.

    Returns:
        Its exit code, and the lines it said.
    """
    config = plan.results / "plan.json"
    command = snakemake_command(plan, profile, config, jobs=jobs, arguments=arguments)
    log = plan.results / "logs" / "snakemake.log"
    log.parent.mkdir(exist_ok=True)
    logger.debug("%s", " ".join(command))
    begin = log.stat().st_size if log.exists() else 0
    with (
        log.open("a+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(  # noqa: S603
            command,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=plan.folder,
            env=environment(),
            # Ctrl-C comes to it from here, once. The lock is held as long as it runs.
            start_new_session=True,
            pass_fds=(lock,),
        ) as snakemake,
    ):
        try:
            code = _wait(snakemake, plan)
        except BaseException:
            _stop(snakemake, is_local=executor_of(profile) == "local")
            raise
        said.seek(begin)
        return code, said.read().splitlines()


def _wait(snakemake: "subprocess.Popen[bytes]", plan: StudyPlan) -> int:
    """Wait for Snakemake, and show how many steps are done."""
    done, total = 0, len(look_at_study(plan).steps)
    with progress_bar("study", total=total) as advance:
        while (code := snakemake.poll()) is None:
            time.sleep(_POLL_S)
            now = count_results(plan)
            if now > done:
                advance(now - done)
                logger.info("%d of %d steps done", now, total)
                done = now
    return code


def _stop(snakemake: "subprocess.Popen[bytes]", *, is_local: bool) -> None:
    """Let Snakemake cancel its jobs: they save their place."""
    snakemake.send_signal(signal.SIGINT)
    if is_local:
        # It waits for what runs on this machine, which hears nothing of it: all of it is in one process group.
        _signal_group(snakemake, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    # Of the group, there is something left as long as it can be sent anything.
    while snakemake.poll() is None or (is_local and _signal_group(snakemake, 0)):
        if time.monotonic() > deadline:
            snakemake.kill()
            if is_local:
                _signal_group(snakemake, signal.SIGKILL)
            break
        time.sleep(0.1)


def _signal_group(snakemake: "subprocess.Popen[bytes]", number: int) -> bool:
    """Send a signal to Snakemake and what it has started on this machine; False where nothing of it is left."""
    try:
        os.killpg(snakemake.pid, number)
    except ProcessLookupError:
        return False
    return True


def count_results(plan: StudyPlan) -> int:
    """Number of steps that are done, by names only: thousands of results are not read every second."""
    return sum(1 for _ in (plan.results / "steps").rglob("*.json"))
