"""Plate maps joined at ingest: by well, by plate, and by barcode through a screen's list of plates."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from cellvim.config import IngestSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.ingest import ingest_plates
from cellvim.store import PlateReader

MakeSettings = Callable[..., IngestSettings]
WriteImages = Callable[..., Path]


@pytest.fixture
def lincs(shared: Path, tmp_path: Path) -> Path:
    """The list of plates of a real screen, and the one plate map at hand in its folder."""
    data, folder = shared / "data/metadata/lincs", tmp_path / "metadata"
    (folder / "platemap").mkdir(parents=True)
    shutil.copy(data / "barcode_platemap.csv", folder)
    shutil.copy(data / "C-7161-01-LM6-001.txt", folder / "platemap")
    return folder


def platemap_of(settings: IngestSettings) -> dict[str, pl.DataFrame]:
    plates = [PlateReader(result.path) for result in ingest_plates(settings).plates]
    return {plate.name: plate.platemap for plate in plates if plate.platemap is not None}


def test_a_real_screens_plates_by_barcode(
    lincs: Path, write_images: WriteImages, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Which plates share the map is read from the list by other means; wells A01 and P24 are its corners."""
    table = pl.read_csv(lincs / "barcode_platemap.csv")
    barcodes = table.filter(Plate_Map_Name="C-7161-01-LM6-001")["Assay_Plate_Barcode"].sort().to_list()[:2]
    assert len(barcodes) == 2
    for barcode in barcodes:
        write_images(barcode, wells=("A01", "P24"), sites=1, channels=1)
    caplog.set_level(logging.WARNING)
    maps = platemap_of(make_settings(platemap=lincs / "barcode_platemap.csv"))
    assert sorted(maps) == barcodes
    raw = pl.read_csv(lincs / "platemap/C-7161-01-LM6-001.txt", separator="\t")
    corner = raw.filter(well_position="P24").row(0, named=True)
    for barcode, rows in maps.items():
        assert rows["Metadata_Plate"].to_list() == [barcode] * 2
        assert rows["Metadata_Well"].to_list() == ["A01", "P24"]
        assert rows["Metadata_Perturbation"].to_list() == ["DMSO", corner["broad_sample"]]
        assert (
            rows["Metadata_Batch_Number"].to_list()
            == table.filter(Assay_Plate_Barcode=barcode)["Batch_Number"].to_list() * 2
        )
        assert f"{barcode}: 382 well(s) are in the plate map but have no images: A02, A03" in caplog.text


