"""A pretraining job that Slurm takes off its nodes ends with the weights of one that nobody disturbed."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellvim.config import PretrainSettings
from cellvim.pretrain.state import list_checkpoints
from cellvim.store import FieldKey, PlateWriter

SCRIPT = Path(__file__).parents[2] / "pipelines" / "slurm" / "pretrain.sbatch"
STEPS = 600
TINY = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1, "position_grid": 4}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "CELLVIM_PYTHON": sys.executable}


@dataclass(frozen=True)
class Case:
    """How two ranks are laid out, and what takes the job off its nodes."""

    nodes: tuple[str, ...]
    ranks_per_node: str
    disturb: tuple[str, ...]


CASES = {
    # Slurm ends the job by itself, as for a job of higher priority, and lets it wait again.
    "requeued": Case(("--partition=main", "--nodes=1"), "2", ("scontrol", "requeue")),
    # What Slurm sends before the time limit.
    "warned": Case(("--partition=pair", "--nodes=2"), "1", ("scancel", "--batch", "--signal=USR1")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs lie, with a plate and the settings that all of them take."""
    folder = tmp_path_factory.mktemp("runs")
    writer = PlateWriter(folder / "plates", "P1", ("DNA", "ER"), np.dtype(np.uint16))
    writer.begin()
    fields = [FieldKey(well, site) for well in ("A01", "A02", "B01") for site in (1, 2)]
    generator = np.random.default_rng(0)
    for number, key in enumerate(fields):
        pixels = generator.integers(100, 4000, (2, 48, 48)).astype(np.uint16)
        writer.write_field(key, pixels, token=str(number), is_valid=[True] * 2)
    writer.finish(fields, platemap=None)
    content = {"steps": STEPS, "batch_size": 8, "checkpoint_every": 50, "device": "cpu", "model": TINY}
    settings = PretrainSettings.checked({**content, "crops": {"crop_px": 32}})
    (folder / "config.yaml").write_text(settings.to_yaml())
    return folder


@pytest.fixture(scope="module")
def jobs(slurm: Any, folder: Path, until: Any) -> dict[str, dict[str, str]]:
    """What Slurm says of each case's job, which was disturbed once, after its end."""
    numbers = {name: submit(slurm, folder, name) for name in CASES}
    for name, job in numbers.items():
        until(lambda name=name: list_checkpoints(folder / name / "checkpoints"), f"{name} has a checkpoint")
        subprocess.run([*CASES[name].disturb, job], check=True)
    return {name: slurm.wait(job) for name, job in numbers.items()}


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """The same settings and ranks from a command line, disturbed by nobody."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command = [*launcher, "-m", "cellvim", "pretrain", *arguments_for("plain")]
    subprocess.run(command, cwd=folder, env={**os.environ, **ONE_THREAD}, check=True, timeout=240)
    return folder / "plain"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(CASES))
def test_a_job_was_taken_off_its_nodes_and_went_on(jobs: Any, folder: Path, name: str) -> None:
    log = (folder / f"{name}.log").read_text()
    assert (jobs[name]["JobState"], jobs[name]["Restarts"]) == ("COMPLETED", "1"), log
    starts = [line for line in log.splitlines() if "last checkpoint: step" in line]
    assert ["restart 0" in starts[0], "restart 1" in starts[1]] == [True, True]
    resumed_at = int(starts[1].rsplit(" ", 1)[1])
    assert 0 < resumed_at < STEPS
    assert f"resuming at step {resumed_at} of {STEPS}" in log
    assert not list(folder.glob("*.restarts")), "what is remembered of restarts goes with the last of them"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(CASES))
def test_its_weights_are_those_of_a_run_that_nobody_disturbed(
    jobs: Any, folder: Path, plain: Path, name: str
) -> None:
    assert jobs[name]["JobState"] == "COMPLETED"
    for file in ("model.safetensors", "metrics.jsonl"):
        hashes = {sha256((run / file).read_bytes()).hexdigest() for run in (folder / name, plain)}
        assert len(hashes) == 1, file


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_fails_by_itself_says_so_and_stays_away(slurm: Any, folder: Path) -> None:
    job = slurm.submit(
        *named("broken"), str(SCRIPT), "no/plates", "--out", "broken", cwd=folder, **ONE_THREAD
    )
    state, log = slurm.wait(job), (folder / "broken.log").read_text()
    assert (state["JobState"], state["Restarts"], state["ExitCode"]) == ("FAILED", "0", "1:0"), log
    assert "error: pretraining ended with exit code 1 without being asked to" in log


def submit(slurm: Any, folder: Path, name: str) -> str:
    case = CASES[name]
    sbatch = [*named(name), *case.nodes, str(SCRIPT), *arguments_for(name)]
    number: str = slurm.submit(*sbatch, cwd=folder, CELLVIM_RANKS=case.ranks_per_node, **ONE_THREAD)
    return number


def named(name: str) -> list[str]:
    return [f"--job-name={name}", "--output=%x.log"]


def arguments_for(name: str) -> list[str]:
    return ["plates", "--out", name, "--config", "config.yaml"]
