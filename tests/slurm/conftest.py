"""Jobs on a real Slurm: that of the machine, or the one that `tests/slurm/cluster.sh start` has started."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HANG_SECONDS = 240
"""A job that is not where it should be by then never gets there."""
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


@dataclass
class Slurm:
    """Submits jobs, watches them, and knows which ones a test must not leave behind."""

    submitted: list[str] = field(default_factory=list)

    def submit(self, *arguments: str, cwd: Path, **variables: str) -> str:
        """Hand a script to `sbatch`; the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", *arguments],
            cwd=cwd,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        self.submitted.append(done.stdout.strip())
        return self.submitted[-1]

    def facts(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job: JobState, Restarts, ExitCode ..."""
        return dict(re.findall(r"(\S+?)=(\S*)", call("scontrol", "--oneliner", "show", "job", job)))

    def wait(self, job: str) -> dict[str, str]:
        """Wait until the job is over, through any requeue."""
        wait_until(lambda: self.facts(job)["JobState"] in OVER, f"job {job} is over")
        return self.facts(job)

    def end_all(self) -> None:
        """Cancel what is left, and wait until it is gone from the queue."""
        if self.submitted:
            call("scancel", *self.submitted)
        wait_until(lambda: not self.left(), "no job is left")

    def left(self) -> set[str]:
        return set(call("squeue", "--noheader", "--format=%A").split()) & set(self.submitted)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """The cluster, or a skip where none can be asked; jobs of the module are gone when it is over."""
    if shutil.which("scontrol") is None:
        pytest.skip("needs Slurm: apt-get install slurm-wlm munge, then tests/slurm/cluster.sh start")
    answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False)
    if "is UP" not in answer.stdout:
        pytest.skip("no slurmctld answers: tests/slurm/cluster.sh start")
    cluster = Slurm()
    yield cluster
    cluster.end_all()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool], str], None]:
    return wait_until


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited {HANG_SECONDS} s in vain until {what}"
        time.sleep(0.1)


def call(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
