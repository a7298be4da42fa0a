"""OME-Zarr plates of other programs, written here from real pixels, and our own."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest import ingest_plates
from cellvim.ingest.readers.detect import read_source
from cellvim.store import FieldKey, PlateReader, verify_plate
from tests.ingest.readers.foreign_plates import (
    Style,
    foresee,
    image_attributes,
    ingest_one,
    name_images,
    random_5d,
    styles,
    write_group,
    write_plate,
)

STAINS = ("DAPI", "GFP", "RFP")


@pytest.fixture(scope="module")
def planes(shared: Path) -> dict[str, np.ndarray]:
    """Two real wells, three stains, cut out where the cells are: well to (c, y, x)."""
    folder = shared / "data/nf1_schwann/images"
    wells = {}
    for well in ("B7", "D6"):
        names = [next(folder.glob(f"{well}_01_{channel}_*_*.tif")) for channel in (1, 2, 3)]
        wells[well] = np.stack([tifffile.imread(name)[300:400, 400:550] for name in names])
    return wells


def as_5d(planes: np.ndarray) -> np.ndarray:
    """(c, y, x) to (t, c, z, y, x)."""
    return planes[None, :, None]


@pytest.mark.parametrize("name", styles())
def test_every_pixel_of_every_style_is_tifffiles(
    name: str, planes: dict[str, np.ndarray], tmp_path: Path
) -> None:
    style = styles()[name]
    wanted = {"B07": planes["B7"], "D06": planes["D6"]}
    if "c" not in style.axes:
        wanted = {well: pixels[:1] for well, pixels in wanted.items()}
    labels = STAINS[: len(wanted["B07"])]
    fields = {"B/07/0": as_5d(wanted["B07"]), "D/6/0": as_5d(wanted["D06"])}
    folder = write_plate(tmp_path / "P.zarr", fields, style, labels=labels)
    plate = ingest_one(folder)
    assert plate.name == "Screen_1"
    assert plate.channels == labels
    assert plate.pixel_size_um == (0.325 if style.named_axes is dict else None)
    assert plate.fields == (FieldKey("B07", 0), FieldKey("D06", 0))
    for field in plate.fields:
        np.testing.assert_array_equal(plate.read_field(field), wanted[field.well])
    assert verify_plate(plate.path) == []


@pytest.mark.parametrize("name", ["1049", "Projection-Mix"])
def test_our_own_plates_come_back_with_the_same_pixels(name: str, real_plates: dict[str, Path]) -> None:
    first = PlateReader(real_plates[name])
    again = ingest_one(Path(str(first.path)))
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


def test_stacks_and_time_points_are_those_of_the_array(tmp_path: Path) -> None:
    pixels = random_5d(2, 2, 3)
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": pixels}, Style(axes="tczyx"))
    plate = ingest_one(folder, timepoint=1)
    np.testing.assert_array_equal(plate.read_field(FieldKey("A01", 0)), pixels[1].max(axis=1))
    assert plate.channels == ("0", "1")
    with pytest.raises(InputError, match="has 2 time points: 0, 1"):
        ingest_one(folder)


@pytest.mark.parametrize("axes", ["czyx", "zcyx", "tzcyx"])
def test_axes_may_come_in_any_order(axes: str, tmp_path: Path) -> None:
    pixels = random_5d(1, 2, 3)
    folder = write_plate(tmp_path / "P.zarr", {"AA/48/7": pixels}, Style(axes=axes))
    plate = ingest_one(folder, z=2)
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


def test_a_plate_beside_images_does_not_hide_them(tmp_path: Path) -> None:
    write_plate(tmp_path / "all/P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    tifffile.imwrite(tmp_path / "all/P_A01_s1_w1.tif", random_5d()[:, :])
    assert foresee(tmp_path / "all").evidence.startswith("ImageXpress")
    assert foresee(tmp_path / "all", source="ome-zarr").evidence.startswith("OME-Zarr 0.4")


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


def test_fields_that_disagree_about_their_pixels_have_no_size(tmp_path: Path) -> None:
    fields = {f"A/1/{number}": random_5d(1, 1, 1, seed=number) for number in range(3)}
    folder = write_plate(tmp_path / "P.zarr", fields, Style())
    image = image_attributes(Style(), ())
    scales = image["multiscales"][0].pop("coordinateTransformations")
    write_group(folder / "A/1/2", image, Style())
    settings = IngestSettings(sources=(folder,), out=tmp_path)
    (plate,) = read_source(folder, settings)
    assert plate.pixel_size_um is None
    assert plate.notes == ("the fields have several pixel sizes (0.325, 0.5 um): none is recorded",)
    image["multiscales"][0] |= {"coordinateTransformations": scales, "axes": list("czyx")}
    write_group(folder / "A/1/2", image, Style())
    (plate,) = read_source(folder, settings)
    assert plate.pixel_size_um == 0.325
    assert plate.notes == ("1 of 3 fields: the pixel size has no unit",)


def test_a_coarse_level_is_never_taken_for_the_image(tmp_path: Path) -> None:
    """The first level must be the finest; one that is not would be a plate of half the resolution."""
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style(has_pyramid=True))
    described = folder / "A/1/0/.zattrs"
    content = json.loads(described.read_text())
    content["multiscales"][0]["datasets"].reverse()
    described.write_text(json.dumps(content))
    with pytest.raises(InputError, match="levels out of order: of 2, number 2 has the smallest pixels"):
        ingest_one(folder)


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
def test_fields_are_numbered(names: tuple[str, ...], sites: tuple[int, ...], tmp_path: Path) -> None:
    pixels = {name: random_5d(1, 1, 1, seed=number) for number, name in enumerate(names)}
    folder = write_plate(tmp_path / "P.zarr", {f"B/03/{name}": pixels[name] for name in names}, Style())
    plate = ingest_one(folder)
    assert len(plate.fields) == len(sites)
    for name, site in zip(names, sites, strict=False):
        np.testing.assert_array_equal(plate.read_field(FieldKey("B03", site)), pixels[name][0, :, 0])


def test_a_name_has_one_number_in_all_wells(tmp_path: Path) -> None:
    fields = {"A/1/p1": random_5d(1, 1, 1), "A/1/p2": random_5d(1, 1, 1), "A/2/p2": random_5d(1, 1, 1)}
    plate = ingest_one(write_plate(tmp_path / "P.zarr", fields, Style()))
    assert list(map(str, plate.fields)) == ["A01/1", "A01/2", "A02/2"]


def test_wells_by_number_count_from_zero_where_there_is_a_zero(tmp_path: Path) -> None:
    fields = {"0/1/0": random_5d(1, 1, 1), "2/2/0": random_5d(1, 1, 1)}
    plate = ingest_one(write_plate(tmp_path / "P.zarr", fields, Style()))
    assert plate.wells == ("A01", "C02")


def two_acquisitions(tmp_path: Path, second: tuple[str, ...]) -> Path:
    fields = {"A/1/0": random_5d(1, 2, 1), "A/1/1": random_5d(1, 2, 1, seed=1)}
    folder = write_plate(tmp_path / "P.zarr", fields, Style(), labels=("DNA", "ER"))
    write_group(folder / "A/1/1", image_attributes(Style(), second), Style())
    name_images(folder / "A/1", [{"path": "0", "acquisition": 1}, {"path": "1", "acquisition": 2}])
    return folder


def test_acquisitions_of_the_same_stains_are_sites(tmp_path: Path) -> None:
    plate = ingest_one(two_acquisitions(tmp_path, ("DNA", "ER")))
    assert list(map(str, plate.fields)) == ["A01/0", "A01/1"]


def test_acquisitions_of_other_stains_are_plates(tmp_path: Path) -> None:
    source = two_acquisitions(tmp_path, ("Actin", "Golgi"))
    summary = ingest_plates(IngestSettings(sources=(source,), out=tmp_path / "out"))
    plates = [PlateReader(plate.path) for plate in summary.plates]
    assert [(plate.name, plate.channels) for plate in plates] == [
        ("Screen_1_1", ("DNA", "ER")),
        ("Screen_1_2", ("Actin", "Golgi")),
    ]


def test_one_index_with_two_stains_is_never_one_channel(tmp_path: Path) -> None:
    source = two_acquisitions(tmp_path, ("ER", "DNA"))
    name_images(source / "A/1", [{"path": "0"}, {"path": "1"}])
    assert foresee(source).channels == ("DNA", "ER")
    (source / "A/1/1/.zattrs").write_text(json.dumps(image_attributes(Style(), ("ER", "Golgi"))))
    assert "A01/1 DNA: is missing" in foresee(source).problems


def test_contradictions_that_do_no_harm_are_noted(tmp_path: Path) -> None:
    fields = {"A/1/0": random_5d(1, 2, 1), "B/1/0": random_5d(1, 2, 1)}
    folder = write_plate(tmp_path / "P.zarr", fields, Style(), labels=("DNA", "ER", "Mito"))
    described = folder / ".zattrs"
    described.write_text(described.read_text().replace('"rowIndex": 1', '"rowIndex": 0'))
    plate = foresee(folder)
    assert plate.channels == ("DNA", "ER")
    assert any(
        "of 1 wells say another place than their path, which is taken: B/1" in line for line in plate.warnings
    )
    assert "2 fields name more or fewer channels than they have" in plate.warnings
