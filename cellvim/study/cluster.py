"""Jobs that a killed Snakemake left on a Slurm cluster."""

import hashlib
import logging
import os
import subprocess
import time
from pathlib import Path

from cellvim.errors import DiskError

logger = logging.getLogger(__name__)

_PATIENCE_S = 300


def job_prefix(results: Path) -> str:
    """What the names of a study's jobs begin with: the same for the same folder of results."""
    return f"cellvim-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:10]}"


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
