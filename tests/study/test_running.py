"""The workflow itself, on a stand-in for the command line that is quick and fails as it is told to."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import psutil
import pytest
import yaml

from cellvim.errors import ExitCode, InputError, LockedError, UsageError
from cellvim.study import again, cluster, plan_study, process, workflow
from cellvim.study import run as running
from cellvim.study.run import RunOptions, StudyFailedError, run_study
from cellvim.study.status import look_at_study

STAND_IN = """#!/usr/bin/env bash
# cellvim STAGE SUBJECT ...: notes the call, then does what the file `orders/STAGE-NAME` says: an exit code, `kill`,
# `kill job` with what would note its end, or `wait` until the file is gone.
stage=$1; name=$(basename "$2" .parquet)
case $stage in pretrain|evaluate) name=all;; esac
echo "$stage-$name $CELLVIM_ATTEMPT $*" >> calls
case $(cat "orders/$stage-$name" 2>/dev/null) in
  "") ;;
  kill) kill -9 $PPID ;;
  "kill job") kill -9 $(ps -o ppid= -p $PPID) $PPID ;;
  wait) while [ -e "orders/$stage-$name" ]; do sleep 0.1; done ;;
  1) echo '{"plates": [{"skipped": {"A01/1": "lost"}}]}'; exit 1 ;;
  "one of two") echo '{"plates": [{"name": "'"$name"'"}], "failed": {"P9": "damaged"}}'; exit 1 ;;
  4) rm "orders/$stage-$name"; echo "error: it is being written by process 1" >&2; exit 4 ;;
  *) echo "error: $stage $name is told to fail" >&2; echo "hint: tell it otherwise" >&2; exit "$(cat "orders/$stage-$name")" ;;
