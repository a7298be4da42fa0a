"""The benchmark of ingest runs, its plate is one that every reader knows, and its numbers are those of the runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks.ingest import memory_goals, speed_goals
from benchmarks.ingest_plate import STAINS, PlateSize, file_name, make_plate, parse_name, repeat_plate
from benchmarks.ingest_turns import FRACTAL, OURS, OURS_THERE, WAYS, WRITERS, Sample
from benchmarks.processes import CommandFailedError, run_watched
from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.store import PlateReader

ROOT = Path(__file__).parents[2]
TINY = PlateSize(wells=2, fields=2, side_px=64)


def test_the_plate_is_an_operettas(tmp_path: Path) -> None:
    images = make_plate(tmp_path / "plate", TINY, tmp_path / "nothing")
    ingest_plates(IngestSettings(sources=(images,), out=tmp_path / "out"))
    plate = PlateReader(tmp_path / "out" / "Ingest.ome.zarr")
    assert (plate.channels, len(plate.fields), plate.pixel_size_um) == (STAINS, TINY.files // 5, 1.19595)
    for field in plate.fields:
        column = int(field.well[1:])
        names = [file_name(ord(field.well[0]) - 64, column, field.site, channel) for channel in range(1, 6)]
        planes = np.stack([tifffile.imread(images / name) for name in names])
        np.testing.assert_array_equal(plate.read_field(field), planes)


def test_the_plate_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    first, second = (make_plate(tmp_path / name, TINY, tmp_path / "nothing") for name in "ab")
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (first, second)]
    assert contents[0] == contents[1]
    assert len(set(contents[0].values())) == TINY.files + 1


def test_a_larger_plate_has_other_wells_and_the_same_files(tmp_path: Path) -> None:
    images = make_plate(tmp_path / "plate", TINY, tmp_path / "nothing")
    larger = repeat_plate(images, tmp_path / "larger", 4)
    names = [parse_name(path.name) for path in larger.glob("*.tiff")]
    assert len(set(names)) == 4 * TINY.files
    assert {path.stat().st_ino for path in larger.glob("*.tiff")} == {
        path.stat().st_ino for path in images.glob("*.tiff")
    }


def test_memory_of_children_counts(tmp_path: Path) -> None:
    child = "import time; held = bytearray(100 << 20); time.sleep(0.3)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('{{}}')"
    assert run_watched([sys.executable, "-c", code], cwd=tmp_path).peak_mib > 100
    assert run_watched([sys.executable, "-c", "print('{}')"], cwd=tmp_path).peak_mib < 100


def test_a_failing_command_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="no such peer"):
        run_watched([sys.executable, "-c", "raise SystemExit('no such peer')"], cwd=tmp_path)


def test_goals_are_met_by_the_numbers_alone() -> None:
    def samples(own: float) -> dict[tuple[object, int], Sample]:
        seconds = dict.fromkeys(WAYS, 10.0) | {FRACTAL: 30.0, OURS: own, OURS_THERE: own}
        return {
            (way, workers): Sample([value / workers]) for way, value in seconds.items() for workers in (1, 2)
        }

    assert all(goal.is_met for goal in speed_goals(samples(10.0)))
    slow = {goal.claim: goal.is_met for goal in speed_goals(samples(10.1))}
    assert sorted(slow.values()) == [False] * 6 + [True]
    absent = samples(10.0) | {(way, 1): Sample(failure="not installed") for way in (*WRITERS, FRACTAL)}
    assert [goal.found for goal in speed_goals(absent)].count(None) == 3
    assert [goal.is_met for goal in memory_goals({1: 400.0, 4: 501.0})] == [True, False, False]


@pytest.mark.long
def test_a_quick_run_names_what_is_not_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.ingest", "--quick", "--peers", tmp_path, "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (speed, memory, crops) = json.loads((tmp_path / "ingest.json").read_text())["tables"]
    found = {row[0]: row[2] for row in speed["rows"]}
    for way in WAYS:
        assert (found[way.label] == "not installed") == way.is_peers_python, way
        assert not found[way.label].startswith("failed")
    assert [row[0] for row in memory["rows"]] == [1, 4]
    assert len(crops["rows"]) == 5
    assert "| not measured |" in done.stdout
