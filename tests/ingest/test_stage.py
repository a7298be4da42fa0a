"""The stage as a whole: what it accepts, refuses, resumes and leaves behind."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.atomic import locked
from cellvim.config import IngestSettings
from cellvim.errors import (
    DiskError,
    InputError,
    LockedError,
    NotFoundError,
    OutputExistsError,
    UsageError,
)
from cellvim.ingest import ingest_plates
from cellvim.store import FieldKey, PlateReader, PlateWriter, find_plates, verify_plate

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]
HashTree = Callable[[Path], dict[str, bytes]]


def test_one_and_several_workers_write_the_same_bytes(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path, hash_tree: HashTree
) -> None:
    write_images(wells=tuple(f"A{column:02d}" for column in range(1, 7)), shape=(300, 300))
    trees = []
    for workers in (1, 4):
        out = tmp_path / f"out{workers}"
        ingest_plates(make_settings(out=out, workers=workers))
        trees.append(hash_tree(out))
    assert trees[0] == trees[1]


def test_the_same_command_again_changes_nothing(
    write_images: WriteImages, make_settings: MakeSettings, hash_tree: HashTree
) -> None:
    write_images()
    first = ingest_plates(make_settings()).plates[0]
    tree = hash_tree(make_settings().out)
    second = ingest_plates(make_settings()).plates[0]
    assert (first.was_resumed, second.was_resumed) == (False, True)
    assert hash_tree(make_settings().out) == tree
    run = json.loads((make_settings().out / "P.cellvim" / "run.json").read_text())
    assert run["counts"] == {"wells": 2, "fields": 4, "skipped": 0, "failed": 0}


def test_a_finished_plate_is_not_changed_by_other_files(
    write_images: WriteImages, make_settings: MakeSettings, hash_tree: HashTree
) -> None:
    folder = write_images()
    ingest_plates(make_settings())
    tree = hash_tree(make_settings().out)
    tifffile.imwrite(folder / "P_A01_s1_w1.tif", np.full((40, 50), 7, np.uint16))
    with pytest.raises(OutputExistsError, match="made from other files"):
        ingest_plates(make_settings())
    for path in folder.glob("*A01_s1*"):
        path.unlink()
    with pytest.raises(OutputExistsError, match="made from more files"):
        ingest_plates(make_settings())
    with pytest.raises(OutputExistsError, match="made with channels"):
        ingest_plates(make_settings(channels="DNA,ER"))
    assert hash_tree(make_settings().out) == tree
    (result,) = ingest_plates(make_settings(overwrite=True)).plates
    assert result.fields == 3
    assert verify_plate(result.path) == []


def test_an_unfinished_plate_takes_the_files_as_they_are_now(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path, hash_tree: HashTree
) -> None:
    folder = write_images()
    ingest_plates(make_settings())
    (make_settings().out / "P.ome.zarr" / "zarr.json").unlink()
    for path in folder.glob("*A01_s1*"):
        path.unlink()
    tifffile.imwrite(folder / "P_A01_s2_w1.tif", np.full((40, 50), 7, np.uint16))
    ingest_plates(make_settings())
    fresh = tmp_path / "fresh"
    ingest_plates(make_settings(out=fresh))
    assert hash_tree(make_settings().out) == hash_tree(fresh)


def test_a_lost_field_is_written_again(
    write_images: WriteImages, make_settings: MakeSettings, hash_tree: HashTree
) -> None:
    write_images()
    (result,) = ingest_plates(make_settings()).plates
    tree = hash_tree(make_settings().out)
    (result.path / "A/01/1/0/c/0/0/0").unlink()
    ingest_plates(make_settings())
    assert hash_tree(make_settings().out) == tree


def test_a_changed_histogram_is_made_again_and_never_blessed(
    write_images: WriteImages, make_settings: MakeSettings, hash_tree: HashTree
) -> None:
    write_images()
    (result,) = ingest_plates(make_settings()).plates
    tree = hash_tree(make_settings().out)
    fields = make_settings().out / "P.cellvim" / "fields"
    (fields / "A01-1.histogram").write_bytes((fields / "A01-2.histogram").read_bytes())
    (fields / "B02-1.histogram").write_bytes(b"no histogram")
    assert verify_plate(result.path) == [
        f"P.cellvim/fields/{name}.histogram differs from what was written" for name in ("A01-1", "B02-1")
    ]
    ingest_plates(make_settings())
    assert hash_tree(make_settings().out) == tree


def test_files_that_systems_leave_anywhere_do_no_harm(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:
    write_images()
    (result,) = ingest_plates(make_settings()).plates
    stray = make_settings().out / "P.cellvim" / "fields"
    for name in (".DS_Store", "._A01-1.json", "Thumbs.db"):
        (stray / name).write_text("")
    ingest_plates(make_settings())
    (stray / ".DS_Store").write_text("changed")
    assert verify_plate(result.path) == []


def test_a_changed_record_is_never_blessed(write_images: WriteImages, make_settings: MakeSettings) -> None:
    write_images()
    (result,) = ingest_plates(make_settings()).plates
    path = make_settings().out / "P.cellvim" / "fields" / "A01-1.json"
    path.write_text(path.read_text().replace("true", "false"))
    assert verify_plate(result.path) == ["P.cellvim/fields/A01-1.json differs from what was written"]
    with pytest.raises(OutputExistsError, match="damaged or lost record of field A01/1"):
        ingest_plates(make_settings())
    assert verify_plate(result.path) == ["P.cellvim/fields/A01-1.json differs from what was written"]


def test_a_plate_map_of_an_earlier_run_does_not_stay(
    write_images: WriteImages,
    make_settings: MakeSettings,
    tmp_path: Path,
    hash_tree: HashTree,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_images()
    (tmp_path / "map.csv").write_text("well,perturbation\nA1,x\nB2,y\n")
    ingest_plates(make_settings())
    tree = hash_tree(make_settings().out)
    ingest_plates(make_settings(platemap=tmp_path / "map.csv"))
    assert hash_tree(make_settings().out) != tree
    ingest_plates(make_settings())
    assert hash_tree(make_settings().out) == tree
    assert "plate map of an earlier run is removed" in caplog.text


def test_several_plates_and_several_sources(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    write_images("P")
    write_images("Q", channels=3)
    summary = ingest_plates(make_settings())
    assert [(plate.name, len(plate.channels)) for plate in summary.plates] == [("P", 2), ("Q", 3)]
    assert [path.name for path in find_plates([make_settings().out])] == ["P.ome.zarr", "Q.ome.zarr"]
    assert json.loads(json.dumps(summary.as_dict()))["plates"][1]["name"] == "Q"
    with pytest.raises(UsageError, match="--plate names one plate, the sources hold 2: P, Q"):
        ingest_plates(make_settings(plate="X"))
    twice = (tmp_path / "images", tmp_path / "images")
    with pytest.raises(InputError, match="2 plates are named"):
        ingest_plates(make_settings(sources=twice))


def test_planes_of_a_stack_become_one(make_settings: MakeSettings, tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(1, 60000, (3, 2, 20, 30), dtype=np.uint16)
    for z, channels in enumerate(planes):
        for channel, pixels in enumerate(channels):
            (tmp_path / "images").mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / "images" / f"B2_{z}_{channel}.tif", pixels)
    expected = {"max": planes.max(0), "mean": np.rint(planes.mean(0)), 1: planes[1]}
    for z, pixels in expected.items():
        out = tmp_path / f"out-{z}"
        pattern = "{well}_{z}_{channel}.tif"
        (result,) = ingest_plates(make_settings(out=out, z=z, pattern=pattern, plate="P")).plates
        np.testing.assert_array_equal(PlateReader(result.path).read_field(FieldKey("B02", 1)), pixels)
    with pytest.raises(InputError, match=r"no channel has z plane 7 \(there are 0, 1, 2\)"):
        ingest_plates(make_settings(z=7, pattern="{well}_{z}_{channel}.tif"))


def test_time_points_must_be_chosen(write_images: WriteImages, make_settings: MakeSettings) -> None:
    for time in (1, 2):
        write_images(template=f"TimePoint_{time}/{{plate}}_{{well}}_s{{site}}_w{{channel}}.tif")
    with pytest.raises(InputError, match="has 2 time points: 1, 2"):
        ingest_plates(make_settings())
    with pytest.raises(InputError, match="no time point 3, only 1, 2"):
        ingest_plates(make_settings(timepoint=3))
    assert ingest_plates(make_settings(timepoint=2)).plates[0].fields == 4


def test_plate_map_is_cut_to_the_plate(
    write_images: WriteImages,
    make_settings: MakeSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_images()
    path = tmp_path / "map.csv"
    path.write_text("plate,well,perturbation\nP,A1,x\nP,H12,y\nQ,B2,z\n")
    (result,) = ingest_plates(make_settings(platemap=path)).plates
    platemap = PlateReader(result.path).platemap
    assert platemap is not None
    assert platemap["Metadata_Well"].to_list() == ["A01"]
    assert "1 well(s) have images but are not in the plate map: B02" in caplog.text
    assert "1 well(s) are in the plate map but have no images: H12" in caplog.text
    path.write_text("well,perturbation\nC3,x\n")
    with pytest.raises(InputError, match="has no well of plate P"):
        ingest_plates(make_settings(platemap=path))


def test_plate_map_of_a_plate_whose_name_no_file_may_have(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    write_images("Plate 1")
    path = tmp_path / "map.csv"
    path.write_text("plate,well,perturbation\nPlate 1,A1,x\nPlate 2,A1,y\n")
    (result,) = ingest_plates(make_settings(platemap=path)).plates
    platemap = PlateReader(result.path).platemap
    assert platemap is not None
    assert platemap.select("Metadata_Plate", "Metadata_Perturbation").rows() == [("Plate_1", "x")]


def test_sources_that_are_none(make_settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder of images"):
        ingest_plates(make_settings())
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="holds no TIFF images"):
        ingest_plates(make_settings())


@pytest.mark.parametrize("place", [".", "inside/deep"])
def test_output_inside_the_source_is_refused(
    place: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    folder = write_images()
    with pytest.raises(UsageError, match="lies inside of the source"):
        ingest_plates(make_settings(out=folder / place))


def test_a_locked_plate_is_refused(write_images: WriteImages, make_settings: MakeSettings) -> None:
    write_images()
    with locked(make_settings().out / "P.cellvim"), pytest.raises(LockedError) as caught:
        ingest_plates(make_settings())
    assert caught.value.exit_code == 4
    assert not (make_settings().out / "P.ome.zarr").exists()


def test_an_output_that_is_a_file_is_a_disk_error(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:
    write_images()
    make_settings().out.write_text("not a folder")
    with pytest.raises(DiskError, match="cannot be written"):
        ingest_plates(make_settings())


@pytest.mark.parametrize("allowed", [0, 3, 20, 45, 70])
def test_a_full_disk_truncates_nothing_and_is_resumed(
    allowed: int,
    write_images: WriteImages,
    make_settings: MakeSettings,
    tmp_path: Path,
    hash_tree: HashTree,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_images()
    ingest_plates(make_settings(out=tmp_path / "whole"))
    calls, fsync = iter(range(10**6)), os.fsync

    def fill_up(descriptor: int) -> None:
        if next(calls) >= allowed:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_up)
        with pytest.raises(DiskError, match="No space left on device") as caught:
            ingest_plates(make_settings())
    assert caught.value.exit_code == 5
    whole, partial = hash_tree(tmp_path / "whole"), hash_tree(make_settings().out)
    assert {name: whole.get(name) for name in partial} == partial
    ingest_plates(make_settings())
    assert hash_tree(make_settings().out) == whole


def test_memory_that_runs_out_is_passed_on(
    write_images: WriteImages, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images()

    def fail(*_: object, **__: object) -> int:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(PlateWriter, "write_field", fail)
        with pytest.raises(MemoryError):
            ingest_plates(make_settings())
    assert ingest_plates(make_settings()).plates[0].fields == 4


def test_nothing_of_a_well_that_is_gone_stays_in_an_unfinished_plate(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path, hash_tree: HashTree
) -> None:
    folder = write_images()
    out, fresh = make_settings().out, tmp_path / "fresh"
    ingest_plates(make_settings())
    # As a kill leaves it that comes between the metadata of wells and those of the plate.
    (out / "P.ome.zarr" / "zarr.json").unlink()
    for path in folder.glob("*B02*"):
        path.unlink()
    for place in (out, fresh):
        ingest_plates(make_settings(out=place))
    assert hash_tree(out) == hash_tree(fresh)


def test_files_of_strangers_in_a_plate_are_left_to_verify(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:
    write_images()
    (result,) = ingest_plates(make_settings()).plates
    stranger = result.path / "labels" / "x" / "1" / "0" / "zarr.json"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("{}")
    ingest_plates(make_settings())
    assert verify_plate(result.path) == ["P.ome.zarr/labels/x/1/0/zarr.json was not written by ingest"]
