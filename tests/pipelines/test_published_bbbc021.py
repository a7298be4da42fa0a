"""BBBC021 as published: from its three tables and folders by week to plates that know compounds, doses and mechanisms."""

import shlex
from pathlib import Path

import pytest
import yaml

from cellvim.store import FieldKey, PlateReader
from cellvim.study import plan_study
from pipelines.published.bbbc021.__main__ import main
from tests.pipelines.published_layouts import (
    columns,
    draw,
    evaluated,
    ingest,
    noise,
    run,
    wells_of,
    write_rows,
)

IMAGE_HEAD = columns(
    "TableNumber,ImageNumber,Image_FileName_DAPI,Image_PathName_DAPI,Image_FileName_Tubulin,Image_PathName_Tubulin,"
    "Image_FileName_Actin,Image_PathName_Actin,Image_Metadata_Plate_DAPI,Image_Metadata_Well_DAPI,Replicate,"
    "Image_Metadata_Compound,Image_Metadata_Concentration"
)
WAVES = {"DAPI": "w1", "Tubulin": "w2", "Actin": "w4"}
GUID = "BEDC2073-A983-4B98-95E9-{:012X}"
# Plate, replicate, first part of its file names; a plate of week 1 was not fetched.
PLATES = (("Week4_27481", 1, ""), ("Week9_39301", 3, "Week9_090907_"), ("Week1_22123", 2, "Week1_150607_"))
WELLS = (
    ("B02", "DMSO", "0"),
    ("C02", "taxol", "0.3"),
    ("D02", "taxol", "0.001"),
    ("E11", "docetaxel", "0.3"),
    ("F11", "DMSO", "0"),
    ("G10", "mevinolin/lovastatin", "1.5"),
    ("G11", "DMSO", "0"),
)
MOA = "compound,concentration,moa\rtaxol,0.3,Microtubule stabilizers\rdocetaxel,0.3,Microtubule stabilizers\rmevinolin/lovastatin,1.5,Cholesterol-lowering\rDMSO,0,DMSO\r"


def lay_out(root: Path) -> Path:
    rows = []
    for plate, replicate, prefix in PLATES:
        for well, compound, concentration in WELLS:
            for site in (1, 2):
                number = len(rows) + 1
                row = dict(zip(IMAGE_HEAD[:2], (4, number), strict=True))
                for offset, (channel, wave) in enumerate(WAVES.items()):
                    row[f"Image_FileName_{channel}"] = name = (
                        f"{prefix}{well}_s{site}_{wave}{GUID.format(3 * number + offset)}.tif"
                    )
                    row[f"Image_PathName_{channel}"] = f"{plate.partition('_')[0]}/{plate}"
                    if plate != "Week1_22123":
                        draw(root / plate / name, seed=3 * number + offset)
                facts = (plate, well, replicate, compound, concentration)
                rows.append(row | dict(zip(IMAGE_HEAD[8:], facts, strict=True)))
    write_rows(root / "BBBC021_v1_image.csv", IMAGE_HEAD, rows)
    (root / "BBBC021_v1_moa.csv").write_text(MOA)
    return root


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study file of two plates; one image of actin is lost."""
    source = lay_out(tmp_path_factory.mktemp("bbbc021"))
    next(source.glob("Week9_39301/*C02_s2_w4*.tif")).unlink()
    main(["--source", str(source), "--out", str(source.parent / "bbbc021_study")])
    return source.parent / "bbbc021_study" / "study.yaml"


@pytest.fixture(scope="module")
def plates(study: Path) -> dict[str, PlateReader]:
    return ingest(study)


def test_plates_know_compounds_doses_mechanisms_and_weeks(plates: dict[str, PlateReader]) -> None:
    assert set(plates) == {"Week4_27481", "Week9_39301"}
    plate = plates["Week9_39301"]
    assert set(plate.channels) == {"DNA", "Tubulin", "Actin"}
    assert plate.wells == ("B02", "C02", "D02", "E11", "F11", "G10", "G11")
    wells = wells_of(plate)
    assert wells["B02"]["Metadata_ControlType"] == "negcon"
    assert wells["B02"]["Metadata_Perturbation"] == "DMSO"
    assert wells["C02"]["Metadata_Perturbation"] == "taxol@0.3 uM"
    assert wells["C02"]["Metadata_ControlType"] is None
    assert wells["C02"]["Metadata_moa"] == "Microtubule stabilizers"
    assert wells["G10"]["Metadata_Concentration"] == 1.5
    assert {row["Metadata_Batch"] for row in wells.values()} == {"Week9"}
    # A treatment that the publishers give no mechanism has none, nor has DMSO, though their table lists it as one.
    assert wells["D02"]["Metadata_moa"] is None
    assert wells["B02"]["Metadata_moa"] is None


def test_each_stain_shows_its_own_image(plates: dict[str, PlateReader]) -> None:
    plate = plates["Week4_27481"]
    pixels = plate.read_field(FieldKey("B02", 2), raw=True)
    # The second row of the table: its images were drawn from 6 for DAPI, 7 for tubulin and 8 for actin.
    for stain, seed in {"DNA": 6, "Tubulin": 7, "Actin": 8}.items():
        assert (pixels[plate.channels.index(stain)] == noise(seed)).all()


def test_a_lost_image_leaves_its_field_out(plates: dict[str, PlateReader]) -> None:
    plate = plates["Week9_39301"]
    assert FieldKey("C02", 1) in plate.fields
    assert FieldKey("C02", 2) not in plate.fields


def test_an_own_study_file_is_kept(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "bbbc021")
    (source / "study.yaml").write_text("name: mine\n")
    main(["--source", str(source), "--out", str(source)])
    assert (source / "study.yaml").read_text() == "name: mine\n"


def test_what_is_missing_is_said_with_a_hint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--source", str(tmp_path), "--out", str(tmp_path / "study")])
    assert stopped.value.code == 3
    assert "error: no table of this name below the source at BBBC021_v1_image.csv" in caplog.text
    assert "hint: " in caplog.text
    assert not (tmp_path / "study").exists()


@pytest.mark.usefixtures("plates")
def test_the_study_asks_for_mechanisms_of_other_compounds_and_weeks(study: Path) -> None:
    """An untrained encoder through the study's own commands: who is asked is known, whatever it answers."""
    settings = yaml.safe_load(study.read_text())
    settings["pretrain"] = {
        "preset": "nano",
        "steps": 0,
        "model": {"position_grid": 2},
        "crops": {"crop_px": 32},
    }
    study.write_text(yaml.safe_dump(settings))
    planned = plan_study(study)
    planned.write_pretrain_file()
    for command in (planned.pretrain(), *(planned.embed(plate) for plate in planned.plates)):
        assert command is not None
        run(study, shlex.join(command))
    metrics = evaluated(study, planned.results / "profiles")
    # Taxol and docetaxel share a mechanism; nothing shares that of lovastatin, so that it has no answer to find.
    assert (metrics["nsc"]["queries"], metrics["nsc"]["unanswerable"]) == (2, 1)
    assert (metrics["nscb"]["queries"], metrics["nscb"]["unanswerable"]) == (4, 2)
    assert metrics["nscb"]["batch"] == "Metadata_Batch"
    assert metrics["activity"]["perturbations"] == 4
