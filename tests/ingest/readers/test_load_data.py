"""Tables of CellProfiler and JUMP: every file they name is found where it is, or said to be lost."""

import csv
import gzip
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError, UsageError
from cellvim.ingest import ingest_plates
from cellvim.ingest.preflight import check_plate
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.readers.rows import read_rows
from cellvim.ingest.sources import SourcePlate
from cellvim.store import FieldKey, PlateReader

HEAD = "FileName_OrigDNA,PathName_OrigDNA,FileName_OrigER,PathName_OrigER,Metadata_Plate,Metadata_Well,Metadata_Site"
MakeSettings = Callable[..., IngestSettings]


def read(path: Path, **changes: object) -> list[SourcePlate]:
    return read_source(path, IngestSettings(sources=(path,), out=path / "out", **changes))


def write(folder: Path, *lines: str, head: str = HEAD, name: str = "load_data.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    content = "\n".join([head, *lines, ""]).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.ones((4, 4), np.uint16))


def paths(plate: SourcePlate) -> list[str]:
    return [plane.path.relative_to(plate.folder).as_posix() for plane in plate.planes]


@pytest.fixture
def schwann(shared: Path, tmp_path: Path) -> Path:
    """The five wells of a real plate, below the path at which a JUMP table knows them."""
    images = tmp_path / "images" / "NF1__2024" / "Images"
    images.mkdir(parents=True)
    rows = []
    for path in sorted((shared / "data/nf1_schwann/images").glob("*_1_*_DAPI_001.tif")):
        well, _, _, site, *_ = path.name.split("_")
        names = [
            f"{well}_01_{n}_{site}_{stain}_001.tif" for n, stain in ((1, "DAPI"), (2, "GFP"), (3, "RFP"))
        ]
        for name in names:
            shutil.copy(path.parent / name, images / name)
        rows.append([*names, well, site])
    folder = "/home/ubuntu/bucket/projects/2024/images/NF1__2024/Images/"
    head = [f"{kind}_Orig{stain}" for stain in ("DNA", "ER", "Actin") for kind in ("FileName", "PathName")]
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(
        [*head, "FileName_IllumDNA", "PathName_IllumDNA", "Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    )
    for dna, er, actin, well, site in rows:
        table.writerow(
            [dna, folder, er, folder, actin, folder, "NF1_IllumDNA.npy", folder, "NF 1", well, f"s{site}"]
        )
    (tmp_path / "images" / "load_data.csv").write_text(text.getvalue())
    return tmp_path / "images"


def test_every_pixel_of_a_real_plate_is_tifffiles(schwann: Path, make_settings: MakeSettings) -> None:
    for source in (schwann, schwann / "load_data.csv"):
        (result,) = ingest_plates(make_settings(sources=(source,), overwrite=True)).plates
        plate = PlateReader(result.path)
        assert (plate.name, plate.channels) == ("NF_1", ("Actin", "DNA", "ER"))
        assert len(plate.fields) == 5
        for field in plate.fields:
            row, column = field.well[0], int(field.well[1:])
            names = [
                f"{row}{column}_01_{n}_{field.site}_{s}_001.tif"
                for n, s in ((3, "RFP"), (1, "DAPI"), (2, "GFP"))
            ]
            expected = [tifffile.imread(schwann / "NF1__2024/Images" / name) for name in names]
            np.testing.assert_array_equal(plate.read_field(field), np.stack(expected))
    assert result.evidence == (
        "load_data: found load_data.csv with FileName_OrigDNA, FileName_OrigER, FileName_OrigActin"
    )
    assert result.warnings[0] == "columns skipped: FileName_IllumDNA"
    assert (
        "15 images are not where the table says, and were found by the end of their path"
        in result.warnings[1]
    )


def test_channels_keep_the_name_after_orig(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    write(tmp_path, "a.tif,,b.tif,,P,b3,01")
    (plate,) = read(tmp_path)
    assert [(plane.field, plane.channel) for plane in plate.planes] == [
        (FieldKey("B03", 1), "DNA"),
        (FieldKey("B03", 1), "ER"),
    ]
    assert (plate.name, plate.barcode, plate.notes) == ("P", "P", ())


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("URL_OrigDNA,Metadata_Well", "file:{folder}/x%20y.tif,AF48"),
        ("URL_OrigDNA,Metadata_Well", "file://{folder}/x%20y.tif,AF48"),
        ("URL_OrigDNA,Metadata_Well", "file:///C:/screens/x%20y.tif,AF48"),
        ("URL_OrigDNA,Metadata_Well", "{folder}/x y.tif,AF48"),
        ("URL_OrigDNA,Metadata_Well", "s3://bucket/screens/images/x%20y.tif,AF48"),
        ("FileName_DNA,PathName_DNA,Metadata_Well", "x y.tif,https://host/images,AF48"),
        ("\ufeffFileName_DNA,PathName_DNA,Metadata_Row,Metadata_Col", "x y.tif,D:\\screens\\images,32,48"),
        ("FileName_DNA;PathName_DNA;Metadata_Row;Metadata_Col", "x y.tif;\\\\server\\screens;AF;48"),
        ("FileName_DNA\tMetadata_Well", "X Y.TIF\taf48"),
        ('"FileName_DNA","Metadata_Well","Metadata_Note"', '"x y.tif","AF48","two\nlines, and a comma"'),
        ("Metadata_Well,Image_FileName_OrigDNA,Image_PathName_OrigDNA", "AF48,x y.tif,."),
    ],
)
def test_spellings_of_one_image(tmp_path: Path, head: str, line: str) -> None:
    touch(tmp_path, "x y.tif")
    write(tmp_path, line.format(folder=tmp_path), head=head)
    (plate,) = read(tmp_path)
    assert [(plane.path, plane.field, plane.channel) for plane in plate.planes] == [
        (tmp_path / "x y.tif", FieldKey("AF48", 1), "DNA")
    ]


def test_depths_times_pages_and_sites(tmp_path: Path) -> None:
    head = (
        "FileName_OrigDNA,Frame_OrigDNA,Metadata_Well,Metadata_FieldID,Metadata_PlaneID,Metadata_TimepointID"
    )
    touch(tmp_path, "a.tif")
    write(tmp_path, "a.tif,0,A1,007,1,3", "a.tif,1,A1,7.0,2,3", "a.tif,,A1,8,,", head=head)
    (plate,) = read(tmp_path)
    assert [(plane.field.site, plane.z, plane.t, plane.part) for plane in plate.planes] == [
        (7, 1, 3, (0,)),
        (7, 2, 3, (1,)),
        (8, None, None, ()),
    ]


def test_a_series_is_never_taken_for_a_page(tmp_path: Path) -> None:
    head = "FileName_OrigDNA,Frame_OrigDNA,Series_OrigDNA,Metadata_Well"
    touch(tmp_path, "a.tif")
    write(tmp_path, "a.tif,0,0,A1", "a.tif,1,,A2", head=head)
    assert [plane.part for plane in read(tmp_path)[0].planes] == [(0,), (1,)]
    write(tmp_path, "a.tif,0,1,A1", head=head)
    with pytest.raises(InputError, match="line 2 names series 1 of an image of DNA"):
        read(tmp_path)


def test_images_that_no_table_names_are_counted(tmp_path: Path) -> None:
    """Of a part of a plate, a table of an analysis looks like the table of all its images."""
    touch(tmp_path, "P/a.tif", "P/b.tif", "P/c.tif")
    write(tmp_path, f"a.tif,{tmp_path}/P,,,P,A1,1")
    (plate,) = read(tmp_path)
    assert plate.notes[-1] == "2 images are in no table: b.tif, c.tif"


def test_several_plates_and_lost_and_repeated_images(tmp_path: Path) -> None:
    touch(tmp_path, "P1/a.tif", "P1/b.tif", "P2/a.tif", "P2/b.tif", "P2/c.tif")
    lines = [
        "a.tif,/x/P1,b.tif,/x/P1,P1,A1,1",
        "a.tif,/x/P1,b.tif,/x/P1,P1,A1,1",
        "a.tif,/x/P2,b.tif,/x/P2,P2,A1,1",
    ]
    write(
        tmp_path, *lines, "c.tif,/x/P2,,,P2,A1,2", "lost.tif,/x/P2,NA,,P2,A1,3", name="load_data_all.csv.gz"
    )
    first, second = read(tmp_path)
    assert (first.name, paths(first)) == ("P1", ["P1/a.tif", "P1/b.tif"] * 2)
    assert paths(second) == ["P2/a.tif", "P2/b.tif", "P2/c.tif", "x/P2/lost.tif"]
    assert first.notes == (
        "2 images are named again, in another row",
        f"2 images are not where the table says, and were found by the end of their path: /x/P1/a.tif is {tmp_path}/P1/a.tif",
    )


def test_two_images_of_one_plane_are_doubled(tmp_path: Path, make_settings: MakeSettings) -> None:
    touch(tmp_path / "images", "a.tif", "b.tif", "c.tif", "d.tif")
    write(tmp_path / "images", "a.tif,,b.tif,,P,A1,1", "c.tif,,d.tif,,P,a01,01")
    with pytest.raises(PreflightError, match=r"A01/1 DNA: has 2 files for one plane: a.tif, c.tif"):
        ingest_plates(make_settings())


def test_a_name_that_fits_no_path_takes_no_other_names_file(tmp_path: Path) -> None:
    """Plates repeat their file names: an image of plate P2 is not found as the one of P1."""
    touch(tmp_path, "P1/a.tif", "P1/b.tif")
    write(tmp_path, "a.tif,/x/P1,b.tif,/x/P1,P1,A1,1", "a.tif,/x/P2,b.tif,/x/P2,P2,A1,1")
    first, second = read(tmp_path)
    assert [plane.path.is_file() for plane in (*first.planes, *second.planes)] == [True, True, False, False]


def test_names_that_fit_two_files_equally(tmp_path: Path) -> None:
    touch(tmp_path, "P1/a.tif", "P2/a.tif", "b.tif")
    write(tmp_path, "a.tif,/gone,b.tif,/gone,P,A1,1")
    with pytest.raises(
        InputError, match=r"'/gone/a.tif' is not where it should be, and could be any of 2 files"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "a.tif,,a.tif,,P,A1,1",
        "a.tif,,b.tif,,P,A1,1\nc.tif,,b.tif,,P,A1,2",
        "a.tif,,b.tif,,P,A1,1\nc.tif,,A.TIF,,Q,A1,1",
    ],
)
def test_one_image_for_two_places_is_refused(tmp_path: Path, line: str) -> None:
    touch(tmp_path, "a.tif", "b.tif", "c.tif")
    write(tmp_path, line)
    with pytest.raises(
        InputError, match=r"names [ab].tif twice: for P A01/1 (DNA|ER) and for [PQ] A01/[12] ER"
    ):
        read(tmp_path)


def test_absolute_paths_lead_to_no_image_outside_of_the_source(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "a.tif", "b.tif")
    (tmp_path / "disk" / "c.tif").mkdir()
    path = write(tmp_path / "table", f"a.tif,{tmp_path}/disk,b.tif,{tmp_path}/disk,P,A1,1")
    with pytest.raises(InputError, match=r"a.tif' lies outside of the source .*table"):
        read(path)
    # The user may name another folder, and only the user.
    (plate,) = read(path, images=tmp_path / "disk")
    assert [plane.path for plane in plate.planes] == [tmp_path / "disk/a.tif", tmp_path / "disk/b.tif"]
    with pytest.raises(UsageError, match="--images goes with a table"):
        read(tmp_path / "table", images=tmp_path / "disk")
    # The same images, where the table is: what else lies on the machine does not matter.
    touch(tmp_path / "table", "a.tif", "b.tif")
    (plate,) = read(path)
    assert [plane.path for plane in plate.planes] == [tmp_path / "table/a.tif", tmp_path / "table/b.tif"]
    write(tmp_path / "table", f"passwd,/etc,c.tif,{tmp_path}/disk,P,A1,1")
    (plate,) = read(path)
    assert not any(plane.path.exists() for plane in plate.planes)


@pytest.mark.parametrize("folder", ["..", "../b", "/a/../b", "..\\b", "a/../../b", "link"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / "b", "a.tif", "b.tif")
    write(tmp_path / "a", f"a.tif,{folder},b.tif,,P,A1,1")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    with pytest.raises(InputError, match="leads out of the folder"):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s3://bucket/x.tif,,b.tif,,P,A1,1", "lies on a server, and no file below"),
        ("x.tif,https://host/x,b.tif,,P,A1,1", "lies on a server, and no file below"),
        ("a\0.tif,,b.tif,,P,A1,1", "is no name of a file"),
        ("a" * 300 + ".tif,,b.tif,,P,A1,1", "is no name of a file"),
        ("a.tif,,b.tif,,P,A1,x1y", "line 2: Metadata_Site is 'x1y', expected a number"),
        ("a.tif,,b.tif,,P,A1,", "line 2: Metadata_Site is '', expected a number"),
        ("a.tif,,b.tif,,P,A77,1", "line 2: 'A77' is not a well"),
        ("a.tif,,b.tif,,P,,1", "line 2: '' is not a well"),
        ("a.tif,,b.tif,,P", "line 2 has 5 cells, the head 7"),
        ("a,1.tif,,b.tif,,P,A1,1", "line 2 has 8 cells, the head 7"),
        ("a.tif,,b.tif,,/,A1,1", "cannot be a plate name"),
        (",,,,P,A1,1", "names no images"),
        ("", "names no images"),
        ('"' + "x" * 200_000 + '"', "cannot be read as a table"),
        ("x" * 2_000_000, "holds a line longer than any plate's"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, message: str) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    write(tmp_path, line)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("FileName_OrigDNA,Metadata_Site", "no column of wells"),
        ("FileName_IllumDNA,Metadata_Well", "is no file that describes a plate"),
        ("FileName_OrigDNA,filename_origdna,Metadata_Well", "several columns named FileName_OrigDNA"),
        ("FileName_OrigDNA,FileName_Orig_DNA,Metadata_Well", "several columns for channel DNA"),
        ("PathName_OrigDNA,Metadata_Well", r"is no file that describes a plate"),
    ],
)
def test_heads_that_do_not_do(tmp_path: Path, head: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path, "x,y,z", head=head))


