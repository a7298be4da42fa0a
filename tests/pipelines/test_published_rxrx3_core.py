"""RxRx3-core as published: shards of JPEG 2000 images by key, one table of wells, and a table of embeddings."""

from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate.stage import evaluate_table
from cellvim.store import FieldKey, PlateReader
from pipelines.published.rxrx3_core.__main__ import main
from tests.pipelines.published_layouts import columns, ingest, noise, plan, wells_of, write_rows

HEAD = columns(
    "well_id,experiment_name,plate,address,gene,treatment,SMILES,concentration,perturbation_type,cell_type"
)
# Experiment, plate, address, gene, treatment, SMILES, concentration.
WELLS = (
    ("gene-079", 8, "A01", "RPLP2", "RPLP2_guide_4", "", ""),
    ("gene-079", 8, "H29", "RPLP2", "RPLP2_guide_1", "", ""),
    ("gene-079", 8, "AF48", "PLK1", "PLK1_guide_2", "", ""),
    ("gene-079", 8, "AA02", "EMPTY_control", "EMPTY_control", "", ""),
    ("gene-079", 9, "A01", "RPLP2", "RPLP2_guide_4", "", ""),
    ("gene-079", 9, "AA02", "EMPTY_control", "EMPTY_control", "", ""),
    ("compound-001", 19, "D20", "", "Dequalinium", "CC1=[N+](C |c:1,13,21,t:16,19|", "0.25"),
    ("compound-001", 19, "U08", "", "EMPTY_control", "", ""),
    ("compound-001", 19, "B08", "", "CRISPR_control", "", ""),
)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def seed_of(well: int, channel: int) -> int:
    return 10 * well + channel


def lay_out(root: Path) -> Path:
    rows = [
        {
            **dict(zip(HEAD[1:8], well, strict=True)),
            "well_id": f"{well[0]}_{well[1]}_{well[2]}",
            "perturbation_type": "CRISPR" if well[0].startswith("gene") else "COMPOUND",
            "cell_type": "HUVEC",
        }
        for well in WELLS
    ]
    write_rows(root / "metadata_rxrx3_core.csv", HEAD, rows)
    images = [
        (f"{experiment}/Plate{plate}/{address}_s1_{channel}", seed_of(number, channel))
        for number, (experiment, plate, address, *_) in enumerate(WELLS)
        for channel in range(1, 7)
    ]
    # The images of one well may lie in two shards.
    write_shard(root / "data" / "train-00000-of-00035.parquet", images[:20])
    write_shard(root / "data" / "train-00016-of-00035.parquet", images[20:])
    return root


