"""What `pretrain.sbatch` decides, with Slurm's commands played by scripts that take notes."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "pipelines" / "slurm" / "pretrain.sbatch"
ARGUMENTS = ("plates", "--out", "run", "--steps", "9")


@dataclass(frozen=True)
class Stage:
    """A folder in which the script runs, with its own `srun`, `scontrol`, `squeue` and `scancel`."""

    folder: Path

    def play(self, command: str, script: str) -> None:
        path = self.folder / "bin" / command
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{command} $*" >>"{self.folder}/notes"\n{script}\n')
        path.chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "n1",
            **variables,
        }
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        with self.start(*arguments, **variables) as script:
            said = script.communicate(timeout=60)[0]
        return script.returncode, said

    @property
    def notes(self) -> str:
        path = self.folder / "notes"
        return path.read_text() if path.exists() else ""

    def checkpoint(self, step: int) -> None:
        folder = self.folder / "run" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"step-{step:08d}.safetensors").touch()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    stage.play(
        "scontrol", '[ "$2" = hostnames ] && echo n1 || echo "NodeName=n1 Arch=x NodeAddr=10.0.0.1 OS=y"'
    )
    stage.play("squeue", "echo 7.0")
    stage.play("scancel", "true")
    stage.play("srun", "exit 0")
    return stage


def test_ranks_meet_at_the_first_node_and_get_the_arguments_as_they_are(stage: Stage) -> None:
    code, said = stage.run("a plate", "--out=run", SLURM_GPUS_ON_NODE="4", CELLVIM_PYTHON="py")
    assert code == 0, said
    call = next(line for line in stage.notes.splitlines() if line.startswith("srun "))
    where = "--nnodes 1 --nproc-per-node 4 --master-addr 10.0.0.1 --master-port 20007"
    assert call.endswith(f"bash py {where} -m cellvim pretrain a plate --out=run")
    assert "requeue" not in stage.notes


def test_a_run_folder_must_be_named(stage: Stage) -> None:
    code, said = stage.run("plates")
    assert code == 2
    assert "error: --out is missing\nhint: " in said
    assert "srun" not in stage.notes


@pytest.mark.parametrize("exit_code", [1, 3, 137])
def test_a_failure_is_passed_on_and_not_requeued(stage: Stage, exit_code: int) -> None:
    stage.play("srun", f"exit {exit_code}")
    code, said = stage.run(*ARGUMENTS)
    assert code == exit_code
    assert f"error: pretraining ended with exit code {exit_code} without being asked to" in said
    assert "requeue" not in stage.notes


def test_a_warning_asks_the_step_to_stop_and_requeues_once_it_has(stage: Stage) -> None:
    # At first there is no step, as may happen right after the start.
    stage.play("squeue", '[ "$(grep -c squeue notes)" -gt 1 ] && echo 7.0')
    stage.play("srun", "while ! grep -q scancel notes; do sleep 0.1; done; exit 1")
    with stage.start(*ARGUMENTS) as script:
        while "srun" not in stage.notes:
            time.sleep(0.05)
        script.send_signal(signal.SIGUSR1)
        said = script.communicate(timeout=60)[0]
    assert script.returncode == 0, said
    looked = ["squeue --noheader --steps=7.0"] * 2
    assert stage.notes.splitlines()[-4:] == [*looked, "scancel --signal=TERM 7.0", "scontrol requeue 7"]


def test_a_run_that_ends_while_it_is_warned_is_done(stage: Stage) -> None:
    stage.play("srun", "while ! grep -q scancel notes; do sleep 0.1; done; exit 0")
    with stage.start(*ARGUMENTS) as script:
        while "srun" not in stage.notes:
            time.sleep(0.05)
        script.send_signal(signal.SIGUSR1)
        said = script.communicate(timeout=60)[0]
    assert script.returncode == 0, said
    assert "requeue" not in stage.notes


def test_starts_that_bring_no_checkpoint_come_to_an_end(stage: Stage) -> None:
    stage.play("srun", "exit 1")
    starts = [stage.run(*ARGUMENTS, SLURM_RESTART_COUNT=str(restart)) for restart in range(3)]
    assert all("pretraining ended" in said for _, said in starts)
    code, said = stage.run(*ARGUMENTS, SLURM_RESTART_COUNT="3")
    assert code == 1
    assert "error: 3 starts in a row brought no checkpoint after step 0" in said
    assert stage.notes.count("srun ") == 3


def test_a_checkpoint_starts_the_count_anew(stage: Stage) -> None:
    stage.play("srun", "exit 1")
    for restart in range(6):
        if restart % 2:
            stage.checkpoint(100 * restart)
        _, said = stage.run(*ARGUMENTS, SLURM_RESTART_COUNT=str(restart))
        assert "pretraining ended" in said, restart
