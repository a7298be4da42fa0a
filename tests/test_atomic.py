"""Files exist whole or not at all, and only one writer holds a folder."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cellvim.atomic import locked, read_json, remove_leftovers, write_atomically, write_json, write_text
from cellvim.errors import LockedError


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


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    (tmp_path / "lock").write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname()}))
    with locked(tmp_path):
        assert read_json(tmp_path / "lock")["pid"] == os.getpid()


def test_lock_of_another_machine_is_respected_and_explained(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(LockedError, match="process 1 on elsewhere") as caught, locked(tmp_path):
        pass
    assert str(tmp_path / "lock") in caught.value.hint
