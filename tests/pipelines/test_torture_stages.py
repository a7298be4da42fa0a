"""A small sample of what `make torture` does to stages: full disks, read-only disks, rivals and kills."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellvim.cli import app
from cellvim.errors import CellvimError, ExitCode
from cellvim.terminal import explain_failure
from pipelines.torture.disk import ROOM, CannotMountError, has_told, is_right, is_whole, mounted, remount
from pipelines.torture.full_disks import torture_disks
from pipelines.torture.kills import environment
from pipelines.torture.stages import Job, all_files, embed_job, is_temporary, normalize_job
from pipelines.torture.writers import Round, torture_other_writers

# One process for all commands, each as a user types it; and for what they have loaded.
EVERY_COMMAND = """
import json, sys
from cellvim.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["cellvim", *arguments]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
print(json.dumps([codes, sorted({"torch", "sklearn"} & sys.modules.keys())]))
"""
# Kills itself, as `kill -9` would, when it asks the disk to keep something for the N-th time; then resumes. Forked once
# torch is there, which takes longer than all else.
KILL_AND_RESUME = """
import json, os, signal, sys
import cellvim.embed
from cellvim.cli import app

def run(arguments, moment):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    calls, fsync = iter(range(10**6)), os.fsync
    def count(descriptor):
        if next(calls) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)
    os.fsync = count
    app(arguments, standalone_mode=False)
    os._exit(0)

ends = []
for moment in map(int, sys.argv[2].split(",")):
    arguments = [*sys.argv[3:], "--out", f"{sys.argv[1]}/{moment}/tables/wells.parquet"]
    ends.append((run(arguments, moment), run(arguments, -1)))
print(json.dumps(ends))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own; `remount(disk, "size=4096")` changes it."""
    try:
        with mounted(tmp_path / "disk", ROOM):
            yield tmp_path / "disk"
    except CannotMountError as error:
        pytest.skip(f"needs a small disk: {error}")


@pytest.fixture
def _loudness() -> Iterator[None]:
    """Commands set how loud the library is; other tests have their own ideas."""
    loggers = [logging.getLogger(name) for name in ("cellvim", "cellvim_kernels")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def run(job: Job, folder: Path) -> ExitCode:
    """Run a stage in this process, which has torch already."""
    try:
        app(job.command(folder)[3:], standalone_mode=False)
    except (CellvimError, OSError) as error:
        return explain_failure(error)[2]
    return ExitCode.DONE


def test_every_stage_finds_out_at_once_that_its_target_is_read_only(disk: Path) -> None:
    remount(disk, "ro")
    # Inputs do not even exist: they are not looked at before the target.
    commands = [
        ["ingest", "images", "--out", f"{disk}/plates"],
        ["pretrain", "P.ome.zarr", "--out", f"{disk}/run"],
        ["embed", "P.ome.zarr", "--model", "run", "--out", f"{disk}/wells.parquet"],
        ["normalize", "wells.parquet", "--out", f"{disk}/profiles.parquet"],
        ["evaluate", "wells.parquet", "--out", f"{disk}/report"],
    ]
    ended = subprocess.run(
        [sys.executable, "-c", EVERY_COMMAND, json.dumps(commands)],
        check=True,
        capture_output=True,
        text=True,
    )
    codes, loaded = json.loads(ended.stdout)
    assert codes == [ExitCode.DISK] * len(commands)
    # Each of them alone takes most of the two seconds that there are.
    assert loaded == []
    lines = ended.stderr.splitlines()
    assert all(has_told("\n".join(lines[place : place + 2])) for place in range(0, len(lines), 2))
    assert len(lines) == 2 * len(commands)
    assert all("is read-only" in line for line in lines[::2])


@pytest.mark.usefixtures("_loudness")
def test_what_is_finished_may_lie_in_an_archive(disk: Path, tmp_path: Path) -> None:
    job = normalize_job(tmp_path)
    assert run(job, disk) == ExitCode.DONE
    remount(disk, "ro")
    assert run(job, disk) == ExitCode.DONE
    app_with_overwrite = Job("", "", lambda out: [*job.command(out), "--overwrite"], "", ())
    assert run(app_with_overwrite, disk) == ExitCode.DISK


@pytest.mark.usefixtures("_loudness")
def test_a_disk_full_of_finished_plates_truncates_nothing(disk: Path, tmp_path: Path) -> None:
    job = embed_job(tmp_path / "inputs", plates=2)
    assert run(job, tmp_path / "whole") == ExitCode.DONE
    whole = {name: path.read_bytes() for name, path in job.results(tmp_path / "whole").items()}
    remount(disk, "size=600k")
    assert run(job, disk) == ExitCode.DISK
    found = {name: path for name, path in all_files(disk).items() if not name.endswith("/lock")}
    assert f"{job.lock.removesuffix('lock')}P2.parquet" in found
    assert not any(is_temporary(name) for name in found)
    assert [name for name, path in found.items() if not is_right(path, whole.get(name))] == []
    remount(disk, ROOM)
    assert run(job, disk) == ExitCode.DONE
    assert {name: path.read_bytes() for name, path in job.results(disk).items()} == whole


def test_the_command_on_a_full_disk_truncates_nothing_and_goes_on(tmp_path: Path) -> None:
    try:
        needs, trials = torture_disks(tmp_path, sizes=1, stages=("normalize",))["normalize"]
    except CannotMountError as error:
        pytest.skip(f"needs a small disk: {error}")
    assert [line for trial in trials for line in trial.failures] == []
    assert [trial.code for trial in trials] == [ExitCode.DISK]
    assert {"tables/profiles.parquet", "screen.fit"} == needs.files.keys()


def test_one_of_three_writers_of_a_table_wins_and_two_name_it(tmp_path: Path) -> None:
    found = torture_other_writers(tmp_path, rounds=1, stages=("normalize",), writers=3)
    assert found == {"normalize": [Round(3, winners=1, refused=2, named=2, is_intact=True, unexpected=())]}


def test_embedding_killed_at_any_moment_leaves_the_same_bytes(tmp_path: Path) -> None:
    job = embed_job(tmp_path / "inputs", plates=2)
    arguments = job.command(tmp_path)[4:-2]
    # Between the plates, and never.
    moments = ("6", "10000")
    ended = subprocess.run(
        [sys.executable, "-c", KILL_AND_RESUME, str(tmp_path), ",".join(moments), *arguments],
        check=True, capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert json.loads(ended.stdout.splitlines()[-1]) == [[9, 0], [0, 0]]
    left = [
        {name: path.read_bytes() for name, path in job.results(tmp_path / moment).items()}
        for moment in moments
    ]
    assert all(files == left[-1] for files in left)
    assert left[-1].keys() == {"tables/wells.parquet", "tables/wells.thumbnails.parquet"}
    assert not (tmp_path / "6/tables/wells.parquet.parts").exists()
    assert is_whole(tmp_path / "6/tables/wells.run.json")
