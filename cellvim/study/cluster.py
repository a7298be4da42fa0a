"""What Slurm knows of a study: jobs that a killed Snakemake left, and jobs that were not taken."""

import hashlib
import logging
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cellvim.errors import DiskError, UsageError

logger = logging.getLogger(__name__)

_PATIENCE_S = 300
_MOST_LINES = 5
_SBATCH = "sbatch: error: "
_PASSING = re.compile(
    "timed out|temporarily|contact slurm controller|Connection refused|not responding|communication|Zero Bytes|MaxSubmit"
)
"""What sbatch says when the controller is busy or gone, or a user has as many jobs as are allowed."""
_ACCOUNTING = re.compile(r"^AccountingStorageType\s*=\s*accounting_storage/slurmdbd\s*$", re.MULTILINE)
_UNQUOTABLE = frozenset("\"'`$\\\n")


def job_prefix(results: Path) -> str:
    """What the names of a study's jobs begin with: the same for the same folder of results."""
    return f"cellvim-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:10]}"


def status_command() -> str:
    """What to ask Slurm for the state of jobs with.

    The accounting database remembers every job; `squeue` forgets one some minutes after its end. But without the
    database, `sacct` hangs.
    """
    try:
        configuration = _slurm("scontrol", "show", "config")
    except DiskError:
        return "squeue"
    return "sacct" if _ACCOUNTING.search(configuration) else "squeue"


def cancel_left_jobs(prefix: str) -> int:
    """Cancel this user's jobs whose names begin with `prefix`, and wait until they are gone.

    Their steps resume, so nothing is lost but the part of a unit. Without it, a job and its successor would write the
    same output, and one of them be refused.

    Returns:
        Number of jobs that were cancelled.

    Raises:
        DiskError: Slurm does not answer, or the jobs do not end.
    """
    left = _jobs(prefix)
    if not left:
        return 0
    logger.info(
        "%d jobs of an earlier run are still in the queue; they are cancelled, and resumed", len(left)
    )
    _slurm("scancel", *left)
    deadline = time.monotonic() + _PATIENCE_S
    while _jobs(prefix):
        if time.monotonic() > deadline:
            found = f"jobs {', '.join(left[:5])} of an earlier run do not end"
            raise DiskError(found, hint="see `squeue --me`; run the study again when they are gone")
        time.sleep(1)
    return len(left)


def refusals_in(lines: Sequence[str]) -> list[str]:
    """What sbatch said, each sentence once."""
    said = [line.partition(_SBATCH)[2].rstrip(".'") for line in lines if _SBATCH in line]
    return list(dict.fromkeys(said))[:_MOST_LINES]


def passing_refusals(lines: Sequence[str]) -> list[str]:
    """Those of them that another hour may answer otherwise."""
    return [refusal for refusal in refusals_in(lines) if _PASSING.search(refusal)]


def what_passes(prefix: str, said: Sequence[str]) -> str:
    """What kept a run on Slurm from its end and may be over soon; empty if nothing of the kind did.

    Jobs that Snakemake has left behind are cancelled.
    """
    try:
        if cancel_left_jobs(prefix):
            return "Snakemake ended while jobs were running"
    except DiskError as error:
        return error.found
    passing = passing_refusals(said)
    return f"Slurm took no job: {passing[0]}" if passing else ""


def refuse_unquotable(*paths: Path) -> None:
    """Refuse paths that a job's script on Slurm would not survive: Snakemake's plugin puts them between quotes.

    Raises:
        UsageError: A path holds a quote, a dollar sign, a backtick, a backslash or a line break.
    """
    for path in paths:
        if found := sorted(_UNQUOTABLE.intersection(str(path))):
            hint = "move the study, or name another `out:`"
            raise UsageError(f"{path} holds {found[0]!r}, which no job on Slurm can be told", hint=hint)  # noqa: EM102


def _jobs(prefix: str) -> list[str]:
    lines = _slurm("squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i %j").splitlines()
    jobs = [line.split(maxsplit=1) for line in lines]
    return [job[0] for job in jobs if len(job) == 2 and job[1].startswith(prefix)]


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        found = f"{command[0]} failed: {said.strip().splitlines()[-1] if said.strip() else 'no answer'}"
        raise DiskError(found, hint="is this a machine from which jobs are submitted? try `sinfo`") from error
    return done.stdout
