"""OME-TIFF: every plane is the page that tifffile finds, whatever the files are cut into."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError
from cellvim.ingest import ingest_plates
from cellvim.ingest.preflight import check_plate
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.readers.ome_tiff.plate import field_in, well_in
from cellvim.ingest.readers.ome_tiff.xml import parse_ome
from cellvim.ingest.sources import Plane, SourcePlate, Wavelengths
from cellvim.store import FieldKey, PlateReader

MakeSettings = Callable[..., IngestSettings]
NAMESPACE = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
SHAPE = (9, 11)


def read(path: Path, **changes: object) -> list[SourcePlate]:
    return read_source(path, IngestSettings(sources=(path,), out=path / "out", **changes))


def image_xml(
    number: int,
    data: str,
    *,
    channels: Sequence[str] = ("DNA", "ER"),
    order: str = "XYCZT",
    sizes: tuple[int, int, int] = (2, 1, 1),
    facts: str = "",
    name: str | None = None,
) -> str:
    c, z, t = sizes
    listed = "".join(f'<Channel ID="C:{number}:{i}" Name="{text}"/>' for i, text in enumerate(channels))
    return (
        f'<Image ID="Image:{number}" Name="{name or f"image {number}"}"><AcquisitionDate>2024-05-0{number % 9 + 1}'
        f'T10:00:00Z</AcquisitionDate><Pixels ID="P:{number}" DimensionOrder="{order}" Type="uint16" SizeX="11" '
        f'SizeY="9" SizeC="{c}" SizeZ="{z}" SizeT="{t}" {facts}>{listed}{data}</Pixels></Image>'
    )


def plate_xml(wells: dict[tuple[int, int], Sequence[tuple[int, int]]], name: str = "Plate 7") -> str:
    """Wells by row and column from 0; each with the index and image number of its samples."""
    text = ""
    for (row, column), samples in wells.items():
        inner = "".join(
            f'<WellSample ID="s{i}" Index="{i}"><ImageRef ID="Image:{n}"/></WellSample>' for i, n in samples
        )
        text += f'<Well ID="w" Row="{row}" Column="{column}">{inner}</Well>'
    return f'<Plate ID="Plate:0" Name="{name}" ExternalIdentifier="BC7">{text}</Plate>'


def ome(*parts: str, uuid: str = "urn:uuid:own") -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><OME {NAMESPACE} UUID="{uuid}">{"".join(parts)}</OME>'


def write(path: Path, pages: np.ndarray, xml: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(pages):
            description = xml.encode() if number == 0 else None
            file.write(
                page, description=description, metadata=None, contiguous=False, photometric="minisblack"
            )
    return path


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 60_000, (*shape, *SHAPE)).astype(np.uint16)


def tifffiles(plane: Plane) -> np.ndarray:
    return tifffile.imread(plane.path, key=plane.part[0])


def test_one_file_for_a_plate(tmp_path: Path, make_settings: MakeSettings) -> None:
    """Well AF48 lies in row 31 and column 47, counted from 0; its samples are listed in no order."""
    pixels = draw(3, 2)
    facts = 'PhysicalSizeX="650" PhysicalSizeXUnit="nm" PhysicalSizeY="0.65"'
    images = [image_xml(n, f'<TiffData IFD="{2 * n}" PlaneCount="2"/>', facts=facts) for n in range(3)]
    plate = plate_xml({(0, 0): [(0, 0)], (31, 47): [(2, 1), (1, 2)]})
    path = write(tmp_path / "images" / "all.ome.tif", pixels.reshape(-1, *SHAPE), ome(plate, *images))
    (source,) = read(path.parent)
    assert (source.name, source.barcode, source.pixel_size_um) == ("Plate_7", "BC7", 0.65)
    assert source.evidence == "OME-TIFF: found OME-XML in all.ome.tif"
    assert source.acquired == "2024-05-01T10:00:00+00:00"
    assert (source.stains, source.notes) == ({"1": "DNA", "2": "ER"}, ())
    for settings in (make_settings(), make_settings(sources=(path,), overwrite=True)):
        (result,) = ingest_plates(settings).plates
        written = PlateReader(result.path)
        assert written.channels == ("DNA", "ER")
        for field, image in {("A01", 1): 0, ("AF48", 1): 2, ("AF48", 2): 1}.items():
            np.testing.assert_array_equal(written.read_field(FieldKey(*field)), pixels[image])


def test_a_real_plate_as_ome_tiff(shared: Path, tmp_path: Path, make_settings: MakeSettings) -> None:
    """Five wells of one field and three stains, in one file for each well."""
    wells: dict[str, list[np.ndarray]] = {}
    for path in sorted((shared / "data/nf1_schwann/images").iterdir()):
        wells.setdefault(path.name.split("_")[0], []).append(tifffile.imread(path))
    (tmp_path / "images").mkdir()
    for number, (well, planes) in enumerate(wells.items()):
        data = '<TiffData IFD="0" PlaneCount="3"/>'
        image = image_xml(number, data, channels=("DAPI", "GFP", "RFP"), sizes=(3, 1, 1))
        place = (ord(well[0]) - 65, int(well[1:]) - 1)
        write(
            tmp_path / "images" / f"{number}.ome.tif",
            np.stack(planes),
            ome(plate_xml({place: [(0, number)]}), image),
        )
    (result,) = ingest_plates(make_settings(plate="NF1")).plates
    plate = PlateReader(result.path)
    assert (plate.name, plate.channels) == ("NF1", ("DAPI", "GFP", "RFP"))
    for well, planes in wells.items():
        np.testing.assert_array_equal(
            plate.read_field(FieldKey(f"{well[0]}{int(well[1:]):02d}", 1)), np.stack(planes)
        )


@pytest.mark.parametrize("order", ["XYCZT", "XYZCT", "XYTCZ", "XYCTZ", "XYZTC", "XYTZC"])
def test_planes_are_tifffiles_in_every_order(tmp_path: Path, order: str) -> None:
    """tifffile arranges the pages of its series by the order; so must we, page by page."""
    sizes = {"C": 2, "Z": 3, "T": 2}
    xml = image_xml(0, '<TiffData IFD="0" PlaneCount="12"/>', order=order, sizes=(2, 3, 2))
    path = write(tmp_path / "x_B03_f2.ome.tif", draw(12), ome(xml))
    with tifffile.TiffFile(path) as file:
        series, axes = file.series[0].asarray(), file.series[0].axes
    (plate,) = read(tmp_path)
    assert len(plate.planes) == 12
    assert {plane.field for plane in plate.planes} == {FieldKey("B03", 2)}
    for plane in plate.planes:
        place = {"C": int(plane.channel) - 1, "Z": plane.z, "T": plane.t, "Y": slice(None), "X": slice(None)}
        assert sizes["Z"] > (plane.z or 0)
        np.testing.assert_array_equal(tifffiles(plane), series[tuple(place[axis] for axis in axes)])


def test_what_tifffile_itself_writes(tmp_path: Path) -> None:
    names = {
        "Name": ["DAPI", "GFP"],
        "ExcitationWavelength": [405, 0.488],
        "ExcitationWavelengthUnit": ["nm", "µm"],
    }
    pixels = draw(2, 3)
    for well in ("b3", "B12"):
        metadata = {"axes": "CZYX", "Channel": names, "PhysicalSizeX": 1.3, "PhysicalSizeXUnit": "µm"}
        tifffile.imwrite(tmp_path / f"{well}_s1_w1.ome.tif", pixels, ome=True, metadata=metadata)
    (plate,) = read(tmp_path)
    assert {str(plane.field) for plane in plate.planes} == {"B03/1", "B12/1"}
    assert plate.wavelengths == {"1": Wavelengths(405.0), "2": Wavelengths(488.0)}
    assert (plate.name, plate.pixel_size_um, plate.stains) == (tmp_path.name, 1.3, {"1": "DAPI", "2": "GFP"})
    for plane in plate.planes:
        np.testing.assert_array_equal(tifffiles(plane), pixels[int(plane.channel) - 1, plane.z])


def plane_data(name: str, channel: int) -> str:
    return (
        f'<TiffData FirstC="{channel}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
    )


@pytest.fixture
def plane_files(tmp_path: Path) -> tuple[Path, np.ndarray, str]:
    """A set of one file per plane, each with the XML of all; the XML too."""
    folder, pixels = tmp_path / "images", draw(4, seed=3)
    names = [f"p{number}.ome.tif" for number in range(4)]
    images = [image_xml(n, "".join(plane_data(names[2 * n + c], c) for c in (0, 1))) for n in (0, 1)]
    parts = [plate_xml({(1, 2): [(0, 0), (1, 1)]}), *images]
    for name, page in zip(names, pixels, strict=True):
        write(folder / name, page[None], ome(*parts, uuid=f"urn:uuid:{name}"))
    return folder, pixels, ome(*parts, uuid="urn:uuid:companion")


def test_one_file_per_plane(plane_files: tuple[Path, np.ndarray, str], make_settings: MakeSettings) -> None:
    folder, pixels, _ = plane_files
    (result,) = ingest_plates(make_settings()).plates
    written = PlateReader(result.path)
    with tifffile.TiffFile(folder / "p2.ome.tif") as file:
        for series, expected in zip(file.series, (pixels[:2], pixels[2:]), strict=True):
            np.testing.assert_array_equal(series.asarray(), expected)
    for site in (1, 2):
        np.testing.assert_array_equal(
            written.read_field(FieldKey("B03", site)), pixels[2 * site - 2 : 2 * site]
        )
    (folder / "p3.ome.tif").unlink()
    with pytest.raises(PreflightError, match=r"B03/2 ER: p3.ome.tif.* the file is not there"):
        ingest_plates(make_settings(overwrite=True))


def test_a_renamed_file_knows_itself(plane_files: tuple[Path, np.ndarray, str]) -> None:
    folder, pixels, _ = plane_files
    (folder / "p0.ome.tif").rename(folder / "a renamed.ome.tif")
    (plate,) = read(folder)
    np.testing.assert_array_equal(tifffiles(plate.planes[0]), pixels[0])
    assert plate.planes[0].path.name == "a renamed.ome.tif"


def test_a_companion_says_all(plane_files: tuple[Path, np.ndarray, str]) -> None:
    folder, pixels, xml = plane_files
    (folder / "set.companion.ome").write_text(xml, encoding="utf-8")
    only = f'<OME {NAMESPACE}><BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:companion"/></OME>'
    for path in folder.glob("p*.tif"):
        write(path, pixels[int(path.name[1])][None], only)
    write(folder / "stray.tif", pixels[:1], "no metadata")
    for source in (folder, folder / "set.companion.ome", folder / "p2.ome.tif"):
        (plate,) = read(source)
        assert len(plate.planes) == 4
        for plane, page in zip(plate.planes, pixels, strict=True):
            np.testing.assert_array_equal(tifffiles(plane), page)
    assert read(folder)[0].notes == ("1 images without OME-XML are not read: stray.tif",)
    assert read(folder)[0].evidence == "OME-TIFF: found set.companion.ome"
    assert read(folder)[0].described_by == (folder / "set.companion.ome",)
    (folder / "set.companion.ome").unlink()
    with pytest.raises(InputError, match=r"its metadata are in set.companion.ome, which is not there"):
        read(folder)


def test_one_file_per_field_with_the_whole_plate_in_each(tmp_path: Path) -> None:
    plate = plate_xml({(0, 0): [(0, 0), (1, 1)], (0, 1): [(2, 2), (3, 3)]})
    for number in range(3):
        xml = ome(plate, image_xml(number, '<TiffData IFD="0" PlaneCount="2"/>'), uuid=f"urn:uuid:{number}")
        write(tmp_path / f"{number}.ome.tiff", draw(2, seed=number), xml)
    (source,) = read(tmp_path)
    assert [(str(plane.field), plane.channel, plane.path.name) for plane in source.planes] == [
        (field, channel, f"{number}.ome.tiff")
        for number, field in enumerate(("A01/1", "A01/2", "A02/1"))
        for channel in "12"
    ]
    assert source.notes == ("1 fields of the plate have no image: A02 field 2",)


def test_copies_of_a_field_are_doubled_and_not_a_second_field(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    xml = ome(plate_xml({(0, 0): [(0, 0)]}), image_xml(0, '<TiffData IFD="0" PlaneCount="2"/>'))
    for name in ("a.ome.tif", "copy of a.ome.tif"):
        write(tmp_path / "images" / name, draw(2), xml)
    with pytest.raises(PreflightError, match="A01/1 DNA: has 2 files for one plane"):
        ingest_plates(make_settings())
    (tmp_path / "images" / "copy of a.ome.tif").rename(tmp_path / "images" / "x_f2.ome.tif")
    (tmp_path / "images" / "a.ome.tif").rename(tmp_path / "images" / "x_f1.ome.tif")
    assert len(ingest_plates(make_settings()).plates[0].channels) == 2


def test_names_that_tell_more_than_well_and_field(tmp_path: Path) -> None:
    """One channel per file, and only the name says which: described by a pattern, it is a plate."""
    for well in ("B03", "B04"):
        for stain in ("DAPI", "GFP"):
            xml = image_xml(0, '<TiffData IFD="0"/>', sizes=(1, 1, 1), channels=("",))
            write(tmp_path / f"{well}_f1_{stain}.ome.tif", draw(1), ome(xml, uuid=well + stain))
    with pytest.raises(
        InputError, match=r"B03_f1_DAPI.ome.tif and B03_f1_GFP.ome.tif both hold B03/1 c"
    ) as caught:
        read(tmp_path)
    pattern = "{well}_{}_{channel}.{}.tif"
    assert caught.value.hint == f"say what the names mean: --pattern '{pattern}'"
    (plate,) = read(tmp_path, pattern=pattern)
    assert [(str(plane.field), plane.channel) for plane in plate.planes] == [
        *[("B03/1", "DAPI"), ("B03/1", "GFP")],
        *[("B04/1", "DAPI"), ("B04/1", "GFP")],
    ]


def test_folders_of_one_name_are_plates_of_their_own(tmp_path: Path) -> None:
    """No well is in both, so that nothing would look doubled if they became one."""
    for name in ("A/images/B07_f1.ome.tif", "B/images/B08_f1.ome.tif"):
        write(tmp_path / name, draw(2), ome(image_xml(0, "<TiffData/>"), uuid=f"urn:uuid:{name}"))
    plates = read(tmp_path)
    assert [(plate.name, {plane.field.well for plane in plate.planes}) for plate in plates] == [
        ("A", {"B07"}),
        ("B", {"B08"}),
    ]


def test_channels_are_known_by_name_where_their_numbers_differ(tmp_path: Path) -> None:
    for name, channels in (("a", ("DNA", "ER")), ("b", ("ER", "DNA"))):
        xml = image_xml(0, '<TiffData IFD="0" PlaneCount="2"/>', channels=channels, name="x")
        write(tmp_path / f"A01_f{1 + (name == 'b')}.ome.tif", draw(2), ome(xml, uuid=name))
    (plate,) = read(tmp_path)
    assert [plane.channel for plane in plate.planes] == ["DNA", "ER", "ER", "DNA"]
    xml = image_xml(0, '<TiffData IFD="0" PlaneCount="2"/>', channels=("ER", ""))
    write(tmp_path / "A01_f3.ome.tif", draw(2), ome(xml, uuid="c"))
    with pytest.raises(InputError, match=r"channel 1 is called \['DNA', 'ER'\] in different images"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "well", "field"),
    [
        ("B03_f1.ome.tif", "B03", 1),
        ("scan-2024_b3_s02_w1.tiff", "B03", 2),
        ("Well AF48 (field 7).ome.tif", "AF48", 7),
        ("A1.ome.tif", "A01", None),
        ("S1_s1.ome.tif", "S01", 1),
        ("A01_B02.ome.tif", None, None),
        ("image.ome.tif", None, None),
        ("f3.tif", "F03", 3),
    ],
)
def test_wells_and_fields_in_names(name: str, well: str | None, field: int | None) -> None:
    assert (well_in(name), field_in(name)) == (well, field)


ONE = '<TiffData IFD="0" PlaneCount="2"/>'


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (ome(image_xml(0, ONE), "<x>"), "cannot be read"),
        (f'<!DOCTYPE OME [<!ENTITY a "b">]><OME {NAMESPACE}>&a;</OME>', "cannot be read"),
        ("<!-- <OME --><x/>", "no OME-XML"),
        (ome("<x>" * 100 + "</x>" * 100), "elements are nested"),
        (ome('<Image ID="Image:0" Name="B03"/>'), "has no pixels"),
        (ome(image_xml(0, ONE, order="XYZZT")), "in order 'ZZT'"),
        (ome(image_xml(0, ONE, sizes=(2, 99999, 99999))), "claims 19,999,600,002 planes"),
        (ome(image_xml(0, ONE, sizes=(2, -1, 1))), "SizeZ '-1', expected a number"),
        (ome(image_xml(0, ONE, sizes=(2, 0, 1))), "SizeZ 0"),
        (ome(image_xml(0, '<TiffData IFD="0" PlaneCount="3"/>')), "name plane 3 of 2"),
        (ome(image_xml(0, '<TiffData FirstC="2"/>')), "start at C 2, of 2"),
        (ome(image_xml(0, ONE).replace('Name="DNA"', 'SamplesPerPixel="3"')), "holds colours"),
        (ome(image_xml(0, ONE, channels=("a", "b", "c"))), "holds colours"),
        (ome(plate_xml({(32, 0): [(0, 0)]}), image_xml(0, ONE)), "outside a plate"),
        (ome(plate_xml({(0, 0): [(0, 5)]}), image_xml(0, ONE)), "describes no planes in wells"),
        (
            ome(plate_xml({(0, 0): [(0, 0), (1, 1)]}), image_xml(0, ONE), image_xml(1, ONE)),
            "twice: for Plate_7 A01/1",
        ),
        (ome(image_xml(0, plane_data("../x.tif", 0))), "none beside it"),
        (ome(image_xml(0, plane_data("/etc/x.tif", 0))), "none beside it"),
        (ome(image_xml(0, plane_data("C:\\x.tif", 0))), "none beside it"),
        (ome('<BinaryOnly MetadataFile="../../x.companion.ome"/>'), "none beside it"),
        (ome(image_xml(0, ONE, channels=("", ""))), None),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, xml: str, message: str | None) -> None:
    write(tmp_path / "B03.ome.tif", draw(2), xml)
    if message is None:
        assert len(read(tmp_path)[0].planes) == 2
        return
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("", r"all\.ome\.tif is said to hold 4,000,000 pages, in \d,\d+ bytes"),
        ('<UUID FileName="lost.ome.tif">urn:uuid:b</UUID>', "4,000,000 planes in files that are not there"),
    ],
)
def test_more_pages_than_a_file_can_hold(tmp_path: Path, inner: str, message: str) -> None:
    image = image_xml(0, f"<TiffData>{inner}</TiffData>", sizes=(2, 2_000, 1_000))
    write(tmp_path / "all.ome.tif", draw(1), ome(plate_xml({(0, 0): [(0, 0)]}), image))
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_more_elements_than_any_plate_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellvim.ingest.readers.ome_tiff.xml.MOST_ELEMENTS", 9)
    assert parse_ome(ome(image_xml(0, ONE)).encode(), "x").images
    with pytest.raises(InputError, match="more than 9 elements"):
        parse_ome(ome("<a/>" * 9).encode(), "x")


def test_a_file_that_tells_no_well(tmp_path: Path) -> None:
    write(tmp_path / "image.ome.tif", draw(2), ome(image_xml(0, ONE, name="scan")))
    with pytest.raises(InputError, match=r"neither its name nor 'scan' tells a well"):
        read(tmp_path)


def test_vendors_folders_stay_the_vendors(tmp_path: Path) -> None:
    write(tmp_path / "P_B02_s1_w1.tif", draw(2), ome(image_xml(0, ONE)))
    assert read(tmp_path)[0].evidence.startswith("ImageXpress")
    assert read(tmp_path, source="ome-tiff")[0].evidence.startswith("OME-TIFF")
    write(tmp_path / "P_B02_s1_w1.tif", draw(1), "plain")
    with pytest.raises(InputError, match="holds no TIFF with OME-XML"):
        read(tmp_path, source="ome-tiff")


def test_mutants_are_read_or_refused(tmp_path: Path, mutate: Callable[..., bytes]) -> None:
    uuid = '<UUID FileName="A01.ome.tif">urn:uuid:own</UUID>'
    images = [image_xml(n, f'<TiffData IFD="{2 * n}" PlaneCount="2">{uuid}</TiffData>') for n in range(2)]
    content = ome(plate_xml({(0, 0): [(0, 0), (1, 1)]}), *images).encode()
    pieces = [*rb"""< /> " &lt; - 99999999 <!DOCTYPE> UUID="a" <UUID/>""".split(), b"\x00", b"\xff"]
    outcomes = {"read": 0, "refused": 0}
    companion = tmp_path / "x.companion.ome"
    write(tmp_path / "A01.ome.tif", draw(4), "plain")
    for seed in range(300):
        companion.write_bytes(mutate(content, seed, pieces))
        outcomes[outcome(companion)] += 1
        outcomes[outcome(embed(tmp_path / "e" / "A01.ome.tif", companion.read_bytes()))] += 1
    assert min(outcomes.values()) > 30


def embed(path: Path, xml: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(draw(4)):
            file.write(
                page, description=(xml or b" ") if number == 0 else None, metadata=None, contiguous=False
            )
    return path


def outcome(path: Path) -> str:
    settings: dict[str, Any] = {"sources": (path,), "out": path.parent, "on_missing": "fill", "workers": 1}
    try:
        for plate in read_source(path, IngestSettings(source="ome-tiff", **settings)):
            check_plate(plate, IngestSettings(timepoint=0, **settings))
    except InputError:
        return "refused"
    return "read"
