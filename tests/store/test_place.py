"""Disks and object stores behave alike, and a plate in either is the same plate to the byte."""

import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

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
from cellvim.store import FieldKey, PlateReader, describe_plate, find_plates, verify_plate
from cellvim.store.layout import companion_of
from cellvim.store.place import Place, open_place, read_all, write_all


def test_what_is_written_is_read(location: str) -> None:
    place = open_place(location)
    assert place.names() == []
    contents = {"a.json": b"1", "b/c/d": b"22", "b/e": b"", "bc": b"3"}
    write_all(place, contents)
    assert place.names() == sorted(contents)
    assert place.names("b/") == ["b/c/d", "b/e"]
    assert list(read_all(place, sorted(contents))) == [contents[name] for name in sorted(contents)]
    place.write("a.json", b"new")
    assert place.read("a.json") == b"new"
    assert place.has("b/c/d", 2)
    assert not place.has("b/c")
    with pytest.raises(FileNotFoundError):
        place.read("nothing")


def test_deleting_takes_a_file_or_a_folder_and_no_neighbour(location: str) -> None:
    place = open_place(location)
    write_all(place, {"b/1": b"", "b/2/3": b"", "bc": b"", "d": b""})
    place.delete("b/")
    assert place.names() == ["bc", "d"]
    place.delete("d")
    place.delete("d")
    place.delete("nothing/")
    assert place.names() == ["bc"]
    place.at("x").write("y", b"")
    place.at("x").at("../z").write("y", b"")
    assert place.names() == ["bc", "x/y", "z/y"]
    place.delete("")
    assert place.names() == []


def test_one_of_many_holds_the_lock(location: str) -> None:
    place = open_place(location)
    place.write("file", b"")
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def hold() -> None:
        barrier.wait()
        try:
            with place.locked():
                barrier.wait()
                outcomes.append("held")
        except LockedError as error:
            barrier.wait()
            outcomes.append(error.found)

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refusals = [outcome for outcome in outcomes if outcome != "held"]
    assert len(refusals) == 7
    assert all("is being written by " in refusal for refusal in refusals)
    with place.locked():
        pass
    assert place.names() == ["file"]


def test_a_place_of_no_known_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="azure:// is not supported"):
        open_place("azure://container/x")


def test_an_answer_of_no_server_is_a_disk_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with pytest.raises(DiskError, match="s3://nowhere/x"):
        open_place("s3://nowhere/x").read("file")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for well in ("A01", "B02"):
        for wave in (1, 2):
            generator = np.random.default_rng((ord(well[0]), wave))
            tifffile.imwrite(
                folder / f"P_{well}_s1_w{wave}.tif", generator.integers(1, 999, (70, 90)).astype(np.uint16)
            )
    return folder


def everything(place: Place) -> dict[str, bytes]:
    names = [name for name in place.names() if not name.endswith("run.json")]
    return dict(zip(names, read_all(place, names), strict=True))


def test_a_plate_anywhere_has_the_bytes_of_one_on_disk(location: str, images: Path, tmp_path: Path) -> None:
    for out in (location, tmp_path / "disk"):
        ingest_plates(IngestSettings(sources=(images,), out=out))
    (found,) = find_plates([location])
    plate, other = PlateReader(found), PlateReader(tmp_path / "disk" / "P.ome.zarr")
    assert everything(plate.place) == everything(other.place)
    assert everything(plate.companion) == everything(other.companion)
    field = FieldKey("B02", 1)
    np.testing.assert_array_equal(plate.read_field(field)[1], tifffile.imread(images / "P_B02_s1_w2.tif"))
    np.testing.assert_array_equal(
        plate.read_crop(field, 3, 5, 20, 30), plate.read_field(field)[:, 3:23, 5:35]
    )
    assert verify_plate(found) == []
    assert describe_plate(found)["fields"] == 2


def test_an_interrupted_plate_anywhere_is_finished(location: str, images: Path) -> None:
    settings = IngestSettings(sources=(images,), out=location)
    place = open_place(location).at("P.ome.zarr")
    ingest_plates(settings)
    whole = everything(place), everything(companion_of(place))
    place.delete("zarr.json")
    place.delete("B/02/1/0/c/0/0/0")
    assert ingest_plates(settings).plates[0].was_resumed
    assert (everything(place), everything(companion_of(place))) == whole
    with pytest.raises(OutputExistsError):
        ingest_plates(settings.model_copy(update={"codec": "lz4"}))


def test_damage_anywhere_is_found(location: str, images: Path) -> None:
    ingest_plates(IngestSettings(sources=(images,), out=location))
    place = open_place(location).at("P.ome.zarr")
    shard = place.read("A/01/1/0/c/0/0/0")
    place.write("A/01/1/0/c/0/0/0", shard[:100] + bytes([shard[100] ^ 1]) + shard[101:])
    (problem,) = verify_plate(place.location)
    assert problem == "P.ome.zarr/A/01/1/0/c/0/0/0 differs from what was written"


@pytest.mark.parametrize("address", ["s3://", "memory://", "s3://Not A Bucket/x", "gs://"])
def test_an_address_that_means_nothing_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address of an object store"):
        open_place(address)


def test_nothing_at_an_address_is_not_an_unfinished_plate(location: str) -> None:
    for look in (PlateReader, verify_plate):
        with pytest.raises(NotFoundError, match="no OME-Zarr plate at"):
            look(f"{location}/P.ome.zarr")
    open_place(location).at("P.ome.zarr").write("B/02/1/0/zarr.json", b"{}")
    with pytest.raises(InputError, match="is not finished"):
        PlateReader(f"{location}/P.ome.zarr")


def test_an_address_of_this_disk_is_a_folder_like_any(images: Path) -> None:
    with pytest.raises(UsageError, match="lies inside of the source"):
        ingest_plates(IngestSettings(sources=(images,), out=f"file://{images}/out"))


def test_a_lock_of_somebody_else_stays(location: str) -> None:
    place = open_place(location)
    with place.locked():
        place.delete("lock")
        place.write("lock", b"theirs")
    assert place.read("lock") == b"theirs"


def test_a_server_is_asked_without_noise(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {"ENDPOINT_URL": s3_endpoint, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(DiskError, match=r"s3://nowhere/x/: NOT_FOUND: NoSuchBucket: [^\[]*$"):
        open_place("s3://nowhere/x").names()
    assert capfd.readouterr().err == ""
