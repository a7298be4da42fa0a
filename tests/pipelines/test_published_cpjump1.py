"""CPJUMP1 as published: Harmony's folders and names, plate maps by barcode, perturbations apart, three modalities."""

from pathlib import Path

import polars as pl
import pytest

from cellvim.store import FieldKey, PlateReader
from pipelines.published.cpjump1.__main__ import main
from pipelines.published.cpjump1.prepare import perturbation_map
from pipelines.published.tables import tables_below
from tests.pipelines.published_layouts import columns, draw, ingest, noise, plan, wells_of, write_rows

EXPERIMENT_HEAD = columns(
    "Batch,Plate_Map_Name,Assay_Plate_Barcode,Perturbation,Cell_type,Time,Density,Antibiotics,Cell_line,Time_delay,"
    "Times_imaged,Anomaly,Number_of_images"
)
COMPOUND_HEAD = columns(
    "broad_sample,InChIKey,pert_iname,pubchem_cid,target_list,pert_type,control_type,smiles,InChI"
)
CRISPR_HEAD = columns("broad_sample,gene,pert_type,control_type,target_sequence,negcon_control_type")
FOLDERS = {
    "BR00117012": ("BR00117012__2020-11-08T14_58_34-Measurement1", "compound", "U2OS", "48"),
    "BR00116996": ("BR00116996__2020-11-09T15_32_10-Measurement3", "crispr", "U2OS", "144"),
}
COMPOUND_WELLS = {
    "A01": "BRD-A86665761-001-01-1",
    "A02": "",
    "A03": "BRD-K64890080-001-02-1",
    "B01": "",
}
CRISPR_WELLS = {"A01": "BRDN0001480888", "A02": "BRDN0001147649", "A03": "BRDN0001054845", "B01": ""}
COMPOUNDS = [
    {
        "broad_sample": "BRD-A86665761-001-01-1", "pert_iname": "gabapentin-enacarbil",
        "target_list": "CACNA2D1|CACNA2D2", "pert_type": "trt", "control_type": "NA",
    },
    {
        "broad_sample": "BRD-K64890080-001-02-1", "pert_iname": "BI-2536", "target_list": "BRD4|PLK1|PLK2|PLK3",
        "pert_type": "control", "control_type": "poscon_diverse",
    },
]  # fmt: skip
GUIDES = [
    {"broad_sample": "BRDN0001480888", "gene": "HIF1A", "pert_type": "trt"},
    {"broad_sample": "BRDN0001147649", "pert_type": "control", "control_type": "negcon", "negcon_control_type": "NO_SITE"},
    {"broad_sample": "BRDN0001054845", "gene": "AURKB", "pert_type": "control", "control_type": "poscon_cp"},
]  # fmt: skip


def lay_out(root: Path) -> Path:
    metadata = root / "metadata"
    barcodes = [
        {"Assay_Plate_Barcode": plate, "Plate_Map_Name": f"JUMP-Target-1_{modality}_platemap"}
        for plate, (_, modality, _, _) in FOLDERS.items()
    ]
    write_rows(metadata / "barcode_platemap.csv", list(barcodes[0]), barcodes)
    experiments = [
        {
            "Batch": "2020_11_04_CPJUMP1", "Plate_Map_Name": f"JUMP-Target-1_{modality}_platemap",
            "Assay_Plate_Barcode": plate, "Perturbation": modality, "Cell_type": cells, "Time": hours,
            "Density": "100", "Antibiotics": "absent", "Cell_line": "Parental", "Time_delay": "Day0", "Anomaly": "none",
        }
        for plate, (_, modality, cells, hours) in FOLDERS.items()
    ]  # fmt: skip
    write_rows(metadata / "experiment-metadata.tsv", EXPERIMENT_HEAD, experiments, separator="\t")
    compounds = [
        {"well_position": w, "broad_sample": s, "solvent": "DMSO"} for w, s in COMPOUND_WELLS.items()
    ]
    guides = [{"well_position": well, "broad_sample": sample} for well, sample in CRISPR_WELLS.items()]
    # As the bucket has one, and as the consortium's repository has the other.
    write_rows(
        metadata / "platemap" / "JUMP-Target-1_compound_platemap.txt",
        list(compounds[0]),
        compounds,
        separator="\t",
    )
    write_rows(metadata / "JUMP-Target-1_crispr_platemap.tsv", list(guides[0]), guides, separator="\t")
    write_rows(metadata / "JUMP-Target-1_compound_metadata.tsv", COMPOUND_HEAD, COMPOUNDS, separator="\t")
    write_rows(metadata / "JUMP-Target-1_crispr_metadata.tsv", CRISPR_HEAD, GUIDES, separator="\t")
    for number, (folder, *_) in enumerate(FOLDERS.values()):
        for place, (row, column) in enumerate(((1, 1), (1, 2), (1, 3), (2, 1))):
            for channel in range(1, 6):
                name = f"r{row:02d}c{column:02d}f01p01-ch{channel}sk1fk1fl1.tiff"
                draw(root / "images" / folder / "Images" / name, seed=50 * number + 10 * place + channel)
    return root


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = lay_out(tmp_path_factory.mktemp("cpjump1"))
    main(["--source", str(source), "--out", str(source / "study")])
    return source / "study" / "study.yaml"


