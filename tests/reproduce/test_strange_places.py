"""Places in records that no file has, that never end, or that may not be looked at."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cellvim.config import EvaluateSettings
from cellvim.errors import InputError
from cellvim.provenance import Run, RunRecord, follow, read_record
from cellvim.provenance.chain import follow_reads
from cellvim.provenance.telling import told
from cellvim.reproduce import make_plan
from tests.reproduce.test_records import artifact, written


def reading(path: str, kind: str = "file") -> dict[str, Any]:
    return {"cwd": "/", "reads": [artifact("x", "b", path) | {"kind": kind}]}


@pytest.mark.parametrize("kind", ["file", "plate", "images", "label images"])
@pytest.mark.parametrize("path", ["/", "", "a" * 300 + "/b.ome.zarr", "a" * 5000, "\udcff.parquet"])
def test_a_place_that_cannot_be_is_missing_or_changed(path: str, kind: str, tmp_path: Path) -> None:
    plan = make_plan(written(tmp_path / "run.json", **reading(path, kind)))
    assert plan.steps[0].inputs[0].finding.state in ("missing", "changed", "not checked")


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        changes = reading(path) | {"outputs": [artifact("y", "c", path)]}
        finding = make_plan(written(tmp_path / "run.json", **changes)).steps[0].inputs[0].finding
        assert finding.state == "changed"
        assert "is no file" in finding.detail


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_characters_that_no_name_has_are_refused(text: str, tmp_path: Path) -> None:
    for changes in (reading(text), {"cwd": text}, {"command": ["cellvim", "evaluate", text]}):
        with pytest.raises(InputError, match="can be in no name"):
            read_record(written(tmp_path / "run.json", **changes))


def test_a_stranger_s_record_beside_a_table_never_stops_an_evaluation(tmp_path: Path) -> None:
    """Whatever its settings and places are: they are only retold."""
    changes = reading("a" * 300) | {"stage": "ingest", "command": ["x"], "settings": {"sources": 3, "z": [1]}}
    written(tmp_path / "table.run.json", outputs=[artifact("t", "d", "table")], **changes)
    here = written(tmp_path / "run.json", reads=[artifact("t", "d", str(tmp_path / "table.parquet"))])
    assert [
        step["stage"] for step in told(follow_reads(read_record(here), tmp_path / "out"), {})["steps"]
    ] == [
        "ingest",
        "evaluate",
    ]


def test_a_record_that_may_not_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a colleague whose plates lie in a closed home."""
    closed = written(tmp_path / "table.run.json", outputs=[artifact("t", "d", "table")])
    here = written(tmp_path / "run.json", reads=[artifact("t", "d", str(tmp_path / "table.parquet"))])
    assert len(follow(here)) == 2
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert len(follow(here)) == 1


def test_a_folder_whose_name_is_no_text_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    monkeypatch.chdir(folder)
    run = Run("evaluate", EvaluateSettings(tables=(Path("t"),), out=Path("o")))
    run.write(Path("run.json"))
    assert read_record(Path("run.json")).cwd == str(folder)
    assert RunRecord.model_validate(run.as_dict()).cwd == str(folder)
    assert json.loads(Path("run.json").read_bytes())["cwd"] == str(folder)
