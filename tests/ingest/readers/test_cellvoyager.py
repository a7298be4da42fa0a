"""Yokogawa CellVoyager and CQ1: measurements written by hand in the instrument's form, with real pixels."""

import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError
from cellvim.ingest import ingest_plates
from cellvim.ingest.readers.cellvoyager.index import read_records
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.sources import SourcePlate, Wavelengths
from cellvim.store import FieldKey, PlateReader

NAMESPACE = 'xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"'
MLF = '<?xml version="1.0" encoding="utf-8"?>\n<bts:MeasurementData bts:Version="1.0" {}>\n{}\n</bts:MeasurementData>\n'
RECORD = (
    '<bts:MeasurementRecord bts:Type="{kind}" bts:Time="2023-09-18T13:58:{second:02d}.438+02:00" '
    'bts:Column="{column}" bts:Row="{row}" bts:TimePoint="{t}" bts:FieldIndex="{site}" bts:ZIndex="{z}" '
    'bts:TimelineIndex="1" bts:ActionIndex="1" bts:Action="3D" bts:X="-567.1" bts:Y="402.9" bts:Z="0.0" '
    '{extra} bts:Ch="{channel}">{name}</bts:MeasurementRecord>'
)
ERROR = (
    '<bts:MeasurementRecord bts:Type="ERR" bts:Time="2023-09-18T13:59:00.000+02:00" bts:Column="14" bts:Row="3" '
    'bts:TimePoint="1" bts:PartialTileIndex="1" bts:TimelineIndex="1" bts:X="-20.0" bts:Y="25.0">'
    "AF Error at C14 No. 0 (SAMPLE)</bts:MeasurementRecord>"
)
MRF = f"""<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementDetail bts:Version="1.0" bts:OperatorName="me" bts:Title="Screen 3" \
bts:BeginTime="2023-09-18T13:58:39.4014935+02:00" bts:MeasurementSettingFileName="Minimal.mes" \
bts:ColumnCount="12" bts:RowCount="8" bts:FieldCount="2" bts:TargetSystem="CV8000" {NAMESPACE}>
  <bts:MeasurementSamplePlate bts:Name="P7" bts:WellPlateFileName="P7.wpi" />
  <bts:MeasurementChannel bts:Ch="1" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325" \
bts:ShadingCorrectionSource="SC_BP445-45_20x v2_M01_CH01.tif" />
  <bts:MeasurementChannel bts:Ch="2" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325" />
  <bts:MeasurementChannel bts:Ch="3" bts:HorizontalPixelDimension="0.65" bts:VerticalPixelDimension="0.65" />
</bts:MeasurementDetail>"""
MES = f"""<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementSetting bts:Version="1.0" bts:Columns="12" bts:Rows="8" {NAMESPACE}>
  <bts:Timelapse><bts:Timeline bts:Name="Time Line 1"><bts:WellSequence bts:IsSelected="true">
    <bts:TargetWell bts:Column="8" bts:Row="4">true</bts:TargetWell>
    <bts:TargetWell bts:Column="3" bts:Row="5">true</bts:TargetWell>
    <bts:TargetWell bts:Column="8" bts:Row="6">true</bts:TargetWell>
    <bts:TargetWell bts:Column="1" bts:Row="1">false</bts:TargetWell>
  </bts:WellSequence></bts:Timeline></bts:Timelapse>
  <bts:LightSourceList>
    <bts:LightSource bts:Name="405nm" bts:Type="Laser" bts:WaveLength="405" />
    <bts:LightSource bts:Name="488nm" bts:Type="Laser" bts:WaveLength="488" />
    <bts:LightSource bts:Name="Lamp" bts:Type="Lamp" bts:WaveLength="0" />
  </bts:LightSourceList>
  <bts:ChannelList>
    <bts:Channel bts:Ch="1" bts:Target="DNA" bts:Acquisition="BP445/45" bts:Fluorophore="Hoechst">
      <bts:LightSourceName>405nm</bts:LightSourceName></bts:Channel>
    <bts:Channel bts:Ch="2" bts:Target="" bts:Acquisition="BP525/50" bts:Fluorophore="µ-Actin 488">
      <bts:LightSourceName>405nm</bts:LightSourceName><bts:LightSourceName>488nm</bts:LightSourceName></bts:Channel>
    <bts:Channel bts:Ch="3" bts:Target="BF" bts:Acquisition="">
      <bts:LightSourceName>Lamp</bts:LightSourceName></bts:Channel>
  </bts:ChannelList>
</bts:MeasurementSetting>"""