def test_which_tables_of_a_folder_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    line = "a.tif,,b.tif,,,A1,1"
    write(tmp_path, line, name="images.csv")
    (plate,) = read(tmp_path)
    assert plate.name == tmp_path.name
    (tmp_path / "P.HTD").write_text('"HTSInfoFile", Version 1.0\n')
    with pytest.raises(InputError, match="ImageXpress"):
        read(tmp_path)
    write(tmp_path, line)
    write(tmp_path, line, name="load_data_with_illum.csv")
    (plate,) = read(tmp_path)
    assert len(plate.planes) == 2
    assert plate.notes == ("not read, as load_data.csv names the images: load_data_with_illum.csv",)


def test_a_table_that_unpacks_without_end_stops_early(tmp_path: Path) -> None:
    path = tmp_path / "load_data.csv.gz"
    path.write_bytes(gzip.compress(HEAD.encode() + b"\n" + bytes(50_000_000)))
    with pytest.raises(InputError, match="longer than any plate's"):
        list(read_rows(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError):
        list(read_rows(path))


def test_mutants_are_read_or_refused(tmp_path: Path, mutate: Callable[..., bytes]) -> None:
    touch(tmp_path, "P1/a.tif", "P1/b.tif", "c.tif")
    lines = ["a.tif,/x/P1,b.tif,/x/P1,P,A1,1", "c.tif,.,P1\\b.tif,,P,B12,s2", "lost.tif,,,,P,AF48,03"]
    path = write(tmp_path, *lines)
    content = path.read_bytes()
    pieces = [
        b"\0",
        b'"',
        b"\xff\xfe",
        b"\n",
        b",",
        b";",
        b"../",
        b"file:///",
        b"s3://",
        b"/",
        b"\xf0\x9f\x98\x80",
        b"9" * 30,
    ]
    outcomes = {"read": 0, "refused": 0}
    for seed in range(300):
        path.write_bytes(mutate(content, seed, pieces))
        try:
            for plate in read(path):
                check_plate(
                    plate, IngestSettings(sources=(path,), out=tmp_path, on_missing="fill", workers=1)
                )
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 30