def write_shard(path: Path, images: list[tuple[str, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [
        {"bytes": imagecodecs.jpeg2k_encode(noise(seed, np.uint8), level=0), "path": key}
        for key, seed in images
    ]
    table = pa.table({"__key__": [key for key, _ in images], "jp2": pa.array(content, IMAGE)})
    pq.write_table(table, path, row_group_size=7)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("rxrx3_core"))


@pytest.fixture(scope="module")
def plates(source: Path) -> dict[str, PlateReader]:
    main(["--source", str(source), "--out", str(source / "study")])
    return ingest(source / "study" / "study.yaml")


def test_plates_of_genes_know_genes_guides_and_untreated_wells(plates: dict[str, PlateReader]) -> None:
    assert set(plates) == {"gene-079_8", "gene-079_9", "compound-001_19"}
    plate = plates["gene-079_8"]
    assert plate.channels == ("DNA", "ER", "Actin", "RNA", "Mito", "WGA")
    assert plate.wells == ("A01", "H29", "AA02", "AF48")
    wells = wells_of(plate)
    # Guides of a gene are one perturbation, as the publishers count.
    assert wells["A01"]["Metadata_Perturbation"] == wells["H29"]["Metadata_Perturbation"] == "RPLP2"
    assert wells["A01"]["Metadata_Guide"] == "RPLP2_guide_4"
    assert wells["A01"]["Metadata_ControlType"] is None
    assert wells["AA02"]["Metadata_ControlType"] == "negcon"
    assert {row["Metadata_Batch"] for row in wells.values()} == {"gene-079"}


def test_plates_of_compounds_know_doses(plates: dict[str, PlateReader]) -> None:
    wells = wells_of(plates["compound-001_19"])
    assert wells["D20"]["Metadata_Perturbation"] == "Dequalinium@0.25 uM"
    assert wells["D20"]["Metadata_Compound"] == "Dequalinium"
    assert wells["D20"]["Metadata_Concentration"] == 0.25
    assert wells["U08"]["Metadata_ControlType"] == "negcon"
    # Guides without a target, on a plate of compounds, are neither a treatment nor untreated.
    assert wells["B08"]["Metadata_ControlType"] == "empty"
    assert wells["B08"]["Metadata_Perturbation"] is None


def test_pixels_and_channels_survive_the_shards(plates: dict[str, PlateReader]) -> None:
    plate = plates["gene-079_8"]
    # The fourth well: its first two channels lie in the first shard, the others in the second.
    pixels = plate.read_field(FieldKey("AA02", 1), raw=True)
    for channel in range(1, 7):
        assert (pixels[channel - 1] == noise(seed_of(3, channel), np.uint8)).all()


def test_only_what_is_asked_for_is_unpacked(source: Path, tmp_path: Path) -> None:
    main(["--source", str(source), "--out", str(tmp_path), "--experiments", "gene-079", "--plates", "9"])
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["gene-079_9"]
    assert list(plan(tmp_path / "study.yaml")["plates"]) == ["gene-079_9"]
    assert pl.read_csv(tmp_path / "platemap.csv")["Metadata_Well"].to_list() == ["A01", "AA02"]


def test_a_damaged_image_is_named(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_rows(
        tmp_path / "metadata_rxrx3_core.csv",
        HEAD,
        pl.read_csv(source / "metadata_rxrx3_core.csv", infer_schema=False).fill_null("").to_dicts(),
    )
    content = pa.array([{"bytes": b"no image", "path": ""}], IMAGE)
    table = pa.table({"__key__": ["gene-079/Plate8/A01_s1_1"], "jp2": content})
    pq.write_table(table, tmp_path / "train-00000-of-00035.parquet")
    with pytest.raises(SystemExit) as stopped:
        main(["--source", str(tmp_path), "--out", str(tmp_path / "study")])
    assert stopped.value.code == 3
    assert "A01_s1_w1.tif of plate gene-079_8 is damaged" in caplog.text


GENES = ("EMPTY_control", "RPL1", "RPL2", "TP53", "MTOR", "SRC", "HCK", "MAOA", "ACHE")


def lay_out_embeddings(root: Path) -> np.ndarray:
    """Two plates of three wells per gene. RPL1 and RPL2 look alike, the others like nothing; the wells' embeddings."""
    generator = np.random.default_rng(0)
    rows, features = [], []
    for plate in (1, 2):
        for number in range(3 * len(GENES)):
            gene, address = GENES[number % len(GENES)], f"A{number + 1:02d}"
            treatment = gene if "control" in gene else f"{gene}_guide_{number % 6}"
            values = (
                f"gene-001_{plate}_{address}",
                "gene-001",
                plate,
                address,
                gene,
                treatment,
                "",
                "",
                "CRISPR",
                "HUVEC",
            )
            rows.append(dict(zip(HEAD, values, strict=True)))
            vector = generator.normal(0, 0.1, 8)
            if gene != "EMPTY_control":
                vector[max(GENES.index(gene) - 2, 0)] += 3
            features.append(vector)
    write_rows(root / "metadata_rxrx3_core.csv", HEAD, rows)
    embeddings = pl.DataFrame(np.array(features), schema=[f"feature_{k}" for k in range(8)])
    ids = pl.Series("well_id", [row["well_id"] for row in rows])
    # Two rows per well, which differ: the publishers average rows of one well.
    parts = [(embeddings + shift).with_columns(ids) for shift in (1, -1)]
    pl.concat(parts).write_parquet(root / "OpenPhenom_rxrx3_core_embeddings.parquet")
    return np.array(features)


def test_published_embeddings_become_profiles_that_evaluate_takes(tmp_path: Path) -> None:
    features = lay_out_embeddings(tmp_path)
    out = tmp_path / "profiles"
    name = "OpenPhenom_rxrx3_core_embeddings.parquet"
    main(["--source", str(tmp_path), "--out", str(out), "--embeddings", name])
    profiles = pl.read_parquet(out / "profiles.parquet")
    assert np.allclose(profiles.select("^feature_.*$").to_numpy(), features, atol=1e-6)
    write_rows(tmp_path / "CORUM.csv", ["entity1", "entity2"], [{"entity1": "RPL1", "entity2": "RPL2"}])
    settings = EvaluateSettings(
        tables=(out / "profiles.parquet",),
        out=tmp_path / "report",
        tasks=("activity", "recall"),
        relations=tmp_path / "CORUM.csv",
        normalize="none",
        null_size=100,
        bootstraps=20,
    )
    results = evaluate_table("OpenPhenom", out / "profiles.parquet", settings).results
    activity = results["activity"].tables[""]
    assert set(activity["Metadata_Perturbation"]) == set(GENES) - {"EMPTY_control"}
    assert (activity["map"] > 0.99).all()
    assert results["recall"].metrics["pairs"] == 1
    assert results["recall"].tables[""]["is_recalled"].to_list() == [True]


def test_a_table_that_holds_no_embeddings_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay_out_embeddings(tmp_path)
    pl.DataFrame({"well_id": ["gene-001_1_A01"], "emb": [0.5]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "--source",
                str(tmp_path),
                "--out",
                str(tmp_path),
                "--embeddings",
                str(tmp_path / "other.parquet"),
            ]
        )
    assert stopped.value.code == 3
    assert "feature_0" in caplog.text
