"""Files exist whole or not at all, and only one writer holds a folder."""

import errno
import fcntl
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cellvim.atomic import (
    locked,
    read_json,
    remove_leftovers,
    require_writable,
    write_atomically,
    write_json,
    write_text,
)
from cellvim.errors import DiskError, LockedError

PROCESSES, ROUNDS, HASTE = 8, 20, 300
OURS = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})


def test_a_failed_write_leaves_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_text(path, "old")

    def fail_half_way(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail_half_way)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_same_content_is_same_bytes_whatever_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": "µ"})
    write_json(tmp_path / "b", {"y": "µ", "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"x": 1, "y": "µ"}


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-123-table.parquet").write_text("half")
    (tmp_path / "kept").write_text("whole")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_second_writer_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with locked(tmp_path):
        script = (
            "import sys; from pathlib import Path; from cellvim.atomic import locked\n"
            "from cellvim.errors import LockedError\n"
            "try:\n    locked(Path(sys.argv[1])).__enter__()\nexcept LockedError as e:\n    print(e.found)"
        )
        told = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert f"process {os.getpid()} on {socket.gethostname()}" in told.stdout
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize(
    "content",
    ['{"pid": 1, "host": "elsewhere"}', OURS, "", "{", "[]", "\0" * 9999],
    ids=["another host", "our own pid", "empty", "half", "a list", "zeros"],
)
def test_a_lock_file_that_nobody_holds_blocks_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with locked(tmp_path):
        assert read_json(tmp_path / "lock") == json.loads(OURS)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from cellvim.atomic import locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "lock").exists()
    with locked(tmp_path):
        assert read_json(tmp_path / "lock")["pid"] == os.getpid()


def test_one_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on") as caught, locked(tmp_path):
            pass
        assert str(tmp_path / "lock") in caught.value.hint
        assert (tmp_path / "lock").exists()


def test_a_holder_that_has_not_signed_is_another_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(LockedError, match="written by another process"), locked(tmp_path):
            pass


def test_a_lock_file_put_in_place_of_ours_is_not_removed(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").write_text("somebody else's")
    assert (tmp_path / "lock").read_text() == "somebody else's"


def test_a_lock_file_removed_before_it_could_be_locked_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, flock, moments = tmp_path / "lock", fcntl.flock, iter(["removed", "replaced", "kept"])

    def act_first(descriptor: int, operation: int) -> None:
        moment = next(moments, "kept")
        if moment != "kept":
            lock.unlink()
        if moment == "replaced":
            lock.touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", act_first)
    with locked(tmp_path):
        assert read_json(lock) == json.loads(OURS)
        with pytest.raises(LockedError), locked(tmp_path):
            pass


def test_a_full_disk_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="No space left"), locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(DiskError, match="offers no locks") as caught, locked(tmp_path):
        pass
    assert caught.value.exit_code == 5


def test_the_nearest_folder_that_exists_says_whether_an_output_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").touch()
    for path in (tmp_path, tmp_path / "table", tmp_path / "new", tmp_path / "new/folder", Path("new")):
        require_writable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    asked = []
    monkeypatch.setattr(os, "access", lambda folder, _mode, **_flags: asked.append(folder))
    with pytest.raises(DiskError, match="is not yours to write into"):
        require_writable(tmp_path / "new/folder")
    assert asked == [tmp_path]


def test_of_eight_processes_one_wins_each_round(tmp_path: Path) -> None:
    """A dead process's lock lies there at the start of each round, as after a crash and eight restarts."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES, timeout=60)
    with context.Pool(PROCESSES, _share, (barrier,)) as pool:
        answers = pool.map(_contend, [tmp_path] * PROCESSES, chunksize=1)
    for answers_of_round in zip(*answers, strict=True):
        assert sorted(answers_of_round) == [0] + [4] * (PROCESSES - 1)


def test_two_processes_never_hold_a_folder_at_once(tmp_path: Path) -> None:
    """Locks are taken and given back in haste, so that files vanish between opening and locking them."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        held = pool.map(_hold_again_and_again, [tmp_path] * 4, chunksize=1)
    assert sum(held) >= 2
    assert list(tmp_path.iterdir()) == []


def _share(barrier: Any) -> None:
    globals()["_barrier"] = barrier


def _contend(folder: Path) -> list[int]:
    """Exit code of each round: 0 for the winner, who holds the folder until all others have tried."""
    barrier = globals()["_barrier"]
    answers = []
    for _ in range(ROUNDS):
        if barrier.wait() == 0:
            dead = subprocess.Popen([sys.executable, "-S", "-c", ""])
            dead.wait()
            (folder / "lock").write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname()}))
        barrier.wait()
        try:
            with locked(folder):
                barrier.wait()
            answers.append(0)
        except LockedError as error:
            barrier.wait()
            answers.append(int(error.exit_code))
    return answers


def _hold_again_and_again(folder: Path) -> int:
    held = 0
    for _ in range(HASTE):
        with suppress(LockedError), locked(folder):
            (folder / "witness").touch(exist_ok=False)
            (folder / "witness").unlink()
            held += 1
    return held
