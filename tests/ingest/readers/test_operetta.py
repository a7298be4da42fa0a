"""Harmony measurements: every place an index may lie in, every way it says things, and images without an index."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError
from cellvim.ingest import ingest_plates
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.sources import SourcePlate, Wavelengths
from cellvim.store import FieldKey, PlateReader

INDEX = """<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="{namespace}"><Plates><Plate>{plate}</Plate></Plates>
<Wells><Well><id>0203</id><Row>2</Row><Col>3</Col><Image id="0203K1F1P1R1" /></Well></Wells>
{maps}<Images>{images}</Images></EvaluationInputData>"""
IMAGE = (
    "<Image><id>x</id><State>{state}</State><URL>{url}</URL><Row>2</Row><Col>3</Col><FieldID>{field}</FieldID>"
    "<PlaneID>{z}</PlaneID><TimepointID>{t}</TimepointID><ChannelID>{channel}</ChannelID>"
    "<ImageType>{kind}</ImageType>{extra}</Image>"
)
FACTS = (
    "<ChannelName>DAPI</ChannelName><ImageResolutionX Unit='m'>6.5E-07</ImageResolutionX>"
    "<MainExcitationWavelength Unit='nm'>375</MainExcitationWavelength>"
    "<MainEmissionWavelength Unit='nm'>0</MainEmissionWavelength>"
)
V5 = "http://www.perkinelmer.com/PEHH/HarmonyV5"


def read(path: Path, **changes: object) -> list[SourcePlate]:
    return read_source(path, IngestSettings(sources=(path,), out=path, **changes))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.ones((4, 4), np.uint16))


def write_index(
    path: Path, *images: str, maps: str = "", plate: str = "<PlateID>P:1</PlateID>", namespace: str = V5
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = INDEX.format(plate=plate, maps=maps, images="".join(images), namespace=namespace)
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())


def image(url: str, **changes: object) -> str:
    values = {"field": 1, "z": 1, "t": 0, "channel": 1, "extra": FACTS, "state": "Ok", "kind": "Signal"}
    return IMAGE.format(url=url, **values | changes)


def harmony_name(channel: int, *, field: int = 1, well: str = "r02c03") -> str:
    return f"{well}f{field:02d}p01-ch{channel}sk1fk1fl1.tiff"


NAME = harmony_name(1)


@pytest.mark.parametrize(
    ("index", "images", "given"),
    [
        ("Index.idx.xml", "Images", ""),
        ("Index.xml", "Images", "Images"),
        ("Images/index.XML", "Images", ""),
        ("Images/Index.idx.xml", "Images", "Images"),
        ("Index.xml", ".", ""),
        ("Images/Index.idx.xml", "Images", "Images/Index.idx.xml"),
        ("hs/1f/index/1f.xml", "hs/1f/images/r02c03", ""),
        ("hs/1f/index/1f.xml", "hs/1f/images/r02c03", "hs/1f/images"),
        ("hs/1f/index/1f.xml", "hs/1f/images/r02c03", "hs/1f/index/1f.xml"),
        ("Images/flex/index.flex.xml", "Images/flex", ""),
        ("ImageIndex.ColumbusIDX.xml", ".", ""),
    ],
)
def test_an_index_is_found_wherever_harmony_leaves_it(
    tmp_path: Path, index: str, images: str, given: str
) -> None:
    touch(tmp_path / images, NAME, "unknown.tiff")
    write_index(tmp_path / index, image(NAME))
    (plate,) = read(tmp_path / given)
    assert plate.evidence == f"Operetta: found {Path(index).name}"
    assert (plate.name, plate.barcode, plate.stains, plate.pixel_size_um) == (
        "P_1",
        "P:1",
        {"1": "DAPI"},
        0.65,
    )
    assert plate.wavelengths == {"1": Wavelengths(375.0, None)}
    assert [plane.path.is_file() for plane in plate.planes] == [True]
    assert plate.planes[0].field == FieldKey("B03", 1)
    assert plate.planes[0].path.is_relative_to(plate.folder)
    assert plate.notes == ("1 images are not in the index: unknown.tiff",)


def test_an_index_above_counts_only_for_its_own_images(tmp_path: Path) -> None:
    write_index(tmp_path / "Index.xml", image("elsewhere.tiff"))
    touch(tmp_path / "other", "a.tif")
    with pytest.raises(InputError, match="names none of the images"):
        read(tmp_path / "other")
    (tmp_path / "Index.xml").write_bytes(b"<Settings/>")
    with pytest.raises(InputError, match="of no kind that cellvim recognises"):
        read(tmp_path / "other")


@pytest.mark.parametrize("other", ["Index.xml", "Index.ref.xml", "flex/index.flex.xml"])
def test_one_index_of_a_measurement_is_used(tmp_path: Path, other: str) -> None:
    touch(tmp_path, f"Images/{NAME}")
    write_index(tmp_path / "Images" / other, image("gone.tiff"))
    write_index(tmp_path / "Images/Index.idx.xml", image(NAME))
    (plate,) = read(tmp_path)
    assert [plane.path.name for plane in plate.planes] == [NAME]
    assert plate.notes == (f"{Path(other).name} is not used: Index.idx.xml is",)


def test_measurements_below_one_folder(tmp_path: Path) -> None:
    """Plate names come from the index; numbers of measurements only where they are needed."""
    for folder, plate in [
        ("P__2024-01-01T12_00_00-Measurement 1", "P"),
        ("P__x-Measurement 2", "P"),
        ("q", "Q"),
    ]:
        touch(tmp_path / folder / "Images", NAME)
        write_index(
            tmp_path / folder / "Images/Index.idx.xml", image(NAME), plate=f"<PlateID>{plate}</PlateID>"
        )
    touch(tmp_path / "R__2024-01-01T12_00_00-Measurement 1/Images", NAME, harmony_name(2))
    touch(tmp_path / "q/Images", "extra.tif")
    plates = read(tmp_path)
    assert [plate.name for plate in plates] == ["P-Measurement1", "P-Measurement2", "Q", "R"]
    assert [plate.barcode for plate in plates] == ["P", "P", "Q", "R"]
    assert [len(plate.planes) for plate in plates] == [1, 1, 1, 2]
    assert [len(plate.notes) for plate in plates] == [0, 0, 1, 0]
    (tmp_path / "P__x-Measurement 2").rename(tmp_path / "P__2024-02-02T12_00_00-Measurement 1")
    names = [plate.name for plate in read(tmp_path)]
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    ("plate", "name"),
    [
        ("<PlateID>ID</PlateID><Name>N</Name>", "ID"),
        ("<PlateID /><Name> N\n 1 </Name>", "N_1"),
        ("", "Folder"),
        ("<PlateID>培养板</PlateID>", "Folder__2024-01-01T12_00_00-Measurement_1"),
    ],
)
def test_plate_names(tmp_path: Path, plate: str, name: str) -> None:
    folder = tmp_path / "Folder__2024-01-01T12_00_00-Measurement 1"
    write_index(folder / "Images/Index.idx.xml", image(NAME), plate=plate)
    assert read(folder)[0].name == name


def test_a_plate_without_a_safe_name_gets_one_from_the_user(tmp_path: Path) -> None:
    touch(tmp_path / "培养板", NAME)
    with pytest.raises(InputError, match="cannot be a plate name"):
        read(tmp_path / "培养板")
    assert read(tmp_path / "培养板", plate="P7")[0].name == "P7"


def test_planes_times_and_backslashes(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.TIFF", "b.tiff")
    write_index(
        tmp_path / "Index.xml", image("Sub\\a.tiff", z=2, t=1), image("b.tiff", z=1), image("c.tiff", z=3)
    )
    (plate,) = read(tmp_path)
    planes = [(plane.z, plane.t, plane.path.is_file()) for plane in plate.planes]
    assert planes == [(2, 1, True), (1, 0, True), (3, 0, False)]


@pytest.mark.parametrize("namespace", ["http://www.perkinelmer.com/PEHH/HarmonyV6", "43B2-7/HarmonyV7", "x"])
def test_newer_versions_describe_channels_once(tmp_path: Path, namespace: str) -> None:
    """In the second map, as in real ones; what an image says itself counts more."""
    touch(tmp_path, "a.tiff", "b.tiff")
    own = FACTS.replace("DAPI", "Own")
    maps = (
        "<Maps><Map><Entry ChannelID='1'><FlatfieldProfile>{ChannelName: X}</FlatfieldProfile></Entry></Map>"
        f"<Map><Entry ChannelID='1'>{FACTS}</Entry><Entry ChannelID='2'>{FACTS}</Entry>"
        "<Entry ChannelID='3'><ChannelName>Unused</ChannelName></Entry></Map></Maps>"
    )
    images = [image("a.tiff", extra=""), image("b.tiff", channel=2, extra=own)]
    write_index(tmp_path / "Index.xml", *images, maps=maps, namespace=namespace)
    (plate,) = read(tmp_path)
    assert (plate.stains, plate.pixel_size_um) == ({"1": "DAPI", "2": "Own"}, 0.65)
    assert set(plate.wavelengths) == {"1", "2"}


def test_plate_plan_and_time(tmp_path: Path) -> None:
    plan = (
        "<PlateID>P</PlateID><MeasurementStartTime>2022-12-19T10:18:52.2439831+01:00</MeasurementStartTime>"
        '<Well id="0101" /><Well id="3248" /><Well id="0203" />'
    )
    write_index(tmp_path / "Index.xml", image("a.tiff"), plate=plan)
    (plate,) = read(tmp_path)
    assert plate.declared_wells == ("A01", "AF48", "B03")
    assert plate.acquired == "2022-12-19T10:18:52.243983+01:00"
    assert plate.notes == ()


def test_wells_of_columbus_are_not_guessed(tmp_path: Path) -> None:
    """It numbers them in six digits, of which the first four and the last two are no place."""
    plan = '<PlateID>P</PlateID><Well id="001001" /><Well id="016024" />'
    write_index(tmp_path / "Index.xml", image("a.tiff"), plate=plan)
    (plate,) = read(tmp_path)
    assert (plate.declared_wells, plate.notes) == ((), ())


def test_oddities_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "a.tiff", "b.tiff", "c.tiff", "d.tiff")
    plan = "<PlateID>P</PlateID><MeasurementStartTime>soon</MeasurementStartTime><Well id='9901' />"
    write_index(
        tmp_path / "Index.xml",
        image("a.tiff", state="Bad"),
        image("", channel=2, state="NotRecorded", extra=FACTS.replace("6.5E", "7.5E")),
        image("b.tiff", kind="Computed"),
        image("c.tiff", channel=7, kind="Computed", extra=""),
        image("d.tiff", field=2, extra=FACTS.replace("DAPI", "GFP")),
        plate=plan + "</Plate><Plate><PlateID>Q</PlateID>",
    )
    (plate,) = read(tmp_path)
    lost = "r02c03f01p01-ch2sk1fk1fl1.tiff"
    assert [plane.path.name for plane in plate.planes] == ["a.tiff", lost, "c.tiff", "d.tiff"]
    assert (plate.stains["1"], plate.pixel_size_um, plate.acquired) == ("DAPI", None, None)
    assert sorted(plate.notes) == [
        "1 images have the state Bad: a.tiff",
        f"1 images have the state NotRecorded: {lost}",
        f"1 images of the index have no file: {lost}",
        "1 images of type Computed are left out: the Signal is there",
        "MeasurementStartTime 'soon' is no date",
        "channel 1 has 2 names: DAPI, GFP; the first is kept",
        "the index declares wells that are none: 9901",
        "the index has several pixel sizes: 0.65, 0.75 um; none is kept",
        "the index names 2 plates: P, Q; all images go to the first",
    ]


def test_images_named_for_another_place_are_named(tmp_path: Path) -> None:
    touch(tmp_path, NAME, harmony_name(2, field=4), "any.tiff")
    write_index(
        tmp_path / "Index.xml",
        image(NAME, field=2),
        image(harmony_name(2, field=4), channel=2, field=4),
        image("any.tiff"),
    )
    (plate,) = read(tmp_path)
    assert plate.notes == (
        f"1 images are named for another place than the index gives them: {NAME} (B03/2, channel 1, plane 1)",
    )


def test_pages_of_columbus(tmp_path: Path) -> None:
    """Columbus names one file for all planes of a well, and the page of each in it."""
    pixels = np.arange(1, 2 * 4 * 4 + 1, dtype=np.uint16).reshape(2, 4, 4)
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "w.tif", pixels, photometric="minisblack")
    first = image("w.tif").replace("<URL>", '<URL BufferNo="0">')
    second = image("w.tif", channel=2).replace("<URL>", '<URL BufferNo="1">')
    write_index(folder / "ImageIndex.ColumbusIDX.xml", first, second)
    assert [plane.part for plane in read(folder)[0].planes] == [(0,), (1,)]
    ingest_plates(IngestSettings(sources=(folder,), out=tmp_path / "out"))
    plate = PlateReader(tmp_path / "out" / "P_1.ome.zarr")
    np.testing.assert_array_equal(plate.read_field(FieldKey("B03", 1)), pixels)


@pytest.mark.parametrize(
    "url", ["../../secret.tiff", "/etc/passwd", "..\\..\\secret.tiff", "C:\\x\\..\\..\\..\\s", "C:\\s.tiff"]
)
def test_an_index_cannot_point_outside(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "a" / "b"
    touch(folder, "a.tiff")
    touch(tmp_path, "secret.tiff")
    write_index(folder / "Index.xml", image(url))
    with pytest.raises(InputError, match="outside of the measurement"):
        read(folder)


@pytest.mark.parametrize("size", ["nan", "inf", "-1", "0", "", "x", "0.65", "6.5e-20"])
def test_a_pixel_size_that_is_none(tmp_path: Path, size: str) -> None:
    write_index(tmp_path / "Index.xml", image("a.tiff", extra=FACTS.replace("6.5E-07", size)))
    (plate,) = read(tmp_path)
    assert plate.pixel_size_um is None


@pytest.mark.parametrize("row", ["x", "", "0", "33", "-1", "9" * 5000, "²"])
def test_an_image_without_a_place(tmp_path: Path, row: str) -> None:
    write_index(tmp_path / "Index.xml", image("a.tiff").replace("<Row>2</Row>", f"<Row>{row}</Row>"))
    with pytest.raises(InputError, match=r"no usable row|not a readable index"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "field", "channel", "z", "t"),
    [
        ("r01c01f01p01-ch1sk1fk1fl1.tiff", FieldKey("A01", 1), "1", 1, 1),
        ("R16C24F0012P03-CH06SK2FK1FL1.TIF", FieldKey("P24", 12), "6", 3, 2),
        ("r32c48f1234p10-ch12sk1fk1fl1.tif", FieldKey("AF48", 1234), "12", 10, 1),
        ("r02c07f01p01rc3-ch1sk1fk1fl1.tiff", FieldKey("B07", 1), "3", 1, 1),
        ("r03c07f01p01-ch02t04.tiff", FieldKey("C07", 1), "2", 1, 4),
    ],
)
def test_names_without_an_index(
    tmp_path: Path, name: str, field: FieldKey, channel: str, z: int, t: int
) -> None:
    folder = tmp_path / "BR001__2020-11-08T18_57_47-Measurement 1" / "Images"
    touch(folder, name, "r33c01f01p01-ch1sk1fk1fl1.tiff")
    (plate,) = read(folder)
    assert plate.evidence == f"Operetta: no index, names such as {name}"
    assert (plate.name, plate.barcode, plate.stains) == ("BR001", "BR001", {channel: f"ch{channel}"})
    (plane,) = plate.planes
    assert (plane.field, plane.channel, plane.z, plane.t) == (field, channel, z, t)
    assert plate.notes == ("1 images have other names: r33c01f01p01-ch1sk1fk1fl1.tiff",)


@pytest.fixture
def six_channels(shared: Path, tmp_path: Path) -> Path:
    """Real images under the names of a plate with six channels, a field in each of two wells."""
    folder = tmp_path / "images" / "P__2024-01-01T12_00_00-Measurement 1" / "Images"
    folder.mkdir(parents=True)
    real = sorted((shared / "data/operetta/operetta_plate/Images").glob("*.tiff"))
    for well, field in (("r02c03", 1), ("r02c04", 2)):
        for channel in range(1, 7):
            shutil.copy(real[(field + channel) % 2], folder / harmony_name(channel, field=field, well=well))
    return folder


def indexed(folder: Path) -> None:
    """Write the index that such a plate would have."""
    images = []
    for path in sorted(folder.glob("*.tiff"), reverse=True):
        row = image(path.name, field=int(path.name[7:9]), channel=int(path.name[15]))
        facts = FACTS.replace("DAPI", f"Stain {path.name[15]}")
        images.append(row.replace("<Col>3", f"<Col>{int(path.name[4:6])}").replace(FACTS, facts))
    write_index(folder / "Index.idx.xml", *images, plate="<PlateID>P</PlateID>")


@pytest.mark.parametrize("has_index", [False, True])
def test_six_channels_with_and_without_an_index(
    six_channels: Path, tmp_path: Path, *, has_index: bool
) -> None:
    if has_index:
        indexed(six_channels)
    ingest_plates(IngestSettings(sources=(tmp_path / "images",), out=tmp_path / "out"))
    plate = PlateReader(tmp_path / "out" / "P.ome.zarr")
    assert plate.channels == tuple(f"Stain {n}" if has_index else f"ch{n}" for n in range(1, 7))
    assert plate.pixel_size_um == (0.65 if has_index else None)
    assert [str(field) for field in plate.fields] == ["B03/1", "B04/2"]
    field = FieldKey("B04", 2)
    names = [harmony_name(channel, field=2, well="r02c04") for channel in range(1, 7)]
    expected = np.stack([tifffile.imread(six_channels / name) for name in names])
    np.testing.assert_array_equal(plate.read_field(field), expected)


@pytest.mark.parametrize("has_index", [False, True])
def test_a_lost_image_is_said_to_be_lost(six_channels: Path, tmp_path: Path, *, has_index: bool) -> None:
    if has_index:
        indexed(six_channels)
    (six_channels / harmony_name(6, field=2, well="r02c04")).unlink()
    settings = IngestSettings(sources=(tmp_path / "images",), out=tmp_path / "out")
    with pytest.raises(PreflightError) as caught:
        ingest_plates(settings)
    (problem,) = caught.value.problems
    assert problem.startswith("B04/2 ")
    assert ("the file is not there" if has_index else "is missing") in problem


def test_pixel_sizes_of_the_tiff_are_not_believed(shared: Path, tmp_path: Path) -> None:
    """The resolution tags of Harmony's TIFFs are the camera's: 6.45 um where the index says 1.196."""
    source = shared / "data/operetta/operetta_plate/Images" / harmony_name(1, well="r03c03")
    with tifffile.TiffFile(source) as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
        assert 10_000 * denominator / numerator == pytest.approx(6.45, abs=0.01)
    shutil.copy(source, tmp_path / source.name)
    (plate,) = read(tmp_path)
    assert plate.pixel_size_um is None
