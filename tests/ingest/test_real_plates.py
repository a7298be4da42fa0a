"""Real plates: every pixel read back equals what tifffile reads from the vendor's files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest import ingest_plates
from cellvim.store import FieldKey, PlateReader, split_well, verify_plate

Expected = Callable[[Path, FieldKey], list[np.ndarray]]


def read_one(folder: Path, name: str) -> np.ndarray:
    (path,) = folder.glob(name)
    return tifffile.imread(path)


def bbbc013(data: Path, field: FieldKey) -> list[np.ndarray]:
    row, column = split_well(field.well)
    folder = data / "bbbc013" / "images"
    return [read_one(folder, f"Channel{channel}-*-{row}-{column}.tif") for channel in (1, 2)]


def single(data: Path, field: FieldKey) -> list[np.ndarray]:
    folder = data / "imagexpress/ImageXpress_exported/9987_Plate_3420/TimePoint_1"
    return [read_one(folder, f"9987_{field.well}.TIF")]


def stack(data: Path, field: FieldKey) -> list[np.ndarray]:
    folder = data / "imagexpress/ImageXpress_exported/9987_Plate_3434/TimePoint_1"
    name = f"9987_{field.well}_s{field.site}_w{{}}.TIF"
    steps = [[read_one(folder / f"ZStep_{z}", name.format(w)) for w in (1, 2, 3)] for z in (1, 2)]
    return list(np.max(steps, axis=0))


def series(data: Path, field: FieldKey) -> list[np.ndarray]:
    folder = data / "imagexpress/ImageXpress_exported/9987_Plate_3435/TimePoint_1"
    return [read_one(folder, f"9987_{field.well}_s{field.site}_w{w}.TIF") for w in (1, 2)]


def beads(data: Path, field: FieldKey) -> list[np.ndarray]:
    """Channels 1-3 have the instrument's projection, channel 4 is a single plane."""
    folder = data / "imagexpress/Projection-Mix/2023-02-21/1334"
    name = f"Projection-Mix_{field.well}_s{field.site}_w{{}}????????-*.tif"
    top = [read_one(folder, name.format(w)) for w in (1, 2, 3)]
    return [*top, read_one(folder / "ZStep_1", name.format(4))]


def ragged(data: Path, field: FieldKey) -> list[np.ndarray]:
    folder = data / "imagexpress/1well-3C-2S-Zmix-T/2024-04-22/1697/TimePoint_2"
    name = f"1well-3C-2S-Zmix-T_{field.well}_s{field.site}_w{{}}????????-*.tif"
    return [read_one(folder, name.format(w)) for w in (1, 2, 3)]


def operetta(data: Path, field: FieldKey) -> list[np.ndarray]:
    folder = data / "operetta/operetta_plate/Images"
    return [read_one(folder, f"r03c03f{field.site:02d}p01-ch1sk1fk1fl1.tiff")]


def schwann(data: Path, field: FieldKey) -> list[np.ndarray]:
    row, column = split_well(field.well)
    name = f"{row}{int(column)}_01_{{}}_{field.site}_{{}}_001.tif"
    stains = enumerate(("DAPI", "GFP", "RFP"), start=1)
    return [read_one(data / "nf1_schwann/images", name.format(*pair)) for pair in stains]


# name: expected pixels, wells, fields, channels, pixel size in um
PLATES: dict[str, tuple[Expected, int, int, tuple[str, ...], float | None]] = {
    "1049": (bbbc013, 48, 48, ("GFP", "DNA"), None),
    "9987_Plate_3420": (single, 1, 1, ("DAPI",), 1.3672),
    "9987_Plate_3434": (stack, 2, 4, ("DAPI", "FITC", "Texas Red"), 1.3672),
    "9987_Plate_3435": (series, 2, 4, ("DAPI", "FITC"), 1.3672),
    "Projection-Mix": (beads, 2, 4, ("FITC_05", "FITC_05-2", "FITC_05-3", "FITC_05-4"), 1.3668),
    "1well-3C-2S-Zmix-T": (ragged, 1, 2, ("FITC", "Cy3", "Texas Red"), 13.5504),
    "Test_Sample_BALL": (operetta, 1, 2, ("Fluorescein (FITC)",), 1.195952162),
    "NF1": (schwann, 5, 5, ("DAPI", "GFP", "RFP"), None),
}


@pytest.mark.parametrize("name", PLATES)
def test_every_pixel_is_tifffiles(name: str, real_plates: dict[str, Path], shared: Path) -> None:
    expected, wells, fields, channels, pixel_size_um = PLATES[name]
    plate = PlateReader(real_plates[name])
    assert (len(plate.wells), len(plate.fields)) == (wells, fields)
    assert (plate.channels, plate.pixel_size_um) == (channels, pixel_size_um)
    assert plate.skipped == {}
    for field in plate.fields:
        planes = np.stack(expected(shared / "data", field))
        assert plate.dtype == planes.dtype
        np.testing.assert_array_equal(plate.read_field(field), planes)
    assert verify_plate(plate.path) == []


def test_every_real_plate_is_looked_at(real_plates: dict[str, Path]) -> None:
    assert set(real_plates) == set(PLATES)


def test_the_first_real_plate_has_its_plate_map(real_plates: dict[str, Path]) -> None:
    platemap = PlateReader(real_plates["1049"]).platemap
    assert platemap is not None
    assert platemap.height == 48


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("imagexpress/ImageXpress_exported", {}, "9987_Plate_3435 has 2 time points: 1, 2"),
        ("imagexpress/1well-3C-2S-Zmix-T", {}, "has 2 time points: 1, 2"),
        ("imagexpress/Projection-Mix", {"z": 5}, r"no channel has z plane 5 \(there are 1\)"),
        ("nf1_schwann", {}, "30 images, of no kind"),
        ("nf1_schwann", {"pattern": "{well}_{}.tif"}, r"B07/1 1: has 6 files for one plane"),
        ("metadata", {}, "holds no TIFF images"),
        (
            "bbbc013",
            {"pattern": "{well}_{channel}.tif"},
            r"matches none of the 96 files .* images/Channel1-01",
        ),
    ],
)
def test_odd_folders_are_refused_for_the_right_reason(
    source: str, changes: dict[str, object], message: str, shared: Path, tmp_path: Path
) -> None:
    settings = IngestSettings(sources=(shared / "data" / source,), out=tmp_path / "out", **changes)
    with pytest.raises(InputError, match=message):
        ingest_plates(settings)
    assert not (tmp_path / "out").exists()


def test_projections_and_planes_are_not_mixed(shared: Path, tmp_path: Path) -> None:
    """With a z plane asked for, a channel that only has the instrument's projection counts as missing."""
    source = shared / "data/imagexpress/Projection-Mix"
    settings = IngestSettings(sources=(source,), out=tmp_path / "out", z=1, dry_run=True, on_missing="fill")
    (plate,) = ingest_plates(settings).plates
    (problem,) = plate.problems
    assert problem.startswith("channel 3 (FITC_05-3) has no plane at the z asked for")
