"""Cellomics / ArrayScan: everything is in the names."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError
from cellvim.ingest import ingest_plates
from cellvim.ingest.readers.cellomics import CellomicsReader
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.sources import Source, SourcePlate
from cellvim.store import FieldKey, PlateReader, verify_plate

PLATE = "AS_09125_050116030001"


def read(folder: Path, **changes: object) -> list[SourcePlate]:
    return read_source(folder, IngestSettings(sources=(folder,), out=folder, **changes))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.ones((4, 4), np.uint16))


@pytest.mark.parametrize(
    ("name", "plate", "barcode", "field", "channel"),
    [
        (f"{PLATE}_D03f00d0.tif", PLATE, "050116030001", FieldKey("D03", 0), "0"),
        ("MFGTMP_140206180002_A01f00d0.TIF", "MFGTMP_140206180002", "140206180002", FieldKey("A01", 0), "0"),
        (
            "mfgtmp-pc170319090001_p24F12D3.tiff",
            "mfgtmp-pc170319090001",
            "170319090001",
            FieldKey("P24", 12),
            "3",
        ),
        ("Screen A_B7f005d10.tif", "Screen_A", "Screen A", FieldKey("B07", 5), "10"),
        ("P_AF48f01d1.tif", "P", "P", FieldKey("AF48", 1), "1"),
        ("P_A01_B02f01d1.tif", "P_A01", "P_A01", FieldKey("B02", 1), "1"),
        ("P_B02d1.tif", "P", "P", FieldKey("B02", 0), "1"),
    ],
)
def test_names(tmp_path: Path, name: str, plate: str, barcode: str, field: FieldKey, channel: str) -> None:
    touch(tmp_path, name)
    (found,) = read(tmp_path)
    assert found.evidence == f"Cellomics: found names such as {name}"
    assert (found.name, found.barcode) == (plate, barcode)
    assert [(plane.field, plane.channel, plane.z, plane.t) for plane in found.planes] == [
        (field, channel, None, None)
    ]
    assert found.stains == {channel: f"d{channel}"}
    # The digits look like a date, and nothing says that they are one.
    assert (found.acquired, found.pixel_size_um, found.notes) == (None, None, ())


@pytest.mark.parametrize(
    "name",
    ["P_A49f00d0.tif", "P_AG01f00d0.tif", "A01f00d0.tif", "P_A01f00.tif", "P_A01f00x0.tif", "P_A01f00d0.png"],
)
def test_names_that_are_others(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name) if name.endswith("tif") else (tmp_path / name).touch()
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, source="cellomics")
    assert CellomicsReader().recognise(Source(tmp_path), settings) is None
    with pytest.raises(InputError, match="holds no images such as PLATE_A01f00d0"):
        read(tmp_path, source="cellomics")


def test_masks_thumbnails_and_strangers_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, f"{PLATE}_A01f00d0.tif", f"{PLATE}_A01f00o1.tif", f"{PLATE}_A01f00d1o1.tif")
    touch(tmp_path, f"{PLATE}_A01f00d0_thumb.tif", "montage.tif", "q/X_A01f00d0LINE.tif")
    (tmp_path / f"{PLATE}_A02f00d0.C01").touch()
    (plate,) = read(tmp_path)
    assert [plane.path.name for plane in plate.planes] == [f"{PLATE}_A01f00d0.tif"]
    assert plate.notes == (
        f"2 images are made from others, and left out: {PLATE}_A01f00d0_thumb.tif, {PLATE}_A01f00d1o1.tif",
        f"1 masks of objects are left out: {PLATE}_A01f00o1.tif",
        "2 images have other names: montage.tif, X_A01f00d0LINE.tif",
        f"1 native files are not read: {PLATE}_A02f00d0.C01",
    )


def test_images_that_are_all_named_o(tmp_path: Path) -> None:
    touch(tmp_path, "P_A01f00o1.tif", "P_A01f00o2.tif")
    (plate,) = read(tmp_path)
    assert plate.stains == {"1": "o1", "2": "o2"}
    assert plate.notes == ("all images are named o, not d: they may be masks of objects",)


@pytest.mark.parametrize("suffix", ["C01", "c01", "DIB"])
def test_native_files_are_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"{PLATE}_A01f00d0.{suffix}").touch()
    with pytest.raises(
        InputError, match=r"1 images in the instrument's own format \(AS_.*\), no TIFFs"
    ) as caught:
        read(tmp_path)
    assert "TIFF" in caught.value.hint


def test_several_plates_in_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b/Q_1_A01f00d0.tif", f"{PLATE}_A01f00d0.tif", f"{PLATE.lower()}_a02f00d0.TIF")
    plates = read(tmp_path)
    assert [plate.name for plate in plates] == [PLATE, "Q_1"]
    assert [len(plate.planes) for plate in plates] == [2, 1]


def test_a_plate_without_a_safe_name_gets_one_from_the_user(tmp_path: Path) -> None:
    touch(tmp_path, "培养板_A01f00d0.tif")
    with pytest.raises(InputError, match="cannot be a plate name"):
        read(tmp_path)
    assert read(tmp_path, plate="P7")[0].name == "P7"


@pytest.fixture
def real_images(shared: Path, tmp_path: Path) -> Path:
    """Real images under the names of two wells with two fields and three channels, of unlike pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    real = sorted((shared / "data/imagexpress/ImageXpress_exported").rglob("*_s[12]_w[12].TIF"))
    names = [
        f"{PLATE}_{well}f{field}d{channel}.tif"
        for well in ("B2", "B10")
        for field in ("00", "01")
        for channel in (0, 2, 10)
    ]
    for source, name in zip(real, names, strict=False):
        shutil.copy(source, folder / name)
    return folder


def test_every_pixel_is_tifffiles(real_images: Path, tmp_path: Path) -> None:
    ingest_plates(IngestSettings(sources=(real_images,), out=tmp_path / "out", channels="0=DNA"))
    plate = PlateReader(tmp_path / "out" / f"{PLATE}.ome.zarr")
    assert plate.channels == ("DNA", "d2", "d10")
    assert [str(field) for field in plate.fields] == ["B02/0", "B02/1", "B10/0", "B10/1"]
    for field in plate.fields:
        stem = f"{PLATE}_B{int(field.well[1:])}f{field.site:02d}"
        expected = [tifffile.imread(real_images / f"{stem}d{channel}.tif") for channel in (0, 2, 10)]
        np.testing.assert_array_equal(plate.read_field(field), np.stack(expected))
    assert len({plate.read_field(field).tobytes() for field in plate.fields}) == 4
    assert verify_plate(plate.path) == []


def test_a_channel_that_some_wells_lack_is_reported(real_images: Path, tmp_path: Path) -> None:
    for field in ("00", "01"):
        (real_images / f"{PLATE}_B10f{field}d10.tif").unlink()
    settings = IngestSettings(sources=(real_images,), out=tmp_path / "out")
    with pytest.raises(PreflightError) as caught:
        ingest_plates(settings)
    assert caught.value.problems
    assert all(line.startswith("B10") and "d10: is missing" in line for line in caught.value.problems)
    shutil.copy(real_images / f"{PLATE}_B2f00d0.tif", real_images / f"{PLATE}_B02f00d0.tif")
    with pytest.raises(PreflightError, match=r"B02/0 d0: has 2 files for one plane"):
        ingest_plates(settings)