# Row, column, field, z, channel: the second channel was imaged in one plane only.
PLACES = [
    (row, column, site, z, channel)
    for row, column in ((4, 8), (5, 3))
    for site in (1, 2)
    for z, channel in ((1, 1), (2, 1), (1, 2))
]


def name_of(row: int, column: int, site: int, z: int, channel: int, *, action: int = 1) -> str:
    return f"P7_{chr(64 + row)}{column:02d}_T0001F{site:03d}L01A{action:02d}Z{z:02d}C{channel:02d}.tif"


def record(place: tuple[int, int, int, int, int], **changes: object) -> str:
    row, column, site, z, channel = place
    values = {"kind": "IMG", "second": 44, "t": 1, "extra": "", "name": name_of(*place)}
    values |= {"row": row, "column": column, "site": site, "z": z, "channel": channel}
    return RECORD.format(**values | changes)


def write_index(folder: Path, *records: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MeasurementData.mlf").write_text(MLF.format(NAMESPACE, "\n".join(records)), encoding="utf-8")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name, np.ones((4, 4), np.uint16))


def read(path: Path, **changes: object) -> list[SourcePlate]:
    return read_source(path, IngestSettings(sources=(path,), out=path, **changes))


@pytest.fixture
def measurement(tmp_path: Path) -> Path:
    """With an error, two correction images and an image that the index does not name."""
    folder = tmp_path / "P7_20230918"
    names = [name_of(*place) for place in PLACES]
    touch(
        folder,
        *names,
        "DC_sCMOS #3_CAM3.tif",
        "SC_BP445-45_20x v2_M01_CH01.tif",
        "P7_A01_T0001F001L01A01Z01C05.tif",
    )
    write_index(folder, *(record(place, second=index) for index, place in enumerate(PLACES)), ERROR)
    (folder / "MeasurementDetail.mrf").write_text(MRF, encoding="utf-8")
    (folder / "Minimal.mes").write_text(MES, encoding="utf-8")
    return folder


def test_every_pixel_is_tifffiles(measurement: Path, shared: Path, tmp_path: Path) -> None:
    real = sorted((shared / "data/imagexpress/ImageXpress_exported/9987_Plate_3434").rglob("*.TIF"))
    for place, image in zip(PLACES, real, strict=False):
        shutil.copy(image, measurement / name_of(*place))
    ingest_plates(IngestSettings(sources=(measurement,), out=tmp_path / "out"))
    plate = PlateReader(tmp_path / "out" / "P7.ome.zarr")
    assert (plate.channels, plate.pixel_size_um) == (("DNA", "µ-Actin 488"), 0.325)
    assert plate.fields == tuple(FieldKey(well, site) for well in ("D08", "E03") for site in (1, 2))
    for row, column, site in ((4, 8, 1), (4, 8, 2), (5, 3, 1), (5, 3, 2)):
        planes = [
            tifffile.imread(measurement / name_of(row, column, site, z, channel))
            for z, channel in ((1, 1), (2, 1), (1, 2))
        ]
        pixels = plate.read_field(FieldKey(f"{chr(64 + row)}{column:02d}", site))
        np.testing.assert_array_equal(pixels, [np.maximum(planes[0], planes[1]), planes[2]])


@pytest.mark.parametrize("named", ["", "MeasurementData.mlf"])
def test_what_the_instrument_says(named: str, measurement: Path) -> None:
    (plate,) = read(measurement / named)
    assert plate.evidence == "CellVoyager: found MeasurementData.mlf"
    assert (plate.name, plate.barcode, plate.pixel_size_um) == ("P7", "P7", 0.325)
    assert plate.acquired == "2023-09-18T13:58:39.401493+02:00"
    assert {path.suffix for path in plate.described_by} == {".mlf", ".mrf", ".mes"}
    assert plate.stains == {"1": "DNA", "2": "µ-Actin 488"}
    # Two lasers at once: neither is the excitation.
    assert plate.wavelengths == {"1": Wavelengths(405, 445), "2": Wavelengths(None, 525)}
    assert plate.declared_wells == ("D08", "E03", "F08", "C14")
    assert plate.notes == (
        "1 record(s) of type 'ERR' are no images, first: 'AF Error at C14 No. 0 (SAMPLE)'",
        "2 correction images skipped",
        "1 images are not in the index: P7_A01_T0001F001L01A01Z01C05.tif",
    )
    found = [(p.path.name, p.field, p.channel, p.z, p.t, p.is_projection) for p in plate.planes]
    expected = [
        (
            name_of(*place),
            FieldKey(f"{chr(64 + place[0])}{place[1]:02d}", place[2]),
            str(place[4]),
            place[3],
            1,
            False,
        )
        for place in PLACES
    ]
    assert found == expected


def test_a_lost_image_stops_the_plate(measurement: Path, tmp_path: Path) -> None:
    (measurement / name_of(5, 3, 2, 2, 1)).rename(
        measurement / name_of(5, 3, 2, 2, 1).replace(".tif", ".png")
    )
    (plate,) = read(measurement)
    assert len(plate.planes) == len(PLACES)
    assert "1 images are there as PNG, which is not read: P7_E03_T0001F002L01A01Z02C01.png" in plate.notes
    settings = IngestSettings(sources=(measurement,), out=tmp_path / "out")
    with pytest.raises(
        PreflightError, match=r"E03/2 DNA: P7_E03_T0001F002L01A01Z02C01.tif the file is not there"
    ):
        ingest_plates(settings)


def test_paths_of_windows_byte_order_marks_and_other_encodings(tmp_path: Path) -> None:
    touch(tmp_path, "Image/Sub/A.TIF", "moved/b.tif")
    places = [(1, 1, 1, 1, 1), (1, 1, 1, 1, 2)]
    write_index(tmp_path, record(places[0], name="image\\sub\\a.tif"), record(places[1], name="b.tif"))
    for name, text, encoding in (("MeasurementDetail.mrf", MRF, "utf-8-sig"), ("Minimal.mes", MES, "utf-16")):
        (tmp_path / name).write_text(
            text.replace('"utf-8"', f'"{encoding[:6].rstrip("-")}"'), encoding=encoding
        )
    index = tmp_path / "MeasurementData.mlf"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    (plate,) = read(tmp_path)
    assert [plane.path for plane in plate.planes] == [tmp_path / "Image/Sub/A.TIF", tmp_path / "moved/b.tif"]
    assert plate.stains["2"] == "µ-Actin 488"
    assert plate.notes == ()


def test_projections_of_a_cq1(tmp_path: Path) -> None:
    projection, plane = "Projection/W0029F0001T0001Z000C1.tif", "Image/W0029F0001T0001Z001C1.tif"
    touch(tmp_path, projection, plane)
    extra = 'bts:ZImageProcessing="Maximum" bts:ZTop="76.0" bts:ZBottom="-20.0"'
    place = (3, 5, 1, 1, 1)
    write_index(tmp_path, record(place, name=projection, extra=extra), record(place, name=plane))
    for folder in (tmp_path, tmp_path / "Image"):
        (plate,) = read(folder)
        assert [(p.field, p.z, p.is_projection) for p in plate.planes] == [
            (FieldKey("C05", 1), None, True),
            (FieldKey("C05", 1), 1, False),
        ]
        assert plate.folder.resolve() == tmp_path
        assert "projected by the instrument: Maximum (1)" in plate.notes


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ({"MeasurementDetail.mrf": None}, "no MeasurementDetail.mrf: the pixel size is unknown"),
        ({"Minimal.mes": None}, "no .mes file: channels keep their numbers"),
        ({"MeasurementDetail.mrf": "\0"}, "left out: .*MeasurementDetail.mrf is not readable"),
        (
            {"Minimal.mes": '<!DOCTYPE x [<!ENTITY a "a">]><x>&a;</x>'},
            "left out: .*Minimal.mes is not readable",
        ),
        (
            {"Minimal.mes": "<x/>"},
            "left out: .*Minimal.mes is no file of a Yokogawa instrument: it holds 'x'",
        ),
        ({"Minimal.mes": None, "A.mes": MES, "B.mes": MES}, "2 .mes files, none of them named by the .mrf"),
    ],
)
def test_lost_settings_cost_names_not_pixels(
    lost: dict[str, str | None], expected: str, measurement: Path
) -> None:
    for name, text in lost.items():
        (measurement / name).unlink(missing_ok=True)
        if text is not None:
            (measurement / name).write_text(text, encoding="utf-8")
    (plate,) = read(measurement)
    assert len(plate.planes) == len(PLACES)
    assert any(re.match(expected, note) for note in plate.notes)
    if "Minimal.mes" in lost:
        assert plate.stains == {}
    else:
        assert (plate.pixel_size_um, plate.name) == (None, "P7_20230918")
        assert plate.acquired == "2023-09-18T13:58:00.438000+02:00"


