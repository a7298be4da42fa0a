"""BBBC022 as published: a folder per plate and wave, one table of images with damaged lines, and mechanisms apart."""

from pathlib import Path

import pytest

from cellvim.store import FieldKey, PlateReader
from pipelines.published.bbbc022.__main__ import main
from tests.pipelines.published_layouts import columns, draw, ingest, noise, wells_of, write_rows

IMAGE_HEAD = columns(
    "ImageNumber,Image_FileName_OrigER,Image_FileName_OrigHoechst,Image_FileName_OrigMito,Image_FileName_OrigPh_golgi,"
    "Image_FileName_OrigSyto,Image_Metadata_ASSAY_WELL_ROLE,Image_Metadata_BROAD_ID,Image_Metadata_CPD_MMOL_CONC,"
    "Image_Metadata_CPD_PLATE_MAP_NAME,Image_Metadata_CPD_SMILES,Image_Metadata_CPD_WELL_POSITION,"
    "Image_Metadata_PlateID,Image_Metadata_SOURCE_COMPOUND_NAME,Image_Metadata_SOURCE_NAME,Image_Metadata_Site,"
    "Image_Metadata_Time,Image_PathName_OrigER,Image_PathName_OrigHoechst,Image_PathName_OrigMito,"
    "Image_PathName_OrigPh_golgi,Image_PathName_OrigSyto"
)
WAVES = {"Hoechst": 1, "ER": 2, "Syto": 3, "Ph_golgi": 4, "Mito": 5}
GUID = "2CA7BDF3-1425-4AE6-8E57-{:012X}"
# Plate 20591 was not fetched.
PLATES = ("20585", "20586", "20591")
WELLS = (
    ("A01", "compound", "BRD-K98763141-001-06-8", "8.858401198", "NIFLUMIC ACID"),
    ("A02", "compound", "BRD-A41941932-001-03-0", "2.312793797", "Vitexin"),
    ("A13", "mock", "", "", ""),
    ("P24", "mock", "", "", ""),
)


def lay_out(root: Path) -> Path:
    rows = []
    for plate in PLATES:
        for well, role, sample, stock, name in WELLS:
            number = len(rows) + 1
            row = {
                "ImageNumber": number,
                "Image_Metadata_ASSAY_WELL_ROLE": role,
                "Image_Metadata_BROAD_ID": sample,
                "Image_Metadata_CPD_MMOL_CONC": stock,
                "Image_Metadata_CPD_PLATE_MAP_NAME": "H-BIOA-002-1",
                "Image_Metadata_CPD_WELL_POSITION": well,
                "Image_Metadata_PlateID": plate,
                "Image_Metadata_SOURCE_COMPOUND_NAME": name,
                "Image_Metadata_Site": 1,
                "Image_Metadata_Time": "1.26754E+12",
            }
            for channel, wave in WAVES.items():
                seed = 5 * number + wave
                row[f"Image_FileName_Orig{channel}"] = file = (
                    f"IXMtest_{well}_s1_w{wave}{GUID.format(seed)}.tif"
                )
                row[f"Image_PathName_Orig{channel}"] = f"{plate}/"
                if plate != "20591":
                    draw(root / "images" / f"BBBC022_v1_images_{plate}w{wave}" / file, seed=seed)
            rows.append(row)
    write_rows(root / "BBBC022_v1_image.csv", IMAGE_HEAD, rows)
    with (root / "BBBC022_v1_image.csv").open("a") as file:
        file.write("69121,too,few,cells\n" + "69122" + ",x" * (len(IMAGE_HEAD) + 1) + "\n")
    moa = [{"Var1": "BRD-K98763141", "Metadata_moa.x": "cyclooxygenase inhibitor"}]
    write_rows(root / "BBBC022_MOA_MATCHES_official.csv", ["Var1", "Metadata_moa.x"], moa)
    return root


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlateReader]:
    source = lay_out(tmp_path_factory.mktemp("bbbc022"))
    main(["--source", str(source), "--out", str(source)])
    return ingest(source / "study.yaml")


def test_plates_know_compounds_mock_wells_and_mechanisms(plates: dict[str, PlateReader]) -> None:
    assert set(plates) == {"20585", "20586"}
    plate = plates["20586"]
    assert set(plate.channels) == {"DNA", "ER", "RNA", "AGP", "Mito"}
    assert plate.wells == ("A01", "A02", "A13", "P24")
    wells = wells_of(plate)
    assert {wells[well]["Metadata_ControlType"] for well in ("A13", "P24")} == {"negcon"}
    assert {wells[well]["Metadata_Perturbation"] for well in ("A13", "P24")} == {"DMSO"}
    assert wells["A01"]["Metadata_Perturbation"] == "BRD-K98763141-001-06-8"
    assert wells["A01"]["Metadata_pert_iname"] == "niflumic acid"
    # The table of mechanisms knows compounds, the table of images samples of them.
    assert wells["A01"]["Metadata_moa"] == "cyclooxygenase inhibitor"
    assert wells["A02"]["Metadata_moa"] is None
    assert wells["A01"]["Metadata_PlateMap"] == "H-BIOA-002-1"


def test_each_stain_comes_from_its_own_wave(plates: dict[str, PlateReader]) -> None:
    plate = plates["20585"]
    pixels = plate.read_field(FieldKey("A02", 1), raw=True)
    for stain, wave in {"DNA": 1, "ER": 2, "RNA": 3, "AGP": 4, "Mito": 5}.items():
        assert (pixels[plate.channels.index(stain)] == noise(10 + wave)).all()


def test_damaged_lines_are_counted_and_mechanisms_may_be_absent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = lay_out(tmp_path)
    (source / "BBBC022_MOA_MATCHES_official.csv").unlink()
    main(["--source", str(source), "--out", str(source)])
    assert "BBBC022_v1_image.csv: 2 damaged lines are left out" in caplog.text
    assert "cyclooxygenase" not in (source / "platemap.csv").read_text()


def test_a_role_that_nobody_knows_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = lay_out(tmp_path)
    table = source / "BBBC022_v1_image.csv"
    table.write_text(table.read_text().replace(",mock,", ",reference,"))
    with pytest.raises(SystemExit) as stopped:
        main(["--source", str(source), "--out", str(source)])
    assert stopped.value.code == 3
    assert "unknown role 'reference'" in caplog.text