esac
[ "$stage" = embed ] && { mkdir -p results/profiles; echo "$name" > "results/profiles/$name.parquet"; }
echo '{"plates": [{"name": "'"$name"'"}]}'
"""

RUN = """
import sys
from cellvim.cli import main
from cellvim.study import process
found = process.environment()
found["PATH"] = sys.argv[2] + ":" + found["PATH"]
process.environment = lambda: found
sys.argv = ["cellvim", "study", "run", sys.argv[1]]
main()
"""
HANG_SECONDS = 120
# Codes of the command line; minus the signal where that leaves no time for one.
ENDS = {
    "kill snakemake": ExitCode.BAD_INPUT,
    "kill all": -signal.SIGKILL,
    "kill cellvim": -signal.SIGKILL,
    "terminate": ExitCode.INTERRUPTED,
    "interrupt": ExitCode.KEYBOARD,
}


class Study:
    """A study in a folder, whose commands are a stand-in's."""

    def __init__(self, folder: Path, plates: int = 3, **content: Any) -> None:
        self.folder = folder
        for number in range(1, plates + 1):
            (folder / "images" / f"P{number}").mkdir(parents=True)
        (folder / "orders").mkdir()
        self.file = folder / "study.yaml"
        self.file.write_text(
            yaml.safe_dump({"name": "screen", "plates": "images/*", "pretrain": {"steps": 0}, **content})
        )
        program = folder / "bin" / "cellvim"
        program.parent.mkdir()
        program.write_text(STAND_IN)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def order(self, step: str, what: str | int) -> None:
        (self.folder / "orders" / step).write_text(str(what))

    def change(self, **content: Any) -> None:
        self.file.write_text(yaml.safe_dump({**yaml.safe_load(self.file.read_text()), **content}))

    def run(self, **options: Any) -> dict[str, Any]:
        try:
            return run_study(plan_study(self.file), RunOptions(**options)).as_dict()
        except StudyFailedError as error:
            return error.state.as_dict()

    def started(self) -> "subprocess.Popen[bytes]":
        """Run it in a process of its own, as the command line does."""
        command = [sys.executable, "-c", RUN, str(self.file), str(self.folder / "bin")]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    @property
    def calls(self) -> list[str]:
        """Steps that were begun, in their order: `ingest-P1`."""
        return [line.split()[0] for line in self._lines()]

    def attempts(self, step: str) -> list[int]:
        return [int(line.split()[1]) for line in self._lines() if line.startswith(f"{step} ")]

    def forget(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def with_stand_in() -> dict[str, str]:
        found = workflow.environment()
        return {**found, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{found['PATH']}"}

    monkeypatch.setattr(process, "environment", with_stand_in)
    monkeypatch.setattr(process, "_POLL_S", 0.1)
    return tmp_path


def test_every_step_runs_once_and_after_what_it_needs(folder: Path) -> None:
    study = Study(folder)
    assert study.run()["is_done"]
    calls = study.calls
    assert sorted(calls) == sorted(
        [*(f"{step}-P{n}" for step in ("ingest", "embed") for n in (1, 2, 3)), "pretrain-all", "evaluate-all"]
    )
    pretrain = calls.index("pretrain-all")
    assert all(call.startswith("ingest") for call in calls[:pretrain])
    assert calls[-1] == "evaluate-all"
    study.forget()
    assert study.run()["is_done"]
    assert study.calls == []


def test_a_plate_that_fails_is_left_out_and_named_and_comes_in_when_it_is_mended(folder: Path) -> None:
    study = Study(folder, plates=5, jobs={"plates_per_job": 2, "attempts": 3})
    study.order("ingest-P2", 3)
    study.order("embed-P5", 6)
    state = study.run()
    assert not state["is_done"]
    assert state["evaluate"] == "done"
    assert set(state["failed"]) == {"P2", "P5"}
    assert state["failed"]["P2"]["error"] == "ingest P2 is told to fail"
    assert study.attempts("ingest-P2") == [1]
    assert study.attempts("embed-P5") == [1, 2, 3]
    left_out = pl.read_csv(folder / "results" / "left_out.csv")
    assert left_out["plate"].to_list() == ["P2", "P5"]
    assert left_out["step"].to_list() == ["ingest", "embed"]
    assert "--left-out results/left_out.csv" in (folder / "calls").read_text().splitlines()[-1]

    for order in (folder / "orders").iterdir():
        order.unlink()
    study.forget()
    assert study.run()["is_done"]
    assert {"ingest-P2", "embed-P2", "embed-P5", "evaluate-all"} <= set(study.calls)
    assert "pretrain-all" not in study.calls
    assert "--left-out" not in (folder / "calls").read_text().splitlines()[-1]
    assert pl.read_csv(folder / "results" / "left_out.csv").is_empty()


def test_the_model_stays_when_a_plate_comes_in_late(folder: Path) -> None:
    """Trained again, it would be another model, and refused by the folder that holds the first."""
    study = Study(folder, plates=2)
    study.order("ingest-P2", 3)
    assert set(study.run()["failed"]) == {"P2"}
    (folder / "orders/ingest-P2").unlink()
    study.forget()
    made_by = (folder / "results/pretrain.yaml").read_bytes()
    assert study.run()["is_done"]
    assert study.calls == ["ingest-P2", "embed-P2", "evaluate-all"]
    assert (folder / "results/pretrain.yaml").read_bytes() == made_by


def test_other_plates_of_a_job_do_not_suffer(folder: Path) -> None:
    study = Study(folder, plates=3, jobs={"plates_per_job": 3, "attempts": 1}, model="images", pretrain=None)
    study.order("ingest-P1", 70)
    state = study.run()
    assert [name for name, steps in state["plates"].items() if steps["embed"] == "done"] == ["P2", "P3"]
    assert state["evaluate"] == "done"


def test_nothing_is_left_out_where_that_is_not_wanted(folder: Path) -> None:
    study = Study(folder, jobs={"attempts": 1})
    study.order("ingest-P1", 3)
    state = study.run(stop_on_failure=True)
    assert state["evaluate"] == "waiting"
    assert "pretrain-all" not in study.calls


def test_without_any_plate_there_is_no_report(folder: Path) -> None:
    study = Study(folder, plates=1, jobs={"attempts": 1})
    study.order("ingest-P1", 3)
    with pytest.raises(StudyFailedError, match="no report was made: 1 failed, first P1: ingest P1 is told"):
        run_study(plan_study(study.file), RunOptions())


def test_a_step_that_is_killed_is_tried_again(folder: Path) -> None:
    study = Study(folder, plates=1, jobs={"attempts": 2})
    study.order("embed-P1", "kill")
    state = study.run()
    assert study.attempts("embed-P1") == [1, 2]
    assert state["plates"]["P1"]["embed"] != "done"
    assert not state["is_done"]
    (folder / "orders" / "embed-P1").unlink()
    assert study.run()["is_done"]


def test_another_attempt_asks_for_twice_the_memory_and_time_up_to_the_most(folder: Path) -> None:
    study = Study(folder, plates=1, jobs={"embed": {"memory_mb": 300, "minutes": 50}, "most_minutes": 150})
    study.order("embed-P1", "kill")
    study.run()
    log = (folder / "results" / "logs" / "snakemake.log").read_text()
    asked = re.findall(r"^localrule embed:.*?resources: (.*?)$", log, re.MULTILINE | re.DOTALL)
    assert [re.findall(r"(?:runtime|mem_mb)=(\d+)", line) for line in asked] == [
        ["50", "300"],
        ["100", "600"],
        ["150", "1200"],
    ]


def test_a_plate_whose_job_is_killed_without_a_word_is_left_out_and_named(folder: Path) -> None:
    """As by a time limit, or where a whole job is out of memory."""
    study = Study(folder, plates=2, jobs={"attempts": 2})
    study.order("embed-P1", "kill job")
    state = study.run()
    assert study.attempts("embed-P1") == [1, 2]
    assert state["evaluate"] == "done"
    assert list(state["failed"]) == ["P1"]
    assert state["failed"]["P1"]["error"].startswith("its job was killed")


def test_other_settings_of_training_are_never_passed_over(folder: Path) -> None:
    """The command refuses them, or replaces the model; a report of the old one would be no report of this study."""
    study = Study(folder, plates=2)
    assert study.run()["is_done"]
    for steps, options in ((5, {}), (7, {"overwrite": True}), (9, {"overwrite": True})):
        study.forget()
        study.change(pretrain={"steps": steps})
        assert study.run(**options)["is_done"]
        assert "pretrain-all" in study.calls
        assert {"embed-P1", "embed-P2", "evaluate-all"} <= set(study.calls)


def test_what_is_overwritten_is_made_in_its_order_and_once(folder: Path) -> None:
    study = Study(folder, plates=2)
    assert study.run()["is_done"]
    first = study.calls
    study.forget()
    assert study.run(overwrite=True)["is_done"]
    assert sorted(study.calls) == sorted(first)
    assert study.calls.index("pretrain-all") == 2
    study.forget()
    assert study.run()["is_done"]
    assert study.calls == []


def test_a_report_of_an_earlier_model_is_not_taken_for_the_report(folder: Path) -> None:
    study = Study(folder, plates=1)
    assert study.run()["is_done"]
    study.order("pretrain-all", 3)
    study.change(pretrain={"steps": 5})
    state = study.run()
    assert not state["is_done"]
    assert list(state["failed"]) == ["pretrain"]


def test_a_plate_that_is_added_moves_no_other(folder: Path) -> None:
    study = Study(folder, plates=2)
    assert study.run()["is_done"]
    (folder / "images" / "P0").mkdir()
    study.forget()
    assert study.run()["is_done"]
    assert study.calls == ["ingest-P0", "embed-P0", "evaluate-all"]


def test_a_plate_with_losses_is_done_and_its_losses_are_told(folder: Path) -> None:
    study = Study(folder, plates=2)
    study.order("ingest-P1", 1)
    state = study.run()
    assert state["is_done"]
    assert state["incomplete"] == {"P1": "1 left out by ingest, first A01/1: lost"}


def test_a_plate_that_is_lost_beside_another_one_in_its_folder_is_told_and_counts(folder: Path) -> None:
    study = Study(folder, plates=2)
    study.order("ingest-P1", "one of two")
    with pytest.raises(StudyFailedError, match=r"1 could not be ingested, first P9: damaged"):
        run_study(plan_study(study.file), RunOptions())
    state = look_at_study(plan_study(study.file))
    assert state.is_done
    assert state.as_dict()["incomplete"] == {
        "P1": "of the plates in its folder 1 not ingested, first P9: damaged"
    }
    status = subprocess.run(
        [sys.executable, "-m", "cellvim", "study", "status", str(study.file)],
        capture_output=True,
        check=False,
    )
    assert status.returncode == ExitCode.SOME_FAILED


def test_a_result_that_was_damaged_is_made_again(folder: Path) -> None:
    study = Study(folder, plates=2)
    assert study.run()["is_done"]
    (folder / "results" / "steps" / "embed" / "P1.json").write_bytes(b"")
    study.forget()
    assert study.run()["is_done"]
    assert study.calls == ["embed-P1", "evaluate-all"]


def test_overwriting_that_was_stopped_goes_on_where_it_was(folder: Path) -> None:
    study = Study(folder, plates=2)
    assert study.run()["is_done"]
    study.order("embed-P2", 3)
    assert not study.run(overwrite=True, stop_on_failure=True)["is_done"]
    study.order("embed-P2", "")
    study.forget()
    assert study.run(overwrite=True)["is_done"]
    assert study.calls == ["embed-P2", "evaluate-all"]
    study.forget()
    assert study.run(overwrite=True)["is_done"]
    assert "pretrain-all" in study.calls


def test_a_system_without_a_signal_for_the_death_of_a_parent_runs_studies(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RHEL 8, whose `setpriv` lacks the option."""
    old = folder / "old" / "setpriv"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho \"setpriv: unrecognized option '$1'\" >&2\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    assert Study(folder, plates=1).run()["is_done"]


SOCKET = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation'."


@pytest.mark.parametrize(
    ("said", "runs"), [(SOCKET, 6), ("sbatch: error: invalid partition specified: x", 1), ("", 1)]
)
def test_slurm_is_asked_again_where_waiting_may_help(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, runs: int
) -> None:
    study, pauses, seen = Study(folder, plates=1), [], []

    def refused(*_: Any, **__: Any) -> tuple[int, list[str]]:
        seen.append(said)
        return 1, [f"    message: {said}"]

    monkeypatch.setattr(running, "run_snakemake", refused)
    monkeypatch.setattr(running, "cancel_left_jobs", lambda _prefix: 0)
    monkeypatch.setattr(cluster, "cancel_left_jobs", lambda _prefix: 0)
    monkeypatch.setattr(running, "time", SimpleNamespace(sleep=pauses.append))
    with pytest.raises(InputError):
        run_study(plan_study(study.file), RunOptions(profile="slurm"))
    assert len(seen) == runs
    assert pauses == sorted(pauses)
    assert len(pauses) == runs - 1


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ("AccountingStorageType   = accounting_storage/slurmdbd", "sacct"),
        ("AccountingStorageType   = accounting_storage/none", "squeue"),
        ("AccountingStorageTRES   = cpu", "squeue"),
        (None, "squeue"),
    ],
)
def test_jobs_are_asked_for_where_they_are_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, command: str
) -> None:
    plan = plan_study(Study(folder, plates=1).file)
    profile = workflow.profile_folder("slurm")
    monkeypatch.setenv("PATH", str(folder / "slurm"))
    (folder / "slurm").mkdir()
    if said is not None:
        scontrol = folder / "slurm" / "scontrol"
        scontrol.write_text(f"#!/bin/sh\necho 'Configuration data as of today'\necho '{said}'\n")
        scontrol.chmod(0o755)
    words = workflow.snakemake_command(plan, profile, folder / "plan.json", jobs=None)
    assert words[words.index("--slurm-status-command") + 1] == command


def test_a_path_that_slurm_cannot_be_told_is_refused(folder: Path) -> None:
    study = Study(folder, plates=1, out='the "best" results')
    with pytest.raises(UsageError, match="no job on Slurm can be told"):
        run_study(plan_study(study.file), RunOptions(profile="slurm"))
    assert study.run()["is_done"]


def test_what_another_process_still_writes_is_waited_for(folder: Path) -> None:
    study = Study(folder, plates=1)
    sleep = folder / "bin" / "sleep"
    sleep.write_text("#!/bin/sh\nexit 0\n")
    sleep.chmod(0o755)
    study.order("embed-P1", 4)
    assert study.run()["is_done"]
    assert study.attempts("embed-P1") == [1, 1]


@pytest.mark.parametrize("stop", ["kill snakemake", "kill all", "kill cellvim", "terminate", "interrupt"])
def test_a_study_that_is_stopped_goes_on(folder: Path, stop: str) -> None:
    study = Study(folder, plates=2)
    study.order("embed-P2", "wait")
    with study.started() as process:
        wait_until(lambda: "embed-P2" in study.calls, process)
        with pytest.raises(LockedError):
            run_study(plan_study(study.file), RunOptions())
        assert "1 running" in str(look_at_study(plan_study(study.file)))
        snakemake = next(each for each in psutil.Process(process.pid).children() if is_snakemake(each))
        {
            "kill snakemake": snakemake.kill,
            "kill all": lambda: (process.kill(), snakemake.kill()),
            "kill cellvim": process.kill,
            "terminate": process.terminate,
            "interrupt": lambda: process.send_signal(signal.SIGINT),
        }[stop]()
        if stop in ("terminate", "interrupt"):
            # Nothing that was started may outlive it, although nobody tells it to end but the study.
            code = process.wait(HANG_SECONDS / 4)
            assert not [each for each in psutil.process_iter() if names_stand_in(each, folder)]
        (folder / "orders" / "embed-P2").unlink()
        code = process.wait(HANG_SECONDS)
        psutil.wait_procs([snakemake], timeout=HANG_SECONDS)
    assert code == ENDS[stop]
    assert not look_at_study(plan_study(study.file)).is_running
    before = Counter(study.calls)
    assert study.run()["is_done"]
    again = Counter(study.calls) - before
    assert again["evaluate-all"] == 1
    assert set(again) <= {"evaluate-all", "embed-P2"}


def test_a_stop_that_comes_when_snakemake_has_just_ended_stays_that_stop() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as ended:
        ended.wait()
        process._stop(ended, is_local=True)
    assert ended.returncode == 0


def names_stand_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder / "bin" / "cellvim") in process.cmdline()
    except psutil.Error:
        return False


def is_snakemake(process: psutil.Process) -> bool:
    return "snakemake" in process.cmdline()


def wait_until(is_so: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not is_so():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_dry_run_runs_nothing(folder: Path) -> None:
    study = Study(folder)
    study.run(dry_run=True)
    assert study.calls == []
    assert not (folder / "results").exists()
    study.order("ingest-P1", 3)
    failed = study.run()["failed"]
    before = {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}
    assert study.run(dry_run=True)["failed"] == failed
    assert before == {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}


def test_a_plate_is_made_again_alone_where_that_is_asked_for(folder: Path) -> None:
    study = Study(folder, plates=3, jobs={"plates_per_job": 2})
    assert study.run()["is_done"]
    study.forget()
    assert study.run(again=("P3",))["is_done"]
    assert study.calls == ["ingest-P3", "embed-P3", "evaluate-all"]
    lines = (folder / "calls").read_text().splitlines()
    assert all(line.endswith("--overwrite --json") for line in lines[:2])
    study.forget()
    assert study.run()["is_done"]
    assert study.calls == []
    with pytest.raises(UsageError, match="the study has no plate 'P4'"):
        study.run(again=("P4",))


@pytest.mark.parametrize(
    ("gone", "jobs"),
    [
        ("ingest/P3", {"ingest-P3", "embed-P3", "evaluate"}),
        ("embed/P1", {"embed-P1", "evaluate"}),
        ("pretrain", {"pretrain", "embed-P1", "embed-P3", "evaluate"}),
        ("evaluate", {"evaluate"}),
    ],
)
def test_a_step_whose_result_is_gone_is_not_done_and_its_job_runs_again(
    folder: Path, gone: str, jobs: set[str]
) -> None:
    plan = plan_study(Study(folder, plates=3, jobs={"plates_per_job": 2}).file)
    steps = ["pretrain", "evaluate", *(f"{step}/P{n}" for step in ("ingest", "embed") for n in (1, 2, 3))]
    marks = [
        "pretrain",
        "evaluate",
        *(f"{step}-{first}" for step in ("ingest", "embed") for first in ("P1", "P3")),
    ]
    made = [*(f"steps/{step}.json" for step in steps), *(f"jobs/{mark}.done" for mark in marks)]
    for path in (plan.results / each for each in made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    again.forget_jobs(plan)
    assert {path.stem for path in (plan.results / "jobs").iterdir()} == set(marks)
    (plan.results / "steps" / f"{gone}.json").unlink()
    assert not look_at_study(plan).failed
    again.forget_jobs(plan)
    assert {path.stem for path in (plan.results / "jobs").iterdir()} == set(marks) - jobs


def test_a_plate_that_leaves_a_study_leaves_its_report_and_may_come_back(folder: Path) -> None:
    study = Study(folder, plates=2)
    assert study.run()["is_done"]
    both = study.file.read_text()
    study.forget()
    study.file.write_text(both.replace("images/*", "images/P1"))
    assert study.run()["is_done"]
    assert study.calls == ["evaluate-all"]
    assert [path.name for path in (folder / "results" / "profiles").iterdir()] == ["P1.parquet"]
    assert (folder / "results" / "set_aside" / "P2.parquet").exists()
    study.forget()
    study.file.write_text(both)
    assert study.run()["is_done"]
    assert study.calls[-2:] == ["embed-P2", "evaluate-all"]