def test_channels_of_several_pixel_sizes_have_none(measurement: Path) -> None:
    text = (measurement / "MeasurementDetail.mrf").read_text()
    (measurement / "MeasurementDetail.mrf").write_text(text.replace('bts:Ch="3"', 'bts:Ch="2"'))
    (plate,) = read(measurement)
    note = "the channels have several pixel sizes (0.325, 0.65 um): none is recorded"
    assert (plate.pixel_size_um, plate.notes[-1]) == (None, note)


def test_two_actions_double_a_plane_unless_their_channels_differ(tmp_path: Path) -> None:
    places = [(1, 1, 1, 1, 1), (1, 1, 1, 1, 2)]
    names = [name_of(*places[0]), name_of(*places[1], action=2)]
    touch(tmp_path / "in", *names)
    records = [record(place, name=name) for place, name in zip(places, names, strict=True)]
    write_index(tmp_path / "in", *records)
    settings = IngestSettings(sources=(tmp_path / "in",), out=tmp_path / "out", dry_run=True)
    assert ingest_plates(settings).plates[0].problems == ()
    write_index(tmp_path / "in", *(text.replace('Ch="2"', 'Ch="1"') for text in records))
    (problem,) = ingest_plates(settings).plates[0].problems
    assert f"has 2 files for one plane: {names[0]}, {names[1]}" in problem


