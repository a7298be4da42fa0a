"""Verify: every flipped bit is found, and metadata are held against OME-Zarr 0.5."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellvim.cli.looking import verify
from cellvim.config import IngestSettings
from cellvim.errors import CellvimError, SomeFailedError, UsageError
from cellvim.ingest import ingest_plates
from cellvim.ingest.checking.plates import verify_plates
from cellvim.store import FieldKey, PlateReader, verify_plate
from cellvim.store.place import LocalPlace
from cellvim.store.specification import check_metadata
from tests.ingest.readers.foreign_plates import Style, random_5d, styles, write_plate

FLIPS = 60


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two wells of two channels."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(5)
    for well in ("A01", "B02"):
        for channel in (1, 2):
            pixels = generator.integers(1, 500, (40, 50)).astype(np.uint16)
            tifffile.imwrite(folder / f"P_{well}_s1_w{channel}.tif", pixels)
    return folder


def ingest(images: Path, **changes: Any) -> PlateReader:
    settings = IngestSettings(**{"sources": (images,), "out": images.parent / "out"} | changes)
    (plate,) = ingest_plates(settings).plates
    return PlateReader(plate.path)


def test_whole_plates_are_intact_and_counted(images: Path) -> None:
    plate = ingest(images)
    for quick in (False, True):
        (result,) = verify_plates([plate.path], sources=images, quick=quick).values()
        assert (result.problems, result.notes) == ([], [])
        assert result.sources == 4
        assert result.fields == (0 if quick else 2)
    files = [path for path in plate.path.parent.rglob("*") if path.is_file()]
    # All but the list of checksums itself, and the record of the run.
    assert result.files == len(files) - 2
    assert result.lines(is_quick=True)[0].startswith(
        f"intact (sizes only): {len(files) - 2} files, 4 source files, "
    )


def test_every_flipped_bit_is_found(images: Path) -> None:
    plate = ingest(images)
    files = sorted(path for path in plate.path.parent.rglob("*") if path.is_file())
    generator = random.Random(7)  # noqa: S311 - no secrets here
    # Every file once, then at random by size, as decay would.
    chosen = files + generator.choices(files, [path.stat().st_size for path in files], k=FLIPS - len(files))
    assert verify_plate(plate.path) == []
    for path in chosen:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        assert verify_plate(plate.path), path
        path.write_bytes(whole)
    assert verify_plate(plate.path) == []


def test_quick_compares_sizes_alone(images: Path) -> None:
    plate = ingest(images)
    shard = plate.path / "A/01/1/0/c/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert verify_plate(plate.path, quick=True) == []
    shard.write_bytes(whole[:-1])
    assert verify_plate(plate.path, quick=True) == [
        "P.ome.zarr/A/01/1/0/c/0/0/0 has another size than what was written"
    ]
    (plate.path / "B/02/zarr.json").write_text("{}")
    assert "P.ome.zarr/B/02/zarr.json differs from what was written" in verify_plate(plate.path, quick=True)


def test_filled_planes_are_zeros_and_marked(images: Path) -> None:
    (images / "P_A01_s1_w2.tif").unlink()
    plate = ingest(images, on_missing="fill")
    assert plate.is_valid(FieldKey("A01", 1)).tolist() == [True, False]
    assert not plate.read_field(FieldKey("A01", 1))[1].any()
    assert verify_plate(plate.path) == []


@pytest.mark.parametrize("quick", [False, True])
def test_sources_are_compared_with_the_manifest(images: Path, quick: bool) -> None:
    plate = ingest(images)
    moved = images.rename(images.with_name("moved"))
    (moved / "P_A01_s1_w1.tif").unlink()
    changed = moved / "P_A01_s1_w2.tif"
    changed.write_bytes(changed.read_bytes() + b"\0")
    shutil.copy(changed, moved / "P_C03_s1_w1.tif")
    (result,) = verify_plates([plate.path], sources=moved, quick=quick).values()
    assert [line.partition(" has")[0] for line in result.problems] == [
        "source P_A01_s1_w1.tif is missing",
        "source P_A01_s1_w2.tif",
    ]
    assert result.notes == [f"1 images in {moved} are not in the manifest: P_C03_s1_w1.tif"]


def test_parts_of_files_are_compared_too(tmp_path: Path) -> None:
    source = write_plate(tmp_path / "S.zarr", {"A/1/0": random_5d(1, 2, 1)}, Style())
    plate = ingest(source)
    (result,) = verify_plates([plate.path], sources=source).values()
    assert (result.problems, result.sources) == ([], 2 + 3)
    chunk = source / "A/1/0/0/1.0.0.0"
    assert chunk.is_file()
    shutil.copy(source / "A/1/0/0/0.0.0.0", chunk)
    (result,) = verify_plates([plate.path], sources=source).values()
    assert result.problems == ["source A/1/0/0 part 1/0 has changed since the plate was made"]
    described = source / "A/1/.zattrs"
    described.write_text(described.read_text() + " ")
    (result,) = verify_plates([plate.path], sources=source).values()
    assert "source A/1/.zattrs has changed since the plate was made" in result.problems


def test_another_folder_than_the_ingested_one_is_no_reason_to_ingest_again(images: Path) -> None:
    plate = ingest(images)
    with pytest.raises(SomeFailedError) as caught:
        verify([str(plate.path)], sources=images.parent)
    assert caught.value.hint == "name the folder that was given to ingest"
    (plate.path.parent / "P.cellvim/quality.parquet").write_bytes(b"PAR1")
    with pytest.raises(SomeFailedError) as caught:
        verify([str(plate.path)], sources=images.parent)
    assert "ingest again" in caught.value.hint


def test_sources_of_a_foreign_plate_are_not_known(tmp_path: Path) -> None:
    source = write_plate(tmp_path / "S.zarr", {"A/1/0": random_5d(1, 2, 1)}, Style())
    with pytest.raises(UsageError, match="none of these plates has one"):
        verify_plates([source], sources=tmp_path)


@pytest.mark.parametrize("name", ["fractal", "0.3", "0.5", "0.5 blosc shards"])
def test_every_chunk_of_a_foreign_plate_is_read(name: str, tmp_path: Path) -> None:
    style = styles()[name]
    fields = {"A/1/0": random_5d(1, 2, 1), "B/1/0": random_5d(1, 2, 1)}
    folder = write_plate(tmp_path / "S.zarr", fields, style, labels=("DNA", "ER"))
    (result,) = verify_plates([tmp_path]).values()
    assert [line for line in result.problems if "dimension_names" not in line] == []
    assert result.notes[0].startswith("there is no PLATE.cellvim beside it: no checksums to compare with")
    assert result.fields == 2
    assert result.bytes_read == 2 * 2 * 40 * 50 * 2 * (1.25 if style.has_pyramid else 1)
    names = {"zarr.json", ".zarray", ".zattrs", ".zgroup"}
    chunks = sorted(path for path in (folder / "B").rglob("*") if path.is_file() and path.name not in names)
    chunks[-1].write_bytes(chunks[-1].read_bytes()[:-300])
    (result,) = verify_plates([folder]).values()
    assert any(line.startswith("B/1/0/") for line in result.problems)


Change = Callable[[dict[str, Any]], object]


def at(path: str, change: Change) -> tuple[str, Change]:
    return path, change


def image(ome: dict[str, Any]) -> dict[str, Any]:
    return ome["multiscales"][0]


BROKEN: list[tuple[str, Change, str]] = [
    ("", lambda ome: ome.update(version="0.4"), "plate: ome.version is '0.4', expected '0.5'"),
    ("", lambda ome: ome.pop("plate"), "plate: has no `plate` metadata"),
    ("", lambda ome: ome["plate"].update(version="0.4"), "plate: plate.version is '0.4', expected '0.5'"),
    ("", lambda ome: ome["plate"].update(name=7), "plate: plate.name is 7, expected a string"),
    (
        "",
        lambda ome: ome["plate"].update(field_count=0),
        "plate.field_count is 0, expected a positive whole number",
    ),
    ("", lambda ome: ome["plate"].update(rows=[]), "plate.rows names none"),
    ("", lambda ome: ome["plate"]["rows"].append({"name": "A"}), "plate.rows names 'A' twice"),
    (
        "",
        lambda ome: ome["plate"]["rows"].append({"name": "A-1"}),
        "names 'A-1', expected letters and digits alone",
    ),
    (
        "",
        lambda ome: ome["plate"]["columns"].append({}),
        "plate.columns names None, expected letters and digits",
    ),
    ("", lambda ome: ome["plate"]["acquisitions"].append({"id": 0}), "two acquisitions have the id 0"),
    (
        "",
        lambda ome: ome["plate"]["acquisitions"].append({"id": -1}),
        "has the id -1, expected a whole number from 0",
    ),
    (
        "",
        lambda ome: ome["plate"]["acquisitions"][0].update(starttime="now"),
        "has starttime 'now', expected a whole",
    ),
    ("", lambda ome: ome["plate"]["acquisitions"][0].update(maximumfieldcount=0), "has maximumfieldcount 0"),
    (
        "",
        lambda ome: ome["plate"]["acquisitions"][0].update(name=3),
        "an acquisition has name 3, expected a string",
    ),
    ("", lambda ome: ome["plate"].update(wells=[]), "plate.wells names none"),
    (
        "",
        lambda ome: ome["plate"]["wells"].append(ome["plate"]["wells"][0]),
        "plate.wells names 'A/01' twice",
    ),
    (
        "",
        lambda ome: ome["plate"]["wells"][0].update(path="A/01/1"),
        "the path 'A/01/1', expected ROW/COLUMN",
    ),
    ("", lambda ome: ome["plate"]["wells"][0].update(path="Z/01"), "well Z/01 lies in no row and column"),
    (
        "",
        lambda ome: ome["plate"]["wells"][0].update(rowIndex=1),
        "has rowIndex and columnIndex (1, 0), expected (0, 0)",
    ),
    ("", lambda ome: ome["plate"]["wells"][1].pop("columnIndex"), "columnIndex (1, None), expected (1, 1)"),
    ("A/01", lambda ome: ome.update(version="0.4"), "A/01: ome.version is '0.4', the plate's is '0.5'"),
    ("A/01", lambda ome: ome["well"].update(images=[]), "A/01: well.images names none"),
    (
        "A/01",
        lambda ome: ome["well"]["images"][0].update(path="0_FOV_1"),
        "names '0_FOV_1', expected letters and digits",
    ),
    ("A/01", lambda ome: ome["well"]["images"].append({"path": "1"}), "well.images names '1' twice"),
    (
        "A/01",
        lambda ome: ome["well"]["images"][0].update(acquisition=5),
        "of acquisition 5, which the plate does not name",
    ),
    ("A/01/1", lambda ome: ome.pop("multiscales"), "A/01/1: has no `multiscales` metadata"),
    ("A/01/1", lambda ome: image(ome)["axes"].pop(), "array 0 has 3 dimensions, 2 axes are named"),
    ("A/01/1", lambda ome: image(ome)["axes"].reverse(), "expected time, channel, space in this order"),
    ("A/01/1", lambda ome: image(ome)["axes"][0].update(name="x"), "expected a name of its own for each"),
    (
        "A/01/1",
        lambda ome: image(ome)["axes"][1].update(type="time"),
        "expected 2 or 3 of space and at most one each",
    ),
    (
        "A/01/1",
        lambda ome: image(ome)["axes"][1].update(name="row"),
        "has the dimension_names ['c', 'y', 'x'], the axes are",
    ),
    ("A/01/1", lambda ome: image(ome).update(axes="cyx"), "axes are 'cyx', expected 2 to 5 objects"),
    (
        "A/01/1",
        lambda ome: image(ome)["datasets"].append({}),
        "expected objects with a path inside of the field",
    ),
    (
        "A/01/1",
        lambda ome: image(ome)["datasets"][0].update(path="../2/0"),
        "expected objects with a path inside",
    ),
    (
        "A/01/1",
        lambda ome: image(ome)["datasets"][0].update(path="7"),
        "array 7 has no metadata: No such file",
    ),
    (
        "A/01/1",
        lambda ome: image(ome)["datasets"][0].update(coordinateTransformations=[]),
        "expected one scale",
    ),
    (
        "A/01/1",
        lambda ome: image(ome)["datasets"][0]["coordinateTransformations"][0].update(scale=[1, 1]),
        "dataset '0' has the scale [1, 1], expected 3 numbers",
    ),
    (
        "A/01/1",
        lambda ome: image(ome).update(coordinateTransformations=[{"type": "rotation"}]),
        "the multiscale has the transformations ['rotation'], expected one scale",
    ),
    ("A/01/1", lambda ome: ome["omero"]["channels"].pop(), "omero names 1 channels, the array has 2"),
    (
        "A/01/1",
        lambda ome: ome["omero"]["channels"][0].update(color="blue"),
        "has the color 'blue', expected six",
    ),
    ("A/01/1", lambda ome: ome["omero"]["channels"][1]["window"].pop("max"), "channel 1 has the window"),
]


@pytest.mark.parametrize(("group", "change", "expected"), BROKEN, ids=[case[2][:40] for case in BROKEN])
def test_each_sentence_of_the_specification_is_checked(
    group: str, change: Change, expected: str, images: Path
) -> None:
    plate = ingest(images)
    assert check_metadata(LocalPlace(plate.path)).problems == ()
    path = plate.path / group / "zarr.json"
    content = json.loads(path.read_text())
    change(content["attributes"]["ome"])
    path.write_text(json.dumps(content))
    problems = check_metadata(LocalPlace(plate.path)).problems
    assert any(expected in line for line in problems), problems


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [[]], [None], True, 1e400, [{}], {"path": []}])
def test_metadata_of_any_kind_give_problems_not_errors(value: Any, images: Path) -> None:
    plate = ingest(images)
    for group in ("", "A", "A/01", "A/01/1", "A/01/1/0"):
        path = plate.path / group / "zarr.json"
        whole = path.read_text()
        for keys in places(json.loads(whole)):
            content = json.loads(whole)
            owner = content
            for key in keys[:-1]:
                owner = owner[key]
            owner[keys[-1]] = value
            path.write_text(json.dumps(content))
            assert isinstance(check_metadata(LocalPlace(plate.path)).problems, tuple)
        path.write_text(whole)


def places(content: Any) -> list[tuple[Any, ...]]:
    """The way to every value inside of some JSON."""
    pairs = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [place for key, value in pairs for place in [(key,), *((key, *rest) for rest in places(value))]]


def test_a_lost_companion_is_said(images: Path) -> None:
    plate = ingest(images)
    shutil.rmtree(plate.path.with_name("P.cellvim"))
    (result,) = verify_plates([plate.path]).values()
    assert result.problems == []
    assert "no checksums" in result.notes[0]
    (plate.path / "A/01/1/0/c/0/0/0").unlink()
    (result,) = verify_plates([plate.path]).values()
    assert "lacks 1 of 1 chunks" in result.problems[0]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"plate": 1}', b'{"plate": {"../x": "0"}, "companion": {}}']
)
def test_damaged_checksums_are_a_problem(content: bytes, images: Path) -> None:
    plate = ingest(images)
    (plate.path.with_name("P.cellvim") / "checksums.json").write_bytes(content)
    assert len(verify_plate(plate.path)) == 1


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CellvimError, match="no OME-Zarr plate"):
        verify_plates([tmp_path])


def test_the_command_says_intact_or_fails(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plate = ingest(images)
    verify([plate.path], sources=images)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(plate.path)
    assert lines[1].startswith("  intact: ")
    assert "2 fields, 4 source files" in lines[1]
    (plate.path / "A/01/zarr.json").unlink()
    with pytest.raises(SomeFailedError, match="1 of 1 plates have problems"):
        verify([plate.path.parent], as_json=True)
    (result,) = json.loads(capsys.readouterr().out).values()
    assert result["is_intact"] is False
    assert result["problems"] == ["P.ome.zarr/A/01/zarr.json is missing"]


def test_a_plate_that_is_not_finished_is_called_so(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plate = ingest(images)
    (plate.path / "zarr.json").unlink()
    (plate.companion.path / "checksums.json").unlink()
    with pytest.raises(SomeFailedError, match="1 of 1 plates") as error:
        verify([plate.path])
    assert "  P.ome.zarr is not finished" in capsys.readouterr().out
    assert "what is unfinished is resumed" in error.value.hint


def test_a_lost_record_of_the_run_is_said(images: Path) -> None:
    plate = ingest(images)
    (plate.path.with_name("P.cellvim") / "run.json").unlink()
    (result,) = verify_plates([plate.path]).values()
    assert result.problems == []
    assert "P.cellvim/run.json is not there" in result.notes[0]
