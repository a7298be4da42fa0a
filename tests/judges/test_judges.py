"""Plates are what OME-Zarr 0.5 says, in the eyes of ome-zarr-models, ngff-zarr and iohub."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cellvim.store import PlateReader

MakePlate = Callable[..., PlateReader]

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-judges" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="needs .venv-judges, which `make judges` makes")


def judge(*plates: Path) -> list[dict[str, object]]:
    command = [PYTHON, Path(__file__).with_name("judge.py"), *plates]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_real_plate_passes_and_reads_the_same(real_plates: dict[str, Path]) -> None:
    verdicts = judge(*real_plates.values())
    assert len(verdicts) == len(real_plates) == 8
    for verdict, path in zip(verdicts, real_plates.values(), strict=True):
        plate = PlateReader(path)
        assert verdict["channels"] == list(plate.channels)
        assert verdict["groups"] == 1 + len(plate.wells) + len(plate.fields)
        size = plate.pixel_size_um or 1.0
        assert verdict["positions"] == {
            field.group: {
                "scale": [1.0, size, size],
                "sha256": hashlib.sha256(plate.read_field(field).tobytes()).hexdigest(),
            }
            for field in plate.fields
        }


def test_a_plate_of_1536_wells_and_odd_sizes_passes(make_plate: MakePlate) -> None:
    plate = make_plate("Odd", wells=("A01", "Z09", "AF48"), side_px=301, channels=tuple("abcdefgh"))
    (verdict,) = judge(plate.path)
    assert set(verdict["positions"]) == {field.group for field in plate.fields}


def test_the_judges_do_refuse(make_plate: MakePlate) -> None:
    plate = make_plate("Bad")
    metadata = plate.path / "A" / "01" / "1" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"multiscales"', '"multiscale"'))
    command = [PYTHON, Path(__file__).with_name("judge.py"), plate.path]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
