"""A study on Slurm, with a job cancelled and Snakemake killed, ends with the bytes of its plain commands."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.study import draw_plates
from cellvim.errors import ExitCode
from cellvim.study import plan_study
from cellvim.study.cluster import cancel_left_jobs, job_prefix

PLATES = 6
HANG_SECONDS = 500
PRETRAIN = {
    "steps": 10,
    "batch_size": 8,
    "device": "cpu",
    "crops": {"crop_px": 64},
    "model": {
        "width": 16,
        "depth": 2,
        "patch_px": 8,
        "decoder_width": 16,
        "decoder_depth": 1,
        "position_grid": 8,
    },
}
STUDY = {
    "name": "six plates",
    "plates": "../images/*",
    "platemap": "../platemap.csv",
    "pretrain": PRETRAIN,
    "evaluate": {"tasks": "activity,consistency", "label": "Metadata_Mechanism"},
    "jobs": {
        "plates_per_job": 3,
        **{step: {"cpus": 1, "memory_mb": 1500} for step in ("ingest", "embed", "evaluate")},
        "pretrain": {"cpus": 2, "memory_mb": 3000},
    },
}
RESULTS = ("plates/**/*", "model/model.safetensors", "model/metrics.jsonl", "profiles/*", "report/*")
"""All but the model's page, which tells how fast it learned, and its checkpoints."""
TIMES_AND_MACHINES = "run.json"
"""Where alone times and names of machines stand."""
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def folder(slurm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of six small plates, and the same study file in the folders `plain` and `cluster`."""
    assert not slurm.submitted
    folder = tmp_path_factory.mktemp("study")
    draw_plates(folder, PLATES)
    for name in ("plain", "cluster"):
        (folder / name).mkdir()
        (folder / name / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """The commands that `cellvim study plan` shows, typed by hand, two at a time where they are of plates."""
    plain = folder / "plain"
    plan = json.loads(run(plain, "cellvim study plan study.yaml --json"))
    names = [f"S{plate}" for plate in range(PLATES)]
    assert sorted(plan["plates"]) == names
    (plain / "results").mkdir()
    content = {**PRETRAIN, "plates": [f"results/plates/{name}" for name in names], "out": "results/model"}
    (plain / "results" / "pretrain.yaml").write_text(yaml.safe_dump(content))
    # Snakemake lets a job compute with as many threads as it has CPUs, and threads take part in the last bits.
    threads = {step: plan["jobs"][step]["cpus"] for step in ("ingest", "pretrain", "embed", "evaluate")}
    with ThreadPoolExecutor(2) as pool:
        for step in ("ingest", "embed"):
            commands = [plan["plates"][name][step] for name in names]
            list(pool.map(lambda command, step=step: run(plain, command, threads=threads[step]), commands))
            if step == "ingest":
                run(plain, plan["pretrain"], threads=threads["pretrain"])
    run(plain, plan["evaluate"], threads=threads["evaluate"])
    return plain


@pytest.fixture(scope="module")
def cluster(slurm: Any, folder: Path, until: Any) -> Iterator[Path]:
    """The study on Slurm: a job is cancelled, Snakemake is killed while its successor runs, then the study again."""
    cluster = folder / "cluster"
    prefix = job_prefix(plan_study(cluster / "study.yaml").results)
    command = shlex.split("cellvim study run study.yaml --profile slurm")
    try:
        with subprocess.Popen(command, cwd=cluster, env=ENVIRONMENT) as study:
            cancelled = cancel_one_and_kill(study, prefix, until)
        assert slurm.facts(cancelled)["JobState"] == "CANCELLED"
        assert running(prefix), "jobs outlive the study that submitted them"
        run(cluster, "cellvim study run study.yaml --profile slurm")
        yield cluster
    finally:
        left = cancel_left_jobs(prefix)
    assert left == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_that_was_killed_ends_with_the_bytes_of_its_commands(plain: Path, cluster: Path) -> None:
    wanted, found = hashes_of(plain / "results"), hashes_of(cluster / "results")
    assert sum(name.endswith(".parquet") and name.startswith("profiles/") for name in wanted) >= PLATES
    assert {"report/report.html", "report/metrics.json", "model/model.safetensors"} <= set(wanted)
    assert found == wanted


def test_what_slurm_refuses_is_told_in_its_words(slurm: Any, tmp_path: Path) -> None:
    assert not slurm.submitted
    (tmp_path / "images" / "P1").mkdir(parents=True)
    refused = {"partition": "no_such_partition", "attempts": 1}
    study = {"name": "x", "plates": "images/*", "pretrain": {"steps": 1}, "jobs": refused}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    done = call(tmp_path, "cellvim study run study.yaml --profile slurm")
    assert done.returncode == ExitCode.BAD_INPUT
    [error, hint] = done.stderr.splitlines()[-2:]
    assert error.startswith("error: Slurm refused a job: invalid partition specified: no_such_partition; ")
    assert hint.startswith("hint: `jobs:` in study.yaml")


def cancel_one_and_kill(study: "subprocess.Popen[bytes]", prefix: str, until: Any) -> str:
    """Cancel a job, and kill the study and its Snakemake while the next one runs; number of the cancelled job."""
    try:
        until(lambda: running(prefix), "a job of the study runs")
        cancelled, newest = min(running(prefix)), max(running(prefix))
        subprocess.run(["scancel", str(cancelled)], check=True)
        until(lambda: any(job > newest for job in running(prefix)), "the study has submitted another job")
        return str(cancelled)
    finally:
        children = subprocess.run(
            ["pgrep", "--parent", str(study.pid)], capture_output=True, text=True, check=False
        ).stdout
        # Snakemake first: it is interrupted, and cancels its jobs, as soon as what started it is gone.
        for pid in [*map(int, children.split()), study.pid]:
            os.kill(pid, signal.SIGKILL)


def running(prefix: str) -> set[int]:
    """Numbers of the study's jobs that run."""
    command = ["squeue", "--noheader", "--states=RUNNING", "--format=%A %j"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(line.split()[0]) for line in lines if line.split()[1].startswith(prefix)}


def run(folder: Path, command: str, *, threads: int = 1) -> str:
    done = call(folder, command, threads=threads)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def call(folder: Path, command: str, *, threads: int = 1) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        shlex.split(command),
        cwd=folder,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def hashes_of(results: Path) -> dict[str, str]:
    files = {path for pattern in RESULTS for path in results.glob(pattern) if path.is_file()}
    return {
        str(path.relative_to(results)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if not path.name.endswith(TIMES_AND_MACHINES)
    }
