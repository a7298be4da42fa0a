"""What is written comes back, an unfinished plate never opens, and damage is found."""

import errno
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.errors import InputError, NotFoundError, OutputExistsError
from cellvim.store import (
    FieldKey,
    PlateReader,
    PlateWriter,
    describe_plate,
    find_plates,
    verify_plate,
)
from cellvim.store.place import LocalPlace

MADE_OF = "made of these files"
MakePlate = Callable[..., PlateReader]


def writer_in(out: Path, **changes: object) -> PlateWriter:
    settings = {"channels": ("DNA", "ER"), "dtype": np.dtype(np.uint16), "pixel_size_um": 0.65}
    return PlateWriter(out, "P1", **(settings | changes))


def draw(seed: int, shape: tuple[int, ...] = (2, 301, 517), dtype: type = np.uint16) -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(1, high, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 301, 517), (2, 512, 256)])
def test_pixels_come_back(tmp_path: Path, codec: str, dtype: type, shape: tuple[int, ...]) -> None:
    writer = writer_in(tmp_path, codec=codec, dtype=np.dtype(dtype))
    writer.begin()
    written = {FieldKey(well, 7): draw(seed, shape, dtype) for seed, well in enumerate(("B02", "AF48"))}
    for key, pixels in written.items():
        writer.write_field(key, pixels, token="")
    writer.finish(list(written))
    plate = PlateReader(writer.path)
    assert plate.fields == tuple(written)
    assert plate.wells == ("B02", "AF48")
    assert (plate.channels, plate.pixel_size_um, plate.dtype) == (("DNA", "ER"), 0.65, np.dtype(dtype))
    for key, pixels in written.items():
        np.testing.assert_array_equal(plate.read_field(key), pixels)
        assert plate.read_field(key).dtype == dtype
        assert plate.shape(key) == shape[1:]
        top, left = shape[1] // 3, shape[2] // 2
        crop = plate.read_crop(key, top, left, shape[1] - top, shape[2] - left)
        np.testing.assert_array_equal(crop, pixels[:, top:, left:])


def test_a_path_may_lead_up_and_through_links(
    make_plate: MakePlate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plate = make_plate("P1")
    expected = plate.read_field(FieldKey("A01", 1))
    (tmp_path / "link").symlink_to(plate.path.parent)
    monkeypatch.chdir(tmp_path)
    for way in ("plates/../plates", "link", "link/../link"):
        again = PlateReader(Path(way) / "P1.ome.zarr")
        np.testing.assert_array_equal(again.read_field(FieldKey("A01", 1)), expected)


def test_statistics_are_those_of_the_pixels(make_plate: MakePlate) -> None:
    plate = make_plate("P1")
    everything = np.stack([plate.read_field(field) for field in plate.fields])
    for number, channel in enumerate(plate.channels):
        low, high = plate.intensity.clip_bounds(channel)
        assert (low, high) == pytest.approx(tuple(np.percentile(everything[:, number], [0.1, 99.9])))
        for field, pixels in zip(plate.fields, everything, strict=True):
            clipped = np.clip(pixels[number].astype(np.float64), low, high)
            expected = (clipped.mean(), clipped.std())
            assert tuple(plate.intensity.moments(field)[number]) == pytest.approx(expected, rel=1e-12)


def test_filled_planes_are_marked_and_left_out_of_the_percentiles(make_plate: MakePlate) -> None:
    filled, whole = make_plate("F", invalid=(("A01", 1, 0),)), make_plate("W")
    assert list(filled.is_valid(FieldKey("A01", 1))) == [False, True, True]
    assert filled.is_valid(FieldKey("A01", 2)).all()
    assert filled.intensity.percentiles["DNA"]["0.1"] > 0
    assert whole.is_valid(FieldKey("A01", 1)).all()


def test_a_reader_works_in_another_process(make_plate: MakePlate) -> None:
    plate = make_plate("P1")
    expected = [int(plate.read_field(field).sum()) for field in plate.fields]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_sum_fields, [pickle.dumps(plate)]) == [expected]


