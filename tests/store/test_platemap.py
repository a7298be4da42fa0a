"""Plate maps from JUMP, LINCS and plain laboratories end up in the same columns."""

from pathlib import Path

import polars as pl
import pytest

from cellvim.errors import InputError, NotFoundError
from cellvim.store.platemap import join_platemap, read_platemap, select_plate


def write(tmp_path: Path, text: str, name: str = "map.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_columns(tmp_path: Path) -> None:
    table = read_platemap(write(tmp_path, "well,perturbation,control_type\nb7,x,\nA01,DMSO,negcon\n"))
    assert table.to_dict(as_series=False) == {
        "Metadata_Well": ["B07", "A01"],
        "Metadata_Perturbation": ["x", "DMSO"],
        "Metadata_ControlType": [None, "negcon"],
        "Metadata_control_type": [None, "negcon"],
    }


def test_compound_and_dose_become_a_perturbation(tmp_path: Path) -> None:
    text = (
        "Well;Compound;Dose;Unit;ControlType\n"
        "A1;DMSO;0;uM;negcon\nA2;taxol;0.50;uM;\nA3;taxol;3;;poscon\nA4;;;;empty\n"
    )
    table = read_platemap(write(tmp_path, text))
    assert table["Metadata_Perturbation"].to_list() == ["DMSO", "taxol@0.5 uM", "taxol@3", None]


@pytest.mark.parametrize("row", ["B", "2", "02"])
def test_rows_and_columns_make_wells(tmp_path: Path, row: str) -> None:
    table = read_platemap(write(tmp_path, f"row\tcol\tdrug\n{row}\t7\tx\n", "map.tsv"))
    assert table["Metadata_Well"].to_list() == ["B07"]


def test_parquet_keeps_its_types_and_barcodes_keep_their_zeros(tmp_path: Path) -> None:
    csv = read_platemap(write(tmp_path, "plate,well,batch,ratio\n007,A01,0042,1.5\n"))
    assert csv.select("Metadata_Plate", "Metadata_batch", "Metadata_ratio").row(0) == ("007", "0042", 1.5)
    pl.DataFrame({"well": ["A1"], "perturbation": [5]}).write_parquet(tmp_path / "map.parquet")
    assert read_platemap(tmp_path / "map.parquet")["Metadata_Perturbation"].to_list() == ["5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("perturbation\nx\n", "no well column"),
        ("well\nZ99\n", "'Z99' is not a well"),
        ("well,x\nA1,1\nA01,2\n", "several rows for A01"),
        ("well,well_id,Metadata_well\nA1,A1,A1\n", "same name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_platemap(write(tmp_path, text))


def test_a_binary_file_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "map.parquet").write_bytes(b"\x00\xff" * 50)
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_platemap(tmp_path / "map.parquet")
    with pytest.raises(NotFoundError):
        read_platemap(tmp_path / "none.csv")


def test_joining_keeps_every_row_and_the_order(caplog: pytest.LogCaptureFixture) -> None:
    table = pl.DataFrame({"Metadata_Well": ["B02", "A01", "A02"], "emb_0000": [1.0, 2.0, 3.0]})
    platemap = pl.DataFrame({"Metadata_Well": ["A01", "B02"], "Metadata_Perturbation": ["x", "y"]})
    joined = join_platemap(table, platemap)
    assert joined["Metadata_Perturbation"].to_list() == ["y", "x", None]
    assert joined["emb_0000"].to_list() == [1.0, 2.0, 3.0]
    assert "1 well(s) are not in the plate map: A02" in caplog.text


def test_joining_goes_by_plate_where_both_name_plates() -> None:
    keys = {"Metadata_Plate": ["P1", "P2"], "Metadata_Well": ["A01", "A01"]}
    platemap = pl.DataFrame({**keys, "Metadata_Perturbation": ["x", "y"]})
    joined = join_platemap(pl.DataFrame(keys).reverse(), platemap)
    assert joined["Metadata_Perturbation"].to_list() == ["y", "x"]
    with pytest.raises(InputError, match="no well of the table is in the plate map"):
        join_platemap(pl.DataFrame(keys), platemap.with_columns(Metadata_Plate=pl.lit("P3")))


def test_a_plate_map_of_another_plate_is_refused(tmp_path: Path) -> None:
    table = read_platemap(write(tmp_path, "plate,well\n1049,A1\n1050,A1\n"))
    assert select_plate(table, "1049").height == 1
    with pytest.raises(InputError, match=r"no plate 'images' \(it has 1049, 1050\)"):
        select_plate(table, "images")


def test_real_plate_maps(shared: Path) -> None:
    data = shared / "data"
    bbbc = read_platemap(data / "bbbc013" / "platemap.csv")
    assert bbbc.height == 48
    assert bbbc["Metadata_ControlType"].value_counts().sort("count")["count"].to_list() == [2, 4, 6, 36]
    assert {"Wortmannin@0.98 nM", "LY294002@80 uM", "DMSO"} <= set(bbbc["Metadata_Perturbation"])
    for name, control, count in (
        ("jump_target/JUMP-Target-1_compound_platemap.tsv", "negcon", 64),
        ("jump_target/JUMP-Target-1_crispr_platemap.tsv", "empty", 4),
        ("lincs/C-7161-01-LM6-001.txt", "negcon", 24),
    ):
        table = read_platemap(data / "metadata" / name)
        assert table.height == 384
        assert (table["Metadata_ControlType"] == control).sum() == count
    genotypes = read_platemap(data / "nf1_schwann" / "platemap_NF1_plate2.csv")
    assert genotypes.filter(Metadata_Well="B07")["Metadata_genotype"].to_list() == ["Null"]
