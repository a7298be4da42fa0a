"""The benchmark of embedding runs, its plates are plates, and its numbers are those of the runs."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.embed import Bench, full, measure_jump, memory_goal, memory_table, quick, run, speed_cases
from benchmarks.embed_plates import JUMP, PlateSize, make_encoder, write_model, write_plate
from benchmarks.embed_speed import Case, Speed, measure_speed, reading_table, speed_table
from benchmarks.processes import Outcome
from benchmarks.timing import Timing
from cellvim.store import PlateReader, verify_plate

CPU = torch.device("cpu")
TINY = PlateSize(wells=2, sites=2, side_px=64, distinct=3)


def test_repeated_fields_are_whole_and_take_no_room(tmp_path: Path) -> None:
    plate = PlateReader(write_plate(tmp_path, "P", TINY))
    assert verify_plate(plate.path) == []
    assert len(plate.fields) == TINY.fields == 4
    pixels = [plate.read_field(key) for key in plate.fields]
    np.testing.assert_array_equal(pixels[3], pixels[0])
    assert not np.array_equal(pixels[1], pixels[0])
    shards = {file.stat().st_ino for file in plate.path.rglob("c/*/*/*") if file.is_file()}
    assert len(shards) == TINY.distinct


def test_the_plate_of_jump_has_as_many_tiles_as_embed_cuts(tmp_path: Path) -> None:
    assert JUMP.fields == 3456
    assert JUMP.tiles == 86_400
    size = PlateSize(wells=1, sites=1, side_px=300, distinct=1)
    _, fields_per_s = reading_table(write_plate(tmp_path, "P", size), [1], turns=3, seconds=0)
    assert fields_per_s > 0
    case = Case("nano", 4, tmp_path / "P.ome.zarr")
    assert measure_speed([case], CPU, readers=1, turns=3, seconds=0)[case].tiles == size.tiles == 4


def test_plates_and_models_are_the_same_whenever_they_are_made(tmp_path: Path) -> None:
    first, second = (PlateReader(write_plate(tmp_path / name, "P", TINY)) for name in "ab")
    assert first.fingerprint == second.fingerprint
    states = [make_encoder("nano").state_dict() for _ in range(2)]
    digests = {
        hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()
        for state in states
    }
    assert len(digests) == 1


@pytest.mark.long
def test_a_tiny_version_measures_every_case(tmp_path: Path) -> None:
    bench = quick(tmp_path, CPU)
    found = measure_speed(speed_cases(bench), CPU, readers=2, turns=3, seconds=0)
    (speed,) = found.values()
    assert isinstance(speed.both, Timing)
    assert speed.tiles_per_s == pytest.approx(1000 * speed.tiles / speed.both.median)
    # One of the four turns warmed up.
    assert len(speed.waiting) == 3
    assert all(0 < share < 1 for share in speed.waiting)
    (row,) = speed_table(found, CPU).rows
    assert row[:3] == ["nano", 4, 4]


def test_a_run_in_a_process_of_its_own_tells_time_and_memory(tmp_path: Path) -> None:
    plate = write_plate(tmp_path, "P", TINY)
    outcome = run(write_model(tmp_path, "nano"), tmp_path / "e.parquet", 1, {"device": "cpu"}, [plate])
    assert outcome.found["rows"] == 2
    assert 0 < outcome.found["seconds"] < outcome.wall_s
    assert outcome.peak_mib >= outcome.found["peak_mib"] > 100


def test_growing_memory_is_told() -> None:
    def outcomes(first: float, last: float) -> dict[int, Outcome]:
        return {
            count: Outcome({"rows": count, "seconds": 1.0}, 1.0, peak)
            for count, peak in ((1, first), (20, last))
        }

    assert memory_goal(outcomes(500, 540)).is_met
    assert not memory_goal(outcomes(500, 560)).is_met
    assert memory_table(outcomes(500, 540)).rows[1][2] == 540


def test_without_a_gpu_the_large_plate_is_extrapolated_and_says_so(tmp_path: Path) -> None:
    timing = Timing(median=1000.0, low=900.0, high=1100.0, turns=5)
    speeds = {
        Case("nano", batch, tmp_path): Speed(tiles, timing, timing) for batch, tiles in ((16, 20), (64, 40))
    }
    table, seconds = measure_jump(Bench(tmp_path, CPU), tmp_path, speeds, fields_per_s=34.56)
    assert seconds is None
    assert table.rows == [["nano", 86_400, 2160.0, 40.0, None, "extrapolated"]]
    assert "Not measured: no GPU" in table.notes[0]
    assert "alone would take 100 s" in table.notes[0]


def test_a_gpu_gets_larger_batches_of_every_model(tmp_path: Path) -> None:
    bench = full(tmp_path, torch.device("cuda"))
    assert bench.batches == (16, 64, 256)
    assert bench.speed.side_px == JUMP.side_px == 1080