@pytest.mark.parametrize(
    "name", ["../../secret.tif", "/etc/passwd", "..\\..\\secret.tif", "C:\\x\\s.tif", "link/s.tif"]
)
def test_an_index_cannot_point_outside(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "secret.tif", "s.tif")
    folder = tmp_path / "a" / "b"
    touch(folder, "a.tif")
    (folder / "link").symlink_to(tmp_path)
    write_index(folder, record((1, 1, 1, 1, 1), name=name))
    with pytest.raises(InputError, match="outside of the measurement"):
        read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not readable: line 1: no element found"),
        ("<a><b></a>", "is no file of a Yokogawa instrument"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>', "not readable"),
        ('<?xml version="1.0" encoding="klingon"?><x/>', "not readable"),
        ("<x/>", "is no file of a Yokogawa instrument: it holds 'x', expected MeasurementData"),
        ("<MeasurementData/>", "names no images"),
        ("<MeasurementData>" + "<a>" * 1200, "32 deep, expected a list of records"),
        (MLF.format(NAMESPACE, record((33, 1, 1, 1, 1))), "outside of any plate"),
        (
            MLF.format(
                NAMESPACE, record((1, 1, 1, 1, 1), name="a.tif") + record((1, 1, 1, 1, 2), name="a.tif")
            ),
            r"names a.tif twice: for .* A01/1 1 .* and for .* A01/1 2",
        ),
        (MLF.format(NAMESPACE, record((1, 1, 1, 1, 1), site="x")), "has FieldIndex 'x', expected a number"),
        (MLF.format(NAMESPACE, record((1, 1, 1, 1, 1), name="")), "lacks a file name"),
        (
            MLF.format(NAMESPACE, '<MeasurementRecord Row="1" Column="1">a.tif</MeasurementRecord>'),
            "lacks a file name",
        ),
    ],
)
def test_an_index_that_is_broken_or_hostile(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "MeasurementData.mlf").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_names_alone(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "My_plate_B03_T0002F004L01A02Z03C05.tif",
        "My_plate_AF48_T0002F001L01A01Z00C01.TIF",
        "SC_x.tif",
        "odd.tif",
    )
    (plate,) = read(tmp_path)
    assert "1 images have other names: odd.tif" in plate.notes
    assert plate.evidence.endswith("_T0002F001L01A01Z00C01.TIF, and no MeasurementData.mlf")
    assert plate.name == "My_plate"
    assert [(p.field, p.channel, p.z, p.t, p.is_projection) for p in plate.planes] == [
        (FieldKey("AF48", 1), "1", None, 2, True),
        (FieldKey("B03", 4), "5", 3, 2, False),
    ]


