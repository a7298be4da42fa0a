"""Plates are what OME-Zarr 0.5 says, in the eyes of seven readers that are not ours.

Each judge runs once, as one process, over every real plate, an odd one, and broken copies of the odd one: a judge that
takes a broken plate for a whole one judges nothing.
"""

import hashlib
import json
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.store import PlateReader

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
PYTHON = ROOT / ".venv-judges" / "bin" / "python"
JUDGES = ("ome-zarr-models", "ngff-zarr", "iohub", "zarr", "ome-zarr", "napari-ome-zarr", "tensorstore")
ODD, MISSPELT, SWAPPED = "odd", "misspelt", "swapped"

Verdict = dict[str, Any]

pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="needs .venv-judges, which `make judges` makes")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Path]:
    """Every real plate there is, an odd one, and two broken copies of it."""
    folder = tmp_path_factory.mktemp("judged")
    odd = ingest_odd_plate(folder)
    real: dict[str, Path] = request.getfixturevalue("real_plates") if SHARED.is_dir() else {}
    return {**real, ODD: odd, MISSPELT: misspell(odd, folder / "m"), SWAPPED: swap(odd, folder / "s")}


def ingest_odd_plate(folder: Path) -> Path:
    """1536 wells, eight channels, sides that no chunk divides, sites that do not begin at 1."""
    images = folder / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for well, site, channel in product(("A01", "Z09", "AF48"), (3, 17), "abcdefgh"):
        pixels = generator.integers(1, 65535, (301, 517), dtype=np.uint16)
        tifffile.imwrite(images / f"{well}_{site}_{channel}.tif", pixels)
    out = folder / "out"
    ingest_plates(
        IngestSettings(sources=(images,), out=out, pattern="{well}_{field}_{channel}.tif", plate="Odd")
    )
    return out / "Odd.ome.zarr"


def misspell(plate: Path, folder: Path) -> Path:
    """Copy a plate, one key of one field's metadata misspelt."""
    broken = copy(plate, folder)
    metadata = broken / "A" / "01" / "3" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"multiscales"', '"multiscale"'))
    return broken


def swap(plate: Path, folder: Path) -> Path:
    """Copy a plate, the pixels of two fields exchanged: valid to the letter, and wrong."""
    broken = copy(plate, folder)
    shards = [broken / "A" / "01" / site / "0" / "c" / "0" / "0" / "0" for site in ("3", "17")]
    shards[0].rename(folder / "shard")
    shards[1].rename(shards[0])
    (folder / "shard").rename(shards[1])
    return broken


def copy(plate: Path, folder: Path) -> Path:
    shutil.copytree(plate, folder / plate.name)
    shutil.copytree(companion_of(plate), folder / companion_of(plate).name)
    return folder / plate.name


def companion_of(plate: Path) -> Path:
    return plate.with_name(plate.name.replace(".ome.zarr", ".cellvim"))


@pytest.fixture(scope="module")
def verdicts(
    plates: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Verdict]]:
    """Judge to plate to what it saw."""
    jobs = tmp_path_factory.mktemp("jobs") / "jobs.json"
    content = [{"plate": str(path), "sources": vendor_files(path, plates[ODD])} for path in plates.values()]
    jobs.write_text(json.dumps(content))
    found = {}
    for judge in JUDGES:
        command = [PYTHON, Path(__file__).with_name("judge.py"), judge, jobs]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found[judge] = dict(zip(plates, lines, strict=True))
    return found


def vendor_files(plate: Path, odd: Path) -> dict[str, list[list[str]]]:
    """Field to the images of each of its channels: where the files lie that the manifest names."""
    reader = PlateReader(plate)
    images = [
        path.as_posix() for folder in (odd.parents[1] / "images", SHARED) for path in folder.rglob("*.*")
    ]
    manifest = pl.read_parquet(companion_of(plate) / "manifest.parquet")
    found: dict[str, list[list[str]]] = {}
    for field in reader.fields:
        rows = manifest.filter(Metadata_Well=field.well, Metadata_Site=field.site)
        found[field.group] = [
            [locate(name, images) for name in rows.filter(channel=channel)["name"]]
            for channel in reader.channels
        ]
    return found


def locate(name: str, images: list[str]) -> str:
    (path,) = (path for path in images if path.endswith(f"/{name}"))
    return path


def sound(verdicts: dict[str, dict[str, Verdict]], judge: str) -> dict[str, Verdict]:
    """Verdicts on the plates that nobody broke."""
    return {name: seen for name, seen in verdicts[judge].items() if name not in {MISSPELT, SWAPPED}}


def checksum(pixels: np.ndarray) -> str:
    return hashlib.sha256(f"{pixels.dtype} {pixels.squeeze().shape}".encode() + pixels.tobytes()).hexdigest()