@pytest.mark.parametrize("folder", [".", "platemap", "platemaps", "../platemap", "../platemaps"])
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet"])
def test_where_plate_maps_may_lie(
    tmp_path: Path, write_images: WriteImages, make_settings: MakeSettings, folder: str, suffix: str
) -> None:
    write_images("BC1", wells=("A01",), sites=1, channels=1)
    (tmp_path / "m" / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "m" / "barcodes.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nBC1,map-1\n")
    rows = pl.DataFrame({"well_position": ["A01"], "broad_sample": ["BRD-1"]})
    path = tmp_path / "m" / folder / f"map-1{suffix}"
    if suffix == ".parquet":
        rows.write_parquet(path)
    else:
        rows.write_csv(path, separator="\t" if suffix == ".txt" else ",")
    (rows,) = platemap_of(make_settings(platemap=tmp_path / "m" / "barcodes.csv")).values()
    assert rows["Metadata_Perturbation"].to_list() == ["BRD-1"]
    record = json.loads((tmp_path / "out" / "BC1.cellvim" / "run.json").read_text())
    expected = {
        name.name: hashlib.sha256(name.read_bytes()).hexdigest() for name in (tmp_path / "m").glob("*.csv")
    }
    expected[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {Path(name).name: sha256 for name, sha256 in record["inputs"].items()} == expected


def test_a_plate_that_is_in_no_list(
    lincs: Path, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    write_images("SQ00015233X", wells=("A01",), sites=1, channels=1)
    with pytest.raises(InputError, match=r"no plate 'SQ00015233X' \(it has 140, most alike SQ00015233, "):
        ingest_plates(make_settings(platemap=lincs / "barcode_platemap.csv"))


def test_a_plate_map_that_is_lost(
    lincs: Path, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    write_images("SQ00015201", wells=("A01",), sites=1, channels=1)
    with pytest.raises(NotFoundError, match=r"no plate map of plate SQ00015201 at .*C-7161-01-LM6-017"):
        ingest_plates(make_settings(platemap=lincs / "barcode_platemap.csv"))


def test_a_plate_is_known_by_its_barcode_also_under_another_name(
    tmp_path: Path, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    """The source says `Plate 1`, which no file can be called, and the user calls it X."""
    folder = write_images("P", wells=("AF48",), sites=1, channels=1)
    line = "P_AF48_s1_w1.tif,Plate 1,AF48,1"
    (folder / "load_data.csv").write_text(
        f"FileName_OrigDNA,Metadata_Plate,Metadata_Well,Metadata_Site\n{line}\n"
    )
    (tmp_path / "map.csv").write_text("plate,well,perturbation\nPlate 1,AF48,x\nPlate 2,AF48,y\n")
    for name in (None, "X"):
        settings = make_settings(platemap=tmp_path / "map.csv", plate=name, out=tmp_path / str(name))
        (rows,) = platemap_of(settings).values()
        assert rows.select("Metadata_Plate", "Metadata_Perturbation").row(0) == (name or "Plate_1", "x")


def test_real_jump_maps_of_384_wells(
    shared: Path, write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Two wells of each kind: with a compound, and with solvent alone."""
    write_images(wells=("A01", "A02"), sites=1, channels=1)
    maps = sorted((shared / "data/metadata/jump_target").glob("*_platemap.tsv"))
    assert len(maps) == 4
    for path in maps:
        raw = pl.read_csv(path, separator="\t").rows(named=True)[:2]
        (rows,) = platemap_of(make_settings(platemap=path, out=tmp_path / path.stem)).values()
        expected = [row["broad_sample"] or row.get("solvent") for row in raw]
        assert rows["Metadata_Perturbation"].to_list() == expected


def test_wells_that_do_not_match_are_named_both_ways(
    tmp_path: Path, write_images: WriteImages, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(wells=("A01", "AF48"), sites=1, channels=1)
    path = tmp_path / "map.csv"
    path.write_text("well,perturbation\naf48,x\nAA7,y\nb1,z\n")
    caplog.set_level(logging.WARNING)
    (rows,) = platemap_of(make_settings(platemap=path)).values()
    assert rows["Metadata_Well"].to_list() == ["AF48"]
    assert "P: 1 well(s) have images but are not in the plate map: A01" in caplog.text
    assert "P: 2 well(s) are in the plate map but have no images: B01, AA07" in caplog.text
    path.write_text("well,perturbation\nC3,x\n")
    with pytest.raises(InputError, match="has no well of plate P: it has C03, the images are of A01, AF48"):
        ingest_plates(make_settings(platemap=path))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("BC1,../secret", "'../secret' is no name of a plate map"),
        ("BC1,/etc/passwd", "is no name of a plate map"),
        ("BC1,c:secret", "is no name of a plate map"),
        ("BC1,.hidden", "is no name of a plate map"),
        ("BC1,", "row 1: the plate map is empty"),
        (",m", "row 1: the barcode is empty"),
        ("BC1,m\nBC1,n", "gives plate BC1 two plate maps: m, n"),
        ("BC1,m\nBC2,n", "plate map m is there twice"),
        ("BC1,bad", "no well column"),
    ],
)
def test_lists_that_do_not_do(
    tmp_path: Path, write_images: WriteImages, make_settings: MakeSettings, lines: str, message: str
) -> None:
    write_images("BC1", wells=("A01",), sites=1, channels=1)
    for name in ("m.csv", "m.tsv"):
        (tmp_path / name).write_text("well,perturbation\nA1,x\n")
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    path = tmp_path / "list.csv"
    path.write_text(f"Barcode,Plate_Map_Name\n{lines}\n")
    with pytest.raises(InputError, match=message):
        ingest_plates(make_settings(platemap=path))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "well,drug,control type\nA01,DMSO,neg\nA02,x,\n",
            "A: plate map: 2 wells, 1 perturbations, 1 negative controls",
        ),
        ("well,drug\nA01,DMSO\nA02,x\n", "A: the plate map marks no negative control"),
        ("well,genotype\nA01,WT\nA02,KO\n", "does not say what was done to a well (columns: Well, genotype)"),
    ],
)
def test_what_was_understood_is_said_before_anything_is_written(
    write_images: WriteImages,
    make_settings: MakeSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    rows: str,
    said: str,
) -> None:
    write_images("A", wells=("A01", "A02"), sites=1, channels=1)
    (tmp_path / "map.csv").write_text(rows)
    caplog.set_level(logging.INFO)
    ingest_plates(make_settings(platemap=tmp_path / "map.csv", dry_run=True))
    assert said in caplog.text
    assert ("marks no" in caplog.text) == ("marks no" in said)