def _sum_fields(pickled: bytes) -> list[int]:
    plate: PlateReader = pickle.loads(pickled)  # noqa: S301 - our own object, made a moment ago
    return [int(plate.read_field(field).sum()) for field in plate.fields]


def test_an_unfinished_plate_does_not_open(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    writer.begin()
    writer.write_field(FieldKey("A01", 1), draw(0), token="")
    with pytest.raises(InputError, match="not finished"):
        PlateReader(writer.path)


def test_a_field_is_done_only_with_its_token_and_its_files(tmp_path: Path) -> None:
    writer, key = writer_in(tmp_path), FieldKey("A01", 1)
    writer.begin()
    assert not writer.is_done(key, MADE_OF)
    writer.write_field(key, draw(0), token=MADE_OF)
    assert writer.is_done(key, MADE_OF)
    assert not writer.is_done(key, "other")
    (writer.path / key.group / "0/c/0/0/0").unlink()
    assert not writer.is_done(key, MADE_OF)


@pytest.mark.parametrize("suffix", [".histogram", ".json"])
def test_a_field_is_done_only_while_no_bit_of_its_records_has_changed(tmp_path: Path, suffix: str) -> None:
    writer, key = writer_in(tmp_path), FieldKey("A01", 1)
    writer.begin()
    writer.write_field(key, draw(0, (2, 9, 9)), token=MADE_OF)
    path = writer.companion.path / "fields" / f"A01-1{suffix}"
    content = path.read_bytes()
    for position in range(0, len(content), 1 + len(content) // 400):
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert not writer.is_done(key, MADE_OF), position
    path.write_bytes(content)
    assert writer.is_done(key, MADE_OF)


@pytest.mark.parametrize("content", [b"", b"no histogram", None])
def test_a_damaged_histogram_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    writer, key = writer_in(tmp_path), FieldKey("A01", 1)
    writer.begin()
    writer.write_field(key, draw(0), token=MADE_OF)
    path = writer.companion.path / "fields" / "A01-1.histogram"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"A01-1\.histogram"):
        writer.finish([key])


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_record_of_the_settings_is_explained(tmp_path: Path, content: str) -> None:
    writer_in(tmp_path).begin()
    (tmp_path / "P1.cellvim" / "plate.json").write_text(content)
    with pytest.raises((InputError, OutputExistsError), match=r"plate\.json cannot be read|damaged record"):
        writer_in(tmp_path).begin()


def test_other_settings_are_refused_unless_told_to_overwrite(tmp_path: Path) -> None:
    writer, key = writer_in(tmp_path), FieldKey("A01", 1)
    writer.begin()
    writer.write_field(key, draw(0), token="")
    writer.finish([key])
    with pytest.raises(OutputExistsError, match="codec zstd, not lz4"):
        writer_in(tmp_path, codec="lz4").begin()
    assert verify_plate(writer.path) == []
    writer_in(tmp_path, codec="lz4").begin(overwrite=True)
    assert not writer.is_finished


def test_a_foreign_folder_is_never_taken_over(tmp_path: Path) -> None:
    (tmp_path / "P1.ome.zarr").mkdir()
    (tmp_path / "P1.ome.zarr" / ".zattrs").write_text("{}")
    with pytest.raises(OutputExistsError, match="not written by cellvim"):
        writer_in(tmp_path).begin()


def test_every_kind_of_damage_is_found(make_plate: MakePlate) -> None:
    plate = make_plate("P1")
    assert verify_plate(plate.path) == []
    generator = np.random.default_rng(0)
    files = [
        path for root in (plate.path, plate.companion.path) for path in root.rglob("*") if path.is_file()
    ]
    for path in files:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[generator.integers(len(flipped))] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        assert verify_plate(plate.path), path
        path.write_bytes(content)
    assert verify_plate(plate.path) == []


def test_a_lost_shard_is_an_error_and_not_zeros(make_plate: MakePlate) -> None:
    plate = make_plate("P1")
    (plate.path / "A/01/1/0/c/0/0/0").unlink()
    assert verify_plate(plate.path) == ["P1.ome.zarr/A/01/1/0/c/0/0/0 is missing"]
    with pytest.raises(InputError, match="not there"):
        PlateReader(plate.path).read_field(FieldKey("A01", 1))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff\x00", None])
def test_lost_checksums_are_a_problem_of_their_plate(make_plate: MakePlate, content: bytes | None) -> None:
    plate = make_plate("P1")
    path = plate.companion.path / "checksums.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (problem,) = verify_plate(plate.path)
    assert problem.startswith(f"{path} ")
    assert describe_plate(plate.path)["fields"] == 8


def test_a_file_that_the_disk_cannot_read_is_a_problem_and_no_crash(
    make_plate: MakePlate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: LocalPlace, name: str) -> bytes:
        if name.endswith("c/0/0/0"):
            raise OSError(errno.EIO, "Input/output error")
        return read(_, name)

    plate = make_plate("P1")
    read = LocalPlace.read
    monkeypatch.setattr(LocalPlace, "read", fail)
    assert "P1.ome.zarr/A/01/1/0/c/0/0/0 cannot be read: Input/output error" in verify_plate(plate.path)


def test_a_plate_without_its_companion_is_refused(make_plate: MakePlate) -> None:
    plate = make_plate("P1")
    plate.companion.path.rename(plate.companion.path.with_name("elsewhere"))
    with pytest.raises(InputError, match=r"lacks field_intensity.parquet"):
        PlateReader(plate.path)


def test_description_counts_what_is_there(make_plate: MakePlate) -> None:
    platemap = pl.DataFrame({"Metadata_Well": ["A01"], "Metadata_Perturbation": ["x"]})
    facts = describe_plate(make_plate("P1", invalid=(("A01", 1, 0),), platemap=platemap).path)
    assert (facts["wells"], facts["fields"], facts["filled_planes"]) == (4, 8, 1)
    assert facts["platemap_columns"] == ["Metadata_Well", "Metadata_Perturbation"]


def test_plates_are_found_by_name_and_in_folders(make_plate: MakePlate, tmp_path: Path) -> None:
    first, second = make_plate("P2"), make_plate("P1")
    folder = first.path.parent
    assert find_plates([folder]) == [second.path, first.path]
    assert find_plates([first.path, folder]) == [second.path, first.path]
    with pytest.raises(NotFoundError, match="no OME-Zarr plate"):
        find_plates([tmp_path])


def test_each_plate_is_found_once_and_in_one_order_however_it_is_spelt(
    make_plate: MakePlate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_plate("P1").path, make_plate("P2").path
    (tmp_path / "a").mkdir()
    other = (tmp_path / "a" / "P3.ome.zarr").resolve()
    second.rename(other)
    (tmp_path / "z").symlink_to(first.parent)
    monkeypatch.chdir(tmp_path)
    ways = [
        first,
        Path("plates/P1.ome.zarr"),
        Path("a/../plates/P1.ome.zarr"),
        Path("z/P1.ome.zarr"),
        Path("z"),
    ]
    for number, way in enumerate(ways):
        for paths in ([*ways[number:], other], [other, Path("a"), *ways[number:]]):
            plates = find_plates(paths)
            assert plates[0] == (way if way.suffix else way / "P1.ome.zarr")
            assert [path.resolve() for path in plates] == [first.resolve(), other]


def test_fingerprints_tell_pixels_from_what_else_is_known(make_plate: MakePlate) -> None:
    platemap = pl.DataFrame({"Metadata_Well": ["A01"], "Metadata_Perturbation": ["x"]})
    plain = make_plate("P1")
    pixels, everything = plain.pixels_fingerprint, plain.fingerprint
    mapped = make_plate("P1", platemap=platemap)
    assert (mapped.pixels_fingerprint, mapped.fingerprint == everything) == (pixels, False)
    (mapped.companion.path / "platemap.parquet").unlink()
    (mapped.companion.path / "skipped.json").write_text('{"H12": "lost"}')
    skipped = PlateReader(mapped.path)
    assert (skipped.pixels_fingerprint, skipped.fingerprint == everything) == (pixels, False)
    for other in (make_plate("P2"), make_plate("P1", invalid=(("A01", 1, 0),)), make_plate("P1", sites=3)):
        assert other.pixels_fingerprint != pixels
        assert other.fingerprint != everything