def picture_of(plate: PlateReader) -> np.ndarray:
    """The plate as viewers put it together: of every well the site that the first well has first, or black.

    That is how both ome-zarr-py and napari-ome-zarr do it; other fields are seen one by one.
    """
    site = min(plate.fields, key=lambda field: (field.group.rpartition("/")[0], field.site)).site
    rows = sorted({field.group.split("/")[0] for field in plate.fields}, key=lambda row: (len(row), row))
    columns = sorted({field.group.split("/")[1] for field in plate.fields})
    height, width = plate.shape(plate.fields[0])
    shape = (len(plate.channels), height * len(rows), width * len(columns))
    picture = np.zeros(shape, dtype=plate.dtype)
    for field in plate.fields:
        if field.site == site:
            row, column, _ = field.group.split("/")
            top, left = rows.index(row) * height, columns.index(column) * width
            picture[:, top : top + height, left : left + width] = plate.read_field(field)
    return picture


def test_every_real_plate_is_judged(plates: dict[str, Path], shared: Path) -> None:  # noqa: ARG001 - may skip
    assert len(plates) == 8 + 3


@pytest.mark.parametrize("judge", JUDGES)
def test_no_judge_refuses_a_sound_plate(judge: str, verdicts: dict[str, dict[str, Verdict]]) -> None:
    refused = {name: seen["refused"] for name, seen in sound(verdicts, judge).items() if "refused" in seen}
    assert refused == {}


def test_the_validators_look_at_every_group(
    plates: dict[str, Path], verdicts: dict[str, dict[str, Verdict]]
) -> None:
    assert {seen["kind"] for seen in sound(verdicts, "ome-zarr-models").values()} == {"HCS"}
    for name, seen in sound(verdicts, "ngff-zarr").items():
        plate = PlateReader(plates[name])
        assert seen["groups"] == 1 + len(plate.wells) + len(plate.fields)


@pytest.mark.parametrize("judge", ["iohub", "zarr", "ome-zarr", "napari-ome-zarr"])
def test_every_field_reads_the_same(
    judge: str, plates: dict[str, Path], verdicts: dict[str, dict[str, Verdict]]
) -> None:
    for name, seen in sound(verdicts, judge).items():
        plate = PlateReader(plates[name])
        assert seen["fields"] == {field.group: checksum(plate.read_field(field)) for field in plate.fields}


def test_every_pixel_is_the_vendors(plates: dict[str, Path], verdicts: dict[str, dict[str, Verdict]]) -> None:
    for name, seen in sound(verdicts, "tensorstore").items():
        groups = sorted(field.group for field in PlateReader(plates[name]).fields)
        assert seen == {"compared": groups, "different": []}, name


@pytest.mark.parametrize("judge", ["ome-zarr", "napari-ome-zarr"])
def test_viewers_show_the_plate_as_one_picture(
    judge: str, plates: dict[str, Path], verdicts: dict[str, dict[str, Verdict]]
) -> None:
    for name, seen in sound(verdicts, judge).items():
        plate = PlateReader(plates[name])
        assert seen["picture"] == checksum(picture_of(plate)), name
        percentiles = [plate.intensity.percentiles[channel] for channel in plate.channels]
        assert seen["windows"] == [[values["1"], values["99.9"]] for values in percentiles]


@pytest.mark.parametrize("judge", ["iohub", "ome-zarr", "napari-ome-zarr"])
def test_channels_are_told_by_name(
    judge: str, plates: dict[str, Path], verdicts: dict[str, dict[str, Verdict]]
) -> None:
    for name, seen in sound(verdicts, judge).items():
        assert seen["channels"] == list(PlateReader(plates[name]).channels)


def test_pixel_sizes_are_told(plates: dict[str, Path], verdicts: dict[str, dict[str, Verdict]]) -> None:
    for name, seen in sound(verdicts, "iohub").items():
        size = PlateReader(plates[name]).pixel_size_um or 1.0
        assert set(map(tuple, seen["scales"].values())) == {(1.0, size, size)}
        assert verdicts["napari-ome-zarr"][name]["scale"] == [size, size]


def test_ome_zarr_info_names_the_plate_and_its_shape(
    plates: dict[str, Path], verdicts: dict[str, dict[str, Verdict]]
) -> None:
    for name, seen in sound(verdicts, "ome-zarr").items():
        assert "- Plate" in seen["info"]
        assert str(picture_of(PlateReader(plates[name])).shape) in seen["info"]


@pytest.mark.parametrize(
    "judge", ["ome-zarr-models", "ngff-zarr", "iohub", "zarr", "ome-zarr", "napari-ome-zarr"]
)
def test_misspelt_metadata_are_not_passed_over(judge: str, verdicts: dict[str, dict[str, Verdict]]) -> None:
    assert verdicts[judge][MISSPELT] != verdicts[judge][ODD]


@pytest.mark.parametrize("judge", ["iohub", "zarr", "ome-zarr", "napari-ome-zarr", "tensorstore"])
def test_exchanged_pixels_are_not_passed_over(judge: str, verdicts: dict[str, dict[str, Verdict]]) -> None:
    whole, swapped = verdicts[judge][ODD], verdicts[judge][SWAPPED]
    if judge == "tensorstore":
        assert swapped["different"] == ["A/01/3", "A/01/17"]
    else:
        assert swapped["fields"]["A/01/3"] == whole["fields"]["A/01/17"] != whole["fields"]["A/01/3"]