def test_names_alone_that_number_the_wells(tmp_path: Path) -> None:
    touch(tmp_path, "M/Image/W0029F0001T0001Z001C1.tif", "M/Projection/W0069F0002T0001Z000C1.tif")
    with pytest.raises(InputError, match=r"W0029.* nothing says how many columns the plate has"):
        read(tmp_path)
    (tmp_path / "M" / "MeasurementDetail.mrf").write_text(MRF.replace('Name="P7"', 'Name="NoPlateID"'))
    (plate,) = read(tmp_path)
    assert (plate.name, plate.pixel_size_um) == ("Screen_3", 0.325)
    assert [(p.field, p.z) for p in plate.planes] == [(FieldKey("C05", 1), 1), (FieldKey("F09", 2), None)]


def test_two_measurements_of_one_plate_are_told_apart(measurement: Path) -> None:
    shutil.copytree(measurement, measurement / "second")
    first, second = read(measurement)
    assert (first.name, first.barcode, second.name, second.barcode) == ("P7_20230918", "P7", "second", "P7")
    assert (len(first.planes), len(second.planes), first.notes) == (12, 12, second.notes)


def test_an_index_that_contradicts_the_names_of_its_images_is_named(measurement: Path) -> None:
    index = measurement / "MeasurementData.mlf"
    index.write_text(index.read_text().replace('bts:Column="3"', 'bts:Column="4"', 1))
    (plate,) = read(measurement)
    note = f"than the index gives them: {name_of(5, 3, 1, 1, 1)} (E04/1, channel 1)"
    assert any(line.endswith(note) for line in plate.notes)


def test_tiles_are_named(tmp_path: Path) -> None:
    tiles = ((f"{n}.tif", f'bts:PartialTileIndex="{n}"') for n in (1, 2))
    write_index(tmp_path, *(record((1, 1, 1, 1, 1), name=name, extra=extra) for name, extra in tiles))
    (plate,) = read(tmp_path)
    assert "fields are tiled in 2: tiles are not stitched" in plate.notes


def test_a_long_index_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    write_index(tmp_path, *(record((1, 1, site, 1, 1)) for site in range(1, 4_001)))
    path = tmp_path / "MeasurementData.mlf"
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_records(path)) == 4_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 1e6
    assert peak < 5e5


def test_folders_of_other_kinds_are_not_recognised(tmp_path: Path) -> None:
    touch(tmp_path, "P_B02_s1_w1.tif")
    with pytest.raises(InputError, match=r"no MeasurementData.mlf, and no names such as"):
        read(tmp_path, source="cellvoyager")


@pytest.mark.parametrize("name", ["MeasurementData.mlf", "MeasurementDetail.mrf", "Minimal.mes"])
def test_damaged_files_give_planes_or_one_clear_error(name: str, measurement: Path) -> None:
    content = (measurement / name).read_bytes()
    generator = np.random.default_rng(len(name))
    refused = 0
    for _ in range(100):
        (measurement / name).write_bytes(mutate(content, generator))
        try:
            assert all(plate.planes for plate in read(measurement))
        except InputError:
            refused += 1
    assert refused > 10 if name.endswith("mlf") else refused == 0


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut off, leave out, double, overwrite with noise, or with something nasty."""
    start = int(generator.integers(len(content)))
    end = min(len(content), start + int(generator.choice([1, 3, 40, 400])))
    nasty = [b"\0", b"&a;", b"9" * 11, b'"', b"\xff\xfe", b"-1"][generator.integers(6)]
    middles = [content[start:end] * 2, generator.bytes(end - start), nasty, b""]
    which = int(generator.integers(5))
    return content[:start] if which == 4 else content[:start] + middles[which] + content[end:]
