"""OME-Zarr plates of other programs, written here from real pixels, and our own."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import CellvimError, InputError
from cellvim.ingest import ingest_plates
from cellvim.ingest.detect import read_source
from cellvim.ingest.images import read_header, read_plane
from cellvim.ingest.sources import ImagePart
from cellvim.ingest.tiff import DamagedImageError
from cellvim.store import FieldKey, PlateReader, verify_plate
from tests.ingest.foreign_plates import Style, image_attributes, styles, write_array, write_group, write_plate

STAINS = ("DAPI", "GFP", "RFP")
Ingest = Callable[..., PlateReader]
# One of each way to store chunks: nested and flat, both versions, in shards.
STORED = ("fractal", "plain", "0.5", "0.5 gzip", "0.5 sharded", "0.5 blosc shards")


@pytest.fixture(scope="module")
def planes(shared: Path) -> dict[str, np.ndarray]:
    """Two real wells, three stains, cut out where the cells are: well to (c, y, x)."""
    folder = shared / "data/nf1_schwann/images"
    wells = {}
    for well in ("B7", "D6"):
        names = [next(folder.glob(f"{well}_01_{channel}_*_*.tif")) for channel in (1, 2, 3)]
        wells[well] = np.stack([tifffile.imread(name)[300:400, 400:550] for name in names])
    return wells


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    def run(folder: Path, **changes: Any) -> PlateReader:
        settings = IngestSettings(**{"sources": (folder,), "out": tmp_path / "out"} | changes)
        (plate,) = ingest_plates(settings).plates
        return PlateReader(plate.path)

    return run


@pytest.fixture
def dry_run(tmp_path: Path) -> Callable[..., Any]:
    def run(folder: Path, **changes: Any) -> Any:
        settings = IngestSettings(sources=(folder,), out=tmp_path / "out", dry_run=True, **changes)
        (plate,) = ingest_plates(settings).plates
        return plate

    return run


def as_5d(planes: np.ndarray) -> np.ndarray:
    """(c, y, x) to (t, c, z, y, x)."""
    return planes[None, :, None]


def random_5d(*sizes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 60000, (*sizes, 40, 50)).astype(np.uint16)


@pytest.mark.parametrize("name", styles())
def test_every_pixel_of_every_style_is_tifffiles(
    name: str, planes: dict[str, np.ndarray], tmp_path: Path, ingest: Ingest
) -> None:
    style = styles()[name]
    wanted = {"B07": planes["B7"], "D06": planes["D6"]}
    if "c" not in style.axes:
        wanted = {well: pixels[:1] for well, pixels in wanted.items()}
    labels = STAINS[: len(wanted["B07"])]
    fields = {"B/07/0": as_5d(wanted["B07"]), "D/6/0": as_5d(wanted["D06"])}
    folder = write_plate(tmp_path / "P.zarr", fields, style, labels=labels)
    plate = ingest(folder)
    assert plate.name == "Screen_1"
    assert plate.channels == labels
    assert plate.pixel_size_um == (0.325 if style.named_axes is dict else None)
    assert plate.fields == (FieldKey("B07", 0), FieldKey("D06", 0))
    for field in plate.fields:
        np.testing.assert_array_equal(plate.read_field(field), wanted[field.well])
    assert verify_plate(plate.path) == []


@pytest.mark.parametrize("name", ["1049", "Projection-Mix"])
def test_our_own_plates_come_back_with_the_same_pixels(
    name: str, real_plates: dict[str, Path], ingest: Ingest
) -> None:
    first = PlateReader(real_plates[name])
    again = ingest(Path(str(first.path)))
    assert (again.name, again.channels, again.pixel_size_um) == (
        first.name,
        first.channels,
        first.pixel_size_um,
    )
    assert again.fields == first.fields
    assert checksums(again) == checksums(first)


def checksums(plate: PlateReader) -> list[str]:
    records = Path(str(plate.path)).with_name(f"{plate.name}.cellvim") / "fields"
    return [json.loads(path.read_text())["pixels_sha256"] for path in sorted(records.glob("*.json"))]


def test_stacks_and_time_points_are_those_of_the_array(tmp_path: Path, ingest: Ingest) -> None:
    pixels = random_5d(2, 2, 3)
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": pixels}, Style(axes="tczyx"))
    plate = ingest(folder, timepoint=1)
    np.testing.assert_array_equal(plate.read_field(FieldKey("A01", 0)), pixels[1].max(axis=1))
    assert plate.channels == ("0", "1")
    with pytest.raises(InputError, match="has 2 time points: 0, 1"):
        ingest(folder)


@pytest.mark.parametrize("axes", ["czyx", "zcyx", "tzcyx"])
def test_axes_may_come_in_any_order(axes: str, tmp_path: Path, ingest: Ingest) -> None:
    pixels = random_5d(1, 2, 3)
    folder = write_plate(tmp_path / "P.zarr", {"AA/48/7": pixels}, Style(axes=axes))
    plate = ingest(folder, z=2)
    np.testing.assert_array_equal(plate.read_field(FieldKey("AA48", 7)), pixels[0, :, 2])


def test_a_folder_of_plates_gives_all_of_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_plate(tmp_path / "deep" / name / f"{name}.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    write_group(tmp_path / "deep/image.zarr", image_attributes(Style(), ()), Style())
    settings = IngestSettings(sources=(tmp_path / "deep",), out=tmp_path / "out")
    summary = ingest_plates(settings)
    # Both call themselves Screen 1.
    assert [plate.name for plate in summary.plates] == ["one", "two"]
    assert "left out, as they are no plates: image.zarr" in summary.plates[0].warnings


def test_a_plate_beside_images_does_not_hide_them(tmp_path: Path, dry_run: Callable[..., Any]) -> None:
    write_plate(tmp_path / "all/P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    tifffile.imwrite(tmp_path / "all/P_A01_s1_w1.tif", random_5d()[:, :])
    assert dry_run(tmp_path / "all").evidence.startswith("ImageXpress")
    assert dry_run(tmp_path / "all", source="ome-zarr").evidence.startswith("OME-Zarr 0.4")


def test_what_the_source_says_is_taken(tmp_path: Path) -> None:
    acquisitions = [
        {"id": 3, "name": "day 1", "starttime": 1_600_000_000},
        {"id": 4, "starttime": 1_700_000_000},
    ]
    folder = write_plate(
        tmp_path / "P.zarr",
        {"A/1/0": random_5d(1, 2, 1)},
        Style("0.5", 3),
        acquisitions=acquisitions,
        name="BR 1",
    )
    channels = [{"emissionWave": 461.5, "excitationWave": 350}, {"label": "GFP", "emissionWave": "green"}]
    image = image_attributes(Style("0.5"), ()) | {"omero": {"channels": channels}}
    image["multiscales"][0]["axes"][-1]["unit"] = image["multiscales"][0]["axes"][-2]["unit"] = "nanometer"
    write_group(folder / "A/1/0", image, Style("0.5", 3))
    (plate,) = read_source(folder, IngestSettings(sources=(folder,), out=tmp_path))
    assert (plate.name, plate.barcode, plate.acquired) == ("BR_1", "BR 1", "2020-09-13T12:26:40+00:00")
    assert plate.pixel_size_um == pytest.approx(0.325e-3)
    assert plate.stains == {"1": "GFP"}
    assert (plate.wavelengths["0"].excitation_nm, plate.wavelengths["0"].emission_nm) == (350, 461.5)
    assert plate.wavelengths["1"].emission_nm is None


@pytest.mark.parametrize(
    ("names", "sites"),
    [
        (("0", "1"), (0, 1)),
        (("000001", "000007"), (1, 7)),
        (("FOV_10", "FOV_2"), (2, 1)),
        (("0", "mip"), (0, 1)),
        (("1", "01"), (2, 1)),
        (("0", "0_registered"), (0,)),
    ],
)
def test_fields_are_numbered(
    names: tuple[str, ...], sites: tuple[int, ...], tmp_path: Path, ingest: Ingest
) -> None:
    pixels = {name: random_5d(1, 1, 1, seed=number) for number, name in enumerate(names)}
    folder = write_plate(tmp_path / "P.zarr", {f"B/03/{name}": pixels[name] for name in names}, Style())
    plate = ingest(folder)
    assert len(plate.fields) == len(sites)
    for name, site in zip(names, sites, strict=False):
        np.testing.assert_array_equal(plate.read_field(FieldKey("B03", site)), pixels[name][0, :, 0])


def test_a_name_has_one_number_in_all_wells(tmp_path: Path, ingest: Ingest) -> None:
    fields = {"A/1/p1": random_5d(1, 1, 1), "A/1/p2": random_5d(1, 1, 1), "A/2/p2": random_5d(1, 1, 1)}
    plate = ingest(write_plate(tmp_path / "P.zarr", fields, Style()))
    assert list(map(str, plate.fields)) == ["A01/1", "A01/2", "A02/2"]


def test_wells_by_number_count_from_zero_where_there_is_a_zero(tmp_path: Path, ingest: Ingest) -> None:
    fields = {"0/1/0": random_5d(1, 1, 1), "2/2/0": random_5d(1, 1, 1)}
    plate = ingest(write_plate(tmp_path / "P.zarr", fields, Style()))
    assert plate.wells == ("A01", "C02")


def set_images(well: Path, images: list[dict[str, Any]]) -> None:
    (well / ".zattrs").write_text(json.dumps({"well": {"images": images}}))


def two_acquisitions(tmp_path: Path, second: tuple[str, ...]) -> Path:
    fields = {"A/1/0": random_5d(1, 2, 1), "A/1/1": random_5d(1, 2, 1, seed=1)}
    folder = write_plate(tmp_path / "P.zarr", fields, Style(), labels=("DNA", "ER"))
    write_group(folder / "A/1/1", image_attributes(Style(), second), Style())
    set_images(folder / "A/1", [{"path": "0", "acquisition": 1}, {"path": "1", "acquisition": 2}])
    return folder


def test_acquisitions_of_the_same_stains_are_sites(tmp_path: Path, ingest: Ingest) -> None:
    plate = ingest(two_acquisitions(tmp_path, ("DNA", "ER")))
    assert list(map(str, plate.fields)) == ["A01/0", "A01/1"]


def test_acquisitions_of_other_stains_are_plates(tmp_path: Path) -> None:
    source = two_acquisitions(tmp_path, ("Actin", "Golgi"))
    summary = ingest_plates(IngestSettings(sources=(source,), out=tmp_path / "out"))
    plates = [PlateReader(plate.path) for plate in summary.plates]
    assert [(plate.name, plate.channels) for plate in plates] == [
        ("Screen_1_1", ("DNA", "ER")),
        ("Screen_1_2", ("Actin", "Golgi")),
    ]


def test_one_index_with_two_stains_is_never_one_channel(tmp_path: Path, dry_run: Callable[..., Any]) -> None:
    source = two_acquisitions(tmp_path, ("ER", "DNA"))
    set_images(source / "A/1", [{"path": "0"}, {"path": "1"}])
    assert dry_run(source).channels == ("DNA", "ER")
    (source / "A/1/1/.zattrs").write_text(json.dumps(image_attributes(Style(), ("ER", "Golgi"))))
    assert "A01/1 DNA: is missing" in dry_run(source).problems


def chunks_of(folder: Path) -> list[Path]:
    names = {"zarr.json", ".zarray", ".zattrs", ".zgroup"}
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in names)


@pytest.mark.parametrize("name", STORED)
def test_a_lost_or_short_chunk_is_found_before_a_pixel_is_read(
    name: str, planes: dict[str, np.ndarray], tmp_path: Path, dry_run: Callable[..., Any]
) -> None:
    style = styles()[name]
    pixels = as_5d(planes["B7"] if "c" in style.axes else planes["B7"][:1])
    folder = write_plate(tmp_path / "P.zarr", {"B/7/0": pixels, "B/7/1": pixels}, style)
    lost = chunks_of(folder / "B/7/0/0")[0]
    whole = lost.read_bytes()
    lost.unlink()
    problem = dry_run(folder).problems[0]
    assert "B07/0" in problem
    assert "chunks of the plane, which zarr would read as zeros" in problem
    lost.write_bytes(whole[: len(whole) // 2])
    if name not in {"plain", "0.5 gzip"}:
        assert "B07/0" in dry_run(folder).problems[0]
    with pytest.raises(DamagedImageError):
        read_plane(ImagePart(folder / "B/7/0/0", (0,) * (len(style.axes) - 2)))
    lost.write_bytes(b"")
    assert "B07/0" in dry_run(folder).problems[0]


def test_a_chunk_lost_inside_of_a_shard_is_found(tmp_path: Path) -> None:
    pixels = random_5d(1, 1, 1)
    pixels[..., :32, :32] = 0
    style = Style("0.5", 3, chunk=32, array={"shards": True})
    path = write_plate(tmp_path / "P.zarr", {"A/1/0": pixels}, style) / "A/1/0/0"
    read_plane(ImagePart(path, (0, 0)))
    import zarr

    whole = zarr.open_array(path, mode="r")[:]
    array = zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": False})
    array[:] = whole
    with pytest.raises(DamagedImageError, match="lacks 1 of 4 chunks of the plane"):
        read_header(ImagePart(path, (0, 0)))


def test_fields_without_all_chunks_can_be_skipped_or_filled(tmp_path: Path, ingest: Ingest) -> None:
    fields = {f"A/1/{site}": random_5d(1, 2, 1, seed=site) for site in (0, 1)}
    folder = write_plate(tmp_path / "P.zarr", fields, Style())
    chunks_of(folder / "A/1/0/0")[0].unlink()
    assert list(map(str, ingest(folder, on_missing="skip-field").fields)) == ["A01/1"]
    filled = ingest(folder, on_missing="fill", overwrite=True)
    assert filled.is_valid(FieldKey("A01", 0)).tolist() == [False, True]
    assert not filled.read_field(FieldKey("A01", 0))[0].any()
    with pytest.raises(InputError) as caught:
        ingest(folder, out=folder.parent / "other")
    assert "--on-missing skip-field" in caught.value.hint


def test_lost_metadata_are_a_problem_and_lost_folders_a_note(
    tmp_path: Path, dry_run: Callable[..., Any]
) -> None:
    fields = {
        f"{well}/{site}": random_5d(1, 2, 2) for well in ("A/1", "A/2", "B/1", "B/2") for site in (0, 1)
    }
    folder = write_plate(tmp_path / "P.zarr", fields, Style())
    (folder / "A/1/.zattrs").unlink()
    (folder / "A/2/1/.zattrs").write_text("{")
    (folder / "B/1/0/0/.zarray").write_text("[]")
    shutil.rmtree(folder / "B/2")
    plate = dry_run(folder)
    assert sorted({line.partition(" ")[0] for line in plate.problems}) == ["A01/0", "A01/1", "A02/1", "B01/0"]
    assert any("B01/0 0: 0 part 0/0/0 its .zarray holds no JSON object" in line for line in plate.problems)
    assert any("A/2/1 its .zattrs is damaged JSON" in line for line in plate.warnings)
    assert plate.skipped["B02"] == "named by the source's plan, but has no images"


@pytest.mark.parametrize(
    "path", ["../../secret", "/etc", "..", "a/../../b", "A\\0", "", "x\u0000y", "\ud800"]
)
def test_paths_that_lead_out_are_refused(path: str, tmp_path: Path, dry_run: Callable[..., Any]) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    write_plate(tmp_path / "secret", {"A/1/0": random_5d(1, 1, 1)}, Style())
    whole = (folder / "A/1/0/.zattrs").read_bytes()
    image = json.loads(whole)
    image["multiscales"][0]["datasets"][0]["path"] = path
    (folder / "A/1/0/.zattrs").write_text(json.dumps(image))
    with pytest.raises(InputError):
        dry_run(folder)
    (folder / "A/1/0/.zattrs").write_bytes(whole)
    set_images(folder / "A/1", [{"path": path}])
    with pytest.raises(InputError):
        dry_run(folder)
    write_group(folder, {"plate": {"wells": [{"path": f"A/{path}"}]}}, Style())
    with pytest.raises(InputError):
        dry_run(folder)


@pytest.mark.parametrize("link", ["A/1/0/0", "A/1/0", "A/1"])
def test_links_that_lead_out_are_refused(link: str, tmp_path: Path, dry_run: Callable[..., Any]) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    (folder / link).rename(tmp_path / "elsewhere")
    (folder / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="lies outside of the plate"):
        dry_run(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [1, 1, 10**6, 10**6]}, "claims 1000000 x 1000000 pixels"),
        ({"shape": [1, 1, 400, 500], "chunks": [500, 500, 64, 64]}, "bytes of decoded chunks for one plane"),
        ({"shape": [10**9, 10**9, 40, 50]}, "claims 1,000,000,000,000,000,000 planes"),
        ({"shape": [1, 1, 40, -50]}, "claims a shape"),
        ({"chunks": [1, 1, 0, 50]}, "claims a shape"),
        ({"chunks": [1, 1, 32, 32]}, "lacks"),
        ({"dtype": "<f4"}, "holds float32, expected uint8 or uint16"),
        ({"dtype": [["a", "<u2"]]}, "holds a structured type"),
        ({"compressor": {"id": "lzma"}}, "a compressor lzma, which cellvim does not read"),
        ({"filters": [{"id": "delta"}]}, "a filter, which cellvim does not read"),
    ],
)
def test_lies_of_an_array_are_found(
    changes: dict[str, Any], message: str, tmp_path: Path, dry_run: Callable[..., Any]
) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    described = folder / "A/1/0/0/.zarray"
    described.write_text(json.dumps(json.loads(described.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        dry_run(folder)


@pytest.mark.parametrize(
    "axes", [["c", "z", "x", "y"], ["y", "x", "c", "z"], ["y", "y", "y", "x"], [None] * 4, ["x"]]
)
def test_planes_must_be_y_by_x(axes: list[Any], tmp_path: Path, dry_run: Callable[..., Any]) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    image = image_attributes(Style(), ())
    image["multiscales"][0]["axes"] = axes
    write_group(folder / "A/1/0", image, Style())
    with pytest.raises(InputError, match="has the axes"):
        dry_run(folder)


def test_a_chunk_that_swells_is_refused_unread(tmp_path: Path) -> None:
    from numcodecs import Blosc

    path = tmp_path / "0"
    write_array(path, random_5d(1, 1)[0], Style(array={"compressors": Blosc()}))
    chunk = chunks_of(path)[0]
    chunk.write_bytes(Blosc("zstd").encode(np.zeros(1 << 28, np.uint8)))
    with pytest.raises(DamagedImageError, match="would decode to 268,435,456 bytes, expected 8,192"):
        read_header(ImagePart(path, (0,)))


def test_zeros_are_no_plane(tmp_path: Path) -> None:
    write_array(tmp_path / "0", np.zeros((1, 40, 50), np.uint16), Style())
    with pytest.raises(DamagedImageError, match="every pixel is zero"):
        read_plane(ImagePart(tmp_path / "0", (0,)))


def test_a_repaired_array_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "0"
    for seed in (1, 2):
        pixels = random_5d(1, 1, seed=seed)[0]
        write_array(path, pixels, Style())
        np.testing.assert_array_equal(read_plane(ImagePart(path, (0,))).pixels, pixels[0])


@pytest.mark.parametrize("name", ["fractal", "0.5 blosc shards", "0.5 gzip"])
def test_whatever_bytes_are_in_the_files_no_other_error_is_raised(name: str, tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, styles()[name], labels=("DNA",))
    generator = random.Random(name)  # noqa: S311 - no secrets here
    settings = IngestSettings(sources=(folder,), out=tmp_path / "out", source="ome-zarr")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    outcomes = set()
    for _ in range(150):
        path = generator.choice(files)
        whole = path.read_bytes()
        path.write_bytes(mutant(whole, generator))
        try:
            (plate,) = read_source(folder, settings)
            for plane in plate.planes:
                read_header(plane.image)
                read_plane(plane.image)
            outcomes.add("read")
        except CellvimError:
            outcomes.add("refused")
        path.write_bytes(whole)
    assert outcomes == {"read", "refused"}


def mutant(whole: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(whole))
    match generator.randrange(4):
        case 0:
            return whole[:place]
        case 1:
            return whole[:place] + generator.randbytes(1) + whole[place + 1 :]
        case 2:
            return whole.replace(b"0", b"99999999999", 1)
        case _:
            return b"[" * 100_000 if whole.startswith(b"{") else generator.randbytes(len(whole))