@pytest.fixture(scope="module")
def plates(study: Path) -> dict[str, PlateReader]:
    return ingest(study)


def test_plates_have_their_barcodes_and_stains(study: Path, plates: dict[str, PlateReader]) -> None:
    assert set(plates) == set(FOLDERS) == set(plan(study)["plates"])
    plate = plates["BR00116996"]
    assert plate.wells == ("A01", "A02", "A03", "B01")
    pixels = plate.read_field(FieldKey("A03", 1), raw=True)
    for stain, channel in {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}.items():
        assert (pixels[plate.channels.index(stain)] == noise(50 + 20 + channel)).all()


def test_compound_wells_know_targets_and_dmso(plates: dict[str, PlateReader]) -> None:
    wells = wells_of(plates["BR00117012"])
    assert wells["A01"]["Metadata_gene"] == "CACNA2D1|CACNA2D2"
    assert wells["A01"]["Metadata_pert_iname"] == "gabapentin-enacarbil"
    assert wells["A01"]["Metadata_ControlType"] is None
    assert {wells[well]["Metadata_ControlType"] for well in ("A02", "B01")} == {"negcon"}
    assert {wells[well]["Metadata_Perturbation"] for well in ("A02", "B01")} == {"DMSO"}
    assert wells["A03"]["Metadata_ControlType"] == "poscon"
    assert {(row["Metadata_CellType"], row["Metadata_Hours"]) for row in wells.values()} == {("U2OS", 48)}


def test_guides_know_genes_and_wells_without_a_guide_take_no_part(plates: dict[str, PlateReader]) -> None:
    wells = wells_of(plates["BR00116996"])
    assert wells["A01"]["Metadata_gene"] == "HIF1A"
    assert wells["A01"]["Metadata_Perturbation"] == "BRDN0001480888"
    assert wells["A02"]["Metadata_ControlType"] == "negcon"
    assert wells["A02"]["Metadata_gene"] is None
    assert wells["A03"]["Metadata_ControlType"] == "poscon"
    # DMSO stands for no compound only: a well of this plate without a guide is no negative control.
    assert wells["B01"]["Metadata_ControlType"] == "empty"
    assert wells["B01"]["Metadata_Perturbation"] is None


def test_two_measurements_of_one_plate_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = lay_out(tmp_path)
    (source / "later" / "BR00117012__2020-12-02T10_00_00-Measurement1").mkdir(parents=True)
    with pytest.raises(SystemExit) as stopped:
        main(["--source", str(source), "--out", str(source / "study")])
    assert stopped.value.code == 3
    assert "several measurements of BR00117012" in caplog.text


@pytest.mark.parametrize(
    ("modality", "negative", "positive", "empty"),
    [("compound", 64, 60, 0), ("crispr", 60, 60, 4), ("orf", 60, 60, 4)],
)
def test_the_real_plate_maps_of_jump_target_1(
    shared: Path, modality: str, negative: int, positive: int, empty: int
) -> None:
    """384 wells each, and as many controls as the consortium's tables count."""
    rows = perturbation_map(
        tables_below(shared / "data" / "metadata" / "jump_target"), f"JUMP-Target-1_{modality}_platemap"
    )
    controls = pl.DataFrame(rows)["Metadata_ControlType"]
    assert len(rows) == 384
    assert (controls == "negcon").sum() == negative
    assert controls.str.starts_with("poscon").sum() == positive
    assert (controls == "empty").sum() == empty
    treated = [row for row in rows if not row["Metadata_ControlType"]]
    assert all(row["Metadata_gene"] for row in treated)
