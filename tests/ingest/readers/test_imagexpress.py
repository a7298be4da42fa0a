"""ImageXpress folders as MetaXpress stores and exports them, with the oddities that real ones have."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest import ingest_plates
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.readers.imagexpress.header import read_plane_info
from cellvim.ingest.readers.imagexpress.plan import parse_plan
from cellvim.ingest.readers.imagexpress.reader import ImageXpressReader
from cellvim.ingest.readers.plate_names import tell_apart
from cellvim.ingest.sources import Source, SourcePlate, Wavelengths
from cellvim.store import FieldKey, PlateReader

GUID = "66923EBB-9960-4952-8955-D1721D112EE2"
NUMERIC = "17654C10-92F1-4DFD-98AA-6A01BBD77557"
REAL = "data/imagexpress"


def read(folder: Path, **changes: object) -> list[SourcePlate]:
    return read_source(folder, IngestSettings(sources=(folder,), out=folder, **changes))


def touch(folder: Path, *names: str, description: str | None = None) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.ones((4, 4), np.uint16), description=description, metadata=None)


def xml(**properties: str) -> str:
    named = {key.replace("_", "-"): value for key, value in properties.items()}
    lines = (f'<prop id="{key}" type="string" value="{value}"/>' for key, value in named.items())
    return "<MetaData>\n<PlaneInfo>\n" + "\n".join(lines) + "\n</PlaneInfo>\n</MetaData>"


@pytest.mark.parametrize(
    ("name", "plate", "well", "site", "channel"),
    [
        (f"P-1_B02_s3_w2{GUID}.tif", "P-1", "B02", 3, "2"),
        (f"P-1_B02_s3{GUID}.tif", "P-1", "B02", 3, "1"),
        (f"P-1_B02_w1{GUID}.tif", "P-1", "B02", 1, "1"),
        (f"P-1_B02{GUID}.tif", "P-1", "B02", 1, "1"),
        # The GUID begins with digits, so that site and wavelength could be anything.
        (f"Projection-Mix_E08_s1{NUMERIC}.tif", "Projection-Mix", "E08", 1, "1"),
        ("Week1_150607_B02_s1_w107447158-AC92-4844-8348-8910C753BACF.tif", "Week1_150607", "B02", 1, "1"),
        (f"IXMtest_P24_s9_w5_[{GUID}].tif", "IXMtest", "P24", 9, "5"),
        ("P-1_B02_s12_w11.TIF", "P-1", "B02", 12, "11"),
        ("P-1_B02.TIF", "P-1", "B02", 1, "1"),
        ("P_B7_s1_w1.tif", "P", "B07", 1, "1"),
        ("P_AA01_w1.tif", "P", "AA01", 1, "1"),
        ("P_AF48_s2_w1.TIFF", "P", "AF48", 2, "1"),
        ("P_S12_s1_w1.tif", "P", "S12", 1, "1"),
        ("p_b02_s1_w1.tif", "p", "B02", 1, "1"),
        ("My plate_A01_2_C03_s1_w2.tif", "My_plate_A01_2", "C03", 1, "2"),
        ("A01_s1_w2.tif", "folder", "A01", 1, "2"),
    ],
)
def test_names(name: str, plate: str, well: str, site: int, channel: str, tmp_path: Path) -> None:
    touch(tmp_path / "folder", name)
    (found,) = read(tmp_path / "folder", source="imagexpress")
    assert found.name == plate
    assert [(plane.field, plane.channel) for plane in found.planes] == [(FieldKey(well, site), channel)]


@pytest.mark.parametrize(
    "name",
    ["P_s1_w1.tif", "P_s12_w11.tif", "P_w1DAPI_s1_t1.TIF", "P_B49_w1.tif", "P_AG01_w1.tif", "P_B02_w1.png"],
)
def test_other_names(name: str, tmp_path: Path) -> None:
    touch(tmp_path, name)
    with pytest.raises(InputError, match="no ImageXpress images"):
        read(tmp_path, source="imagexpress")


@pytest.mark.parametrize(
    ("name", "is_recognised"),
    [
        ("P_B02_w1.tif", True),
        (f"P_B02_s1{GUID}.tif", True),
        ("TimePoint_1/P_B02.TIF", True),
        ("P_B02_s1.tif", False),
    ],
)
def test_a_well_alone_could_be_anybodys(name: str, is_recognised: bool, tmp_path: Path) -> None:
    touch(tmp_path, name)
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path)
    assert (ImageXpressReader().recognise(Source(tmp_path), settings) is not None) == is_recognised


def test_thumbnails_are_skipped_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "P_B02_s1_w1.tif", f"P_B02_s1_w1_thumb{GUID}.tif", "P_B02_s2_thumb.tif", "other.tif")
    (plate,) = read(tmp_path)
    assert len(plate.planes) == 1
    assert plate.thumbnails == 2
    assert plate.notes == ("1 images are not named as MetaXpress does: other.tif",)


def test_projections_are_no_planes(tmp_path: Path) -> None:
    touch(tmp_path, "a/P_B02_s1_w1.tif", "a/ZStep_1/P_B02_s1_w1.tif", "b/ZStep_0/P_B02_s1_w1.tif")
    touch(tmp_path, "c/TimePoint_3/ZStep_2/P_B02_s1_w1.tif")
    planes = [plane for plate in read(tmp_path) for plane in plate.planes]
    assert [(plane.z, plane.t, plane.is_projection) for plane in planes] == [
        (None, None, True),
        (1, None, False),
        (None, None, True),
        (2, 3, False),
    ]


def test_steps_and_times_in_names(tmp_path: Path) -> None:
    touch(tmp_path, "timepoint0/P_t0_C05_s0_w0_z0.tif", "P_C05_s1_w1_z2_t3.tif")
    (plate,) = read(tmp_path)
    assert [(plane.field, plane.channel, plane.z, plane.t) for plane in plate.planes] == [
        (FieldKey("C05", 1), "1", 2, 3),
        (FieldKey("C05", 0), "0", 0, 0),
    ]


HTD = (
    '"HTSInfoFile", Version 1.0\r\n"Description", "5 \xb5m \x81"\r\n"ZSteps", 3\r\n"TimePoints", 1\r\n'
    '"WellsSelection1", FALSE, TRUE\r\n"WellsSelection2", TRUE, TRUE\r\n"SiteSelection1", TRUE, FALSE\r\n'
    '"SiteSelection2", TRUE, TRUE\r\n"NWavelengths", 4\r\n"WaveName1", "DAPI"\r\n"WaveName2", "Texas, Red"\r\n'
    '"WaveName3", "Cy5"\r\n"WaveName4", "TL"\r\n"WaveCollect4", 0\r\n'
)


def test_a_plan_of_a_foreign_code_page_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "TimePoint_1" / "P.HTD"
    touch(
        tmp_path, "TimePoint_1/P_B02_s1_w1.tif", "TimePoint_1/P_B02_s3_w2.tif", "TimePoint_1/P_H12_s3_w2.tif"
    )
    path.write_bytes(HTD.encode("latin-1"))
    plan = parse_plan(path)
    assert plan.stains == {"1": "DAPI", "2": "Texas, Red", "3": "Cy5", "4": "TL"}
    assert (plan.wells, plan.sites) == (("A02", "B01", "B02"), 3)
    (plate,) = read(tmp_path)
    assert (plate.evidence, plate.described_by) == ("ImageXpress: found P.HTD", (path,))
    assert plate.declared_wells == ("A02", "B01", "B02")
    assert plate.notes == (
        "P.HTD declares wavelengths without any file: 3 (Cy5)",
        "P.HTD declares 3 z steps, found 0",
        "P.HTD declares 3 sites per well, found 2",
        "P.HTD does not select 1 well(s) with images: H12",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(100), r"is not a .HTD file"),
        (b'"HTSInfoFile"\n"WellsSelection33", TRUE', r"selects a well that no plate has: row 33"),
        (b'"HTSInfoFile"\n"a", ' + b"x" * 200_000, "cannot be read: field larger"),
    ],
)
def test_what_is_no_plan_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "P_B02_s1_w1.tif")
    (tmp_path / "P.HTD").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_of_several_plans_the_plates_own_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "P_B02_w1.tif", "Q_B02_w1.tif", "R_B02_w1.tif")
    for plate, stain in (("P", "DNA"), ("q", "ER")):
        (tmp_path / f"{plate}.HTD").write_text(f'"HTSInfoFile"\n"WaveName1", "{stain}"\n"NWavelengths", ²')
    assert [plate.stains for plate in read(tmp_path)] == [{"1": "DNA"}, {"1": "ER"}, {"1": "w1"}]


def test_plates_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "9987_Plate_1/9987_A01_w1.tif", "9987_Plate_2/9987_A01_w1.tif", "x/Q_A01_w1.tif")
    touch(tmp_path, "Mix/2023-02-21/1334/Mix_A01_w1.tif", "Mix/2023-02-21/1340/TimePoint_1/Mix_A01_w1.tif")
    touch(tmp_path, "A117/HTS_A01_w1.tif", "A118/HTS_A01_w1.tif")
    assert [(plate.name, plate.barcode) for plate in read(tmp_path)] == [
        ("9987_Plate_1", "9987"),
        ("9987_Plate_2", "9987"),
        ("A117", None),
        ("A118", None),
        ("Mix_1334", "Mix"),
        ("Mix_1340", "Mix"),
        ("Q", None),
    ]


def test_folders_of_one_wavelength_each_make_one_plate(tmp_path: Path) -> None:
    for plate in ("20585", "20586"):
        for wave in (1, 2):
            touch(tmp_path, f"images_{plate}w{wave}/IXMtest_A01_s1_w{wave}{GUID}.tif")
    # The folder's number is not that of its images: nothing says that these belong together.
    touch(tmp_path, "x_w1/Q_A01_s1_w1.tif", "x_w2/Q_A01_s1_w1.tif")
    assert [(plate.name, [plane.channel for plane in plate.planes]) for plate in read(tmp_path)] == [
        ("images_20585", ["1", "2"]),
        ("images_20586", ["1", "2"]),
        ("x_w1", ["1"]),
        ("x_w2", ["1"]),
    ]


def test_names_that_no_file_can_have() -> None:
    roots = [Path("/s/P1/images"), Path("/s/P2/images"), Path("/s/a/x"), Path("/s/b/x"), Path("/標")]
    own = ["HTS", "HTS", "標", "標", "標"]
    assert tell_apart(list(zip(roots, own, strict=True))) == ["P1", "P2", "a", "b", "plate"]


def test_what_metaxpress_writes_into_an_image(shared: Path) -> None:
    folder = shared / REAL / "ImageXpress_exported/9987_Plate_3434/TimePoint_1"
    info = read_plane_info(folder / "ZStep_1" / "9987_B02_s1_w3.TIF")
    assert (info.stain, info.pixel_size_um, info.emission_nm) == ("Texas Red", (1.3672, 1.3672), 624)
    assert (info.acquired, info.z, info.is_projection) == ("2024-07-09T13:13:05.008", 1, False)
    assert read_plane_info(folder / "ZStep_0" / "9987_B02_s1_w1.TIF").is_projection


def test_a_real_export_holds_copies_of_what_was_not_imaged(shared: Path) -> None:
    plates = {plate.name: plate for plate in read(shared / REAL / "ImageXpress_exported")}
    stack, series = plates["9987_Plate_3434"], plates["9987_Plate_3435"]
    assert stack.notes[-2:] == (
        "FITC: ZStep_1, ZStep_2 hold the projection, copied on export",
        "Texas Red: ZStep_2 hold the image of z step 1, copied on export",
    )
    assert series.notes[-1] == "FITC: TimePoint_2 hold the image of time point 1, copied on export"
    assert series.acquired == "2024-07-09T13:15:50.916"
    assert series.wavelengths == {"1": Wavelengths(None, 452.0), "2": Wavelengths(None, 520.0)}
    # And the pixels say so too.
    first, second = (
        tifffile.imread(
            shared / REAL / f"ImageXpress_exported/9987_Plate_3435/TimePoint_{t}/9987_B02_s1_w2.TIF"
        )
        for t in (1, 2)
    )
    np.testing.assert_array_equal(first, second)


def test_images_that_disagree_about_their_pixels_have_no_size(tmp_path: Path) -> None:
    size = {"spatial_calibration_units": "um", "image_name": "Copy of D&#38;A", "acquisition_time_local": "x"}
    touch(tmp_path, "P_A01_w1.tif", description=xml(spatial_calibration_x="0.65", wavelength="nan", **size))
    touch(tmp_path, "P_A01_w2.tif", description=xml(spatial_calibration_x="1.3", wavelength="0", **size))
    (plate,) = read(tmp_path)
    assert (plate.pixel_size_um, plate.wavelengths, plate.acquired) == (None, {}, None)
    assert plate.stains == {"1": "D&A", "2": "D&A"}
    assert plate.notes == ("the images name several pixel sizes (0.65, 1.3 um): none is recorded",)


def test_a_calibration_that_is_switched_off_is_none(tmp_path: Path) -> None:
    size = {"spatial_calibration_units": "um", "spatial_calibration_x": "1"}
    for state, expected in (("on", 1.0), ("off", None)):
        described = xml(spatial_calibration_state=state, **size)
        touch(tmp_path / state, "P_A01_w1.tif", description=described)
        assert read(tmp_path / state)[0].pixel_size_um == expected


def test_a_channel_that_is_not_imaged_at_every_time_point_is_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"TimePoint_{t}/P_A01_w1.tif" for t in (1, 2, 3)), "TimePoint_3/P_A01_w2.tif")
    (plate,) = read(tmp_path)
    assert plate.notes == ("w2 has images at time points 3 only",)


@pytest.fixture
def ragged(shared: Path, tmp_path: Path) -> Path:
    """A real plate of two wells and sites, of which one lost a z step, one a channel, and one was doubled."""
    folder = tmp_path / "9987_Plate_3434"
    shutil.copytree(shared / REAL / "ImageXpress_exported" / folder.name, folder)
    steps = folder / "TimePoint_1"
    (steps / "ZStep_2" / "9987_B02_s2_w1.TIF").unlink()
    for path in steps.glob("*/9987_B03_s1_w3.TIF"):
        path.unlink()
    shutil.copy(steps / "ZStep_1/9987_B03_s2_w2.TIF", steps / "ZStep_1/9987_B3_s2_w2.tiff")
    return folder


def test_a_ragged_plate_is_refused_with_every_gap(ragged: Path, tmp_path: Path) -> None:
    settings = IngestSettings(sources=(ragged,), out=tmp_path / "out", dry_run=True)
    (plate,) = ingest_plates(settings).plates
    text = "\n".join(plate.problems)
    for line in (
        "B02/2 DAPI: is missing z 2",
        "B03/1 Texas Red: is missing",
        "B03/2 FITC: has 2 files for one plane",
    ):
        assert line in text
    assert len(plate.problems) == 3


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        ("skip-field", {("B02", 1): ()}),
        ("fill", {("B02", 1): (), ("B02", 2): (0,), ("B03", 1): (2,), ("B03", 2): (1,)}),
    ],
)
def test_what_is_left_of_a_ragged_plate_is_tifffiles(
    policy: str, fields: dict[tuple[str, int], tuple[int, ...]], ragged: Path, tmp_path: Path
) -> None:
    ingest_plates(IngestSettings(sources=(ragged,), out=tmp_path / "out", on_missing=policy))
    plate = PlateReader(tmp_path / "out" / f"{ragged.name}.ome.zarr")
    assert plate.fields == tuple(FieldKey(*key) for key in fields)
    for (well, site), gaps in fields.items():
        pixels = plate.read_field(FieldKey(well, site))
        for index in range(3):
            names = [f"ZStep_{z}/9987_{well}_s{site}_w{index + 1}.TIF" for z in (1, 2)]
            expected = (
                np.zeros((256, 256))
                if index in gaps
                else np.max([tifffile.imread(ragged / "TimePoint_1" / name) for name in names], axis=0)
            )
            np.testing.assert_array_equal(pixels[index], expected)


def test_damaged_plans_give_planes_or_one_clear_error(shared: Path, tmp_path: Path) -> None:
    touch(tmp_path, "9987_B02_s1_w1.TIF", "9987_B03_s2_w2.TIF")
    content = (shared / REAL / "ImageXpress_exported/9987_Plate_3434/9987.HTD").read_bytes()
    generator = np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        start = int(generator.integers(len(content)))
        end = start + int(generator.choice([1, 3, 40, 400]))
        nasty = [b"\0", b"9" * 11, b'"', b"\xb2", b"-1", b"\r", b"TRUE, " * 60][generator.integers(7)]
        middle = [content[start:end] * 2, generator.bytes(end - start), nasty, b""][generator.integers(4)]
        (tmp_path / "9987.HTD").write_bytes(content[:start] + middle + content[end:])
        try:
            assert [len(plate.planes) for plate in read(tmp_path)] == [2]
        except InputError:
            refused += 1
    assert 0 < refused < 150
