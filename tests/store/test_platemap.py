"""Plate maps from JUMP, LINCS and plain laboratories end up in the same columns."""

import gzip
from pathlib import Path

import numpy as np
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
        ("well\nB2\nZ99\n", r"map\.csv row 2: 'Z99' is not a well"),
        ("well,x\n,1\n", r"row 1: the well is empty"),
        ("row,column,x\nB,2,\nB,,x\n", r"row 2: 'B' is not a well"),
        ("row,column,x\n,,x\n", r"row 1: the well is empty"),
        ("row,column\nB,two\n", "row 1: 'Btwo' is not a well"),
        ("row,column\nB,2.5\n", r"row 1: 'B2\.5' is not a well"),
        ("row,column\n33,1\n", "row 1: '331' is not a well"),
        ("row,column\n²,1\n", "row 1: '²1' is not a well"),
        ("well,x\nA1,1\nA01,2\n", "several rows for A01"),
        ("well,well_id,Metadata_well\nA1,A1,A1\n", "same name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_platemap(write(tmp_path, text))


@pytest.mark.parametrize("name", ["12E3", "12345678901234567890", "1e5", "007", "1.50", "+5", "inf", "1_0"])
@pytest.mark.parametrize(
    "column", ["Plate", "Assay_Plate_Barcode", "Perturbation", "Compound", "pert_id", "lot"]
)
def test_names_that_look_like_numbers_stay_names(tmp_path: Path, column: str, name: str) -> None:
    table = read_platemap(write(tmp_path, f"well,{column}\nA1,{name}\n"))
    assert table[f"Metadata_{column}"].to_list() == [name]
    if column == "Compound":
        assert table["Metadata_Perturbation"].to_list() == [name]


@pytest.mark.parametrize(
    ("column", "cells", "numbers"),
    [
        ("age", "30,,-4", [30, None, -4]),
        ("ratio", "0.5,1.25,1e-07", [0.5, 1.25, 1e-07]),
        ("ratio", "1,1.5", [1.0, 1.5]),
        ("lot", "1,1.0", ["1", "1.0"]),
        ("dose", "0.50,1E-6,10", [0.5, 1e-6, 10.0]),
        ("mmoles_per_liter", "0.10,", [0.1, None]),
        ("Conc (uM)", "1,2", [1, 2]),
        ("dose", "1,high", ["1", "high"]),
        ("dose", "1,inf", ["1", "inf"]),
        ("empty", ",", [None, None]),
    ],
)
def test_numbers_are_numbers_where_nothing_is_lost(
    tmp_path: Path, column: str, cells: str, numbers: list[object]
) -> None:
    rows = "\n".join(f"A{row},{cell}" for row, cell in enumerate(cells.split(","), start=1))
    read = read_platemap(write(tmp_path, f"well,{column}\n{rows}\n"))[f"Metadata_{column}"].to_list()
    assert read == numbers
    assert [type(value) for value in read] == [type(value) for value in numbers]


def test_whole_numbers_with_gaps_as_pandas_stores_them(tmp_path: Path) -> None:
    pl.DataFrame({"row": [2.0], "column": [7.0]}).write_parquet(tmp_path / "map.parquet")
    assert read_platemap(tmp_path / "map.parquet")["Metadata_Well"].to_list() == ["B07"]


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


def test_a_plate_is_the_same_whatever_a_file_name_cannot_hold() -> None:
    names = ["Plate 1", "Plate/2", "Plate_2", "###", None]
    platemap = pl.DataFrame({"Metadata_Plate": names, "Metadata_Well": ["A01"] * 5, "Metadata_x": range(5)})
    selected = select_plate(platemap, "Plate_1")
    assert selected.rows() == [("Plate_1", "A01", 0)]
    assert select_plate(platemap, "Plate_2").rows() == [("Plate_2", "A01", 2)]
    table = pl.DataFrame({"Metadata_Plate": ["Plate_2", "Plate_1", "###"], "Metadata_Well": ["A01"] * 3})
    assert join_platemap(table, platemap)["Metadata_x"].to_list() == [2, 0, 3]
    assert join_platemap(table, selected)["Metadata_x"].to_list() == [None, 0, None]
    spaced = table.with_columns(pl.col("Metadata_Plate").str.replace("_1", "  1"))
    assert join_platemap(spaced, platemap)["Metadata_x"].to_list() == [2, 0, 3]


def test_plates_that_differ_only_in_what_a_file_name_cannot_hold_are_refused() -> None:
    platemap = pl.DataFrame({"Metadata_Plate": ["P 1", "P#1"], "Metadata_Well": ["A01", "A01"]})
    with pytest.raises(InputError, match="cannot be told apart as file names: P 1, P#1"):
        select_plate(platemap, "P_1")


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "map.CSV"
    path.write_bytes("well;compound;dose;unit\r\na1;Café;0,5;µM\r\n".encode(encoding))
    assert read_platemap(path)["Metadata_Perturbation"].to_list() == ["Café@0.5 µM"]


@pytest.mark.parametrize(
    "column", ["Concentration (µM)", "Dose [µM]", "Conc. (µM)", "dose_µM", "Metadata_dose µM"]
)
def test_a_dose_whose_column_names_the_unit(tmp_path: Path, column: str) -> None:
    """Without it the doses of a compound would count as replicates of one another."""
    rows = "A1;DMSO;;neg\nA2;x;0,5;\nA3;x;1,0;\n"
    table = read_platemap(write(tmp_path, f"well;compound;{column};control\n{rows}"))
    assert table["Metadata_Perturbation"].to_list() == ["DMSO", "x@0.5 µM", "x@1 µM"]
    assert table["Metadata_Dose"].to_list() == [None, 0.5, 1.0]
    assert table["Metadata_DoseUnit"].to_list() == [None, "µM", "µM"]


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ("dose,dose (mg)", ("Metadata_dose", "Metadata_dose (mg)")),
        ("dose (mg),dose (uM)", ("Metadata_dose (mg)", "Metadata_dose (uM)")),
        ("overdose (mg),dosed", ("Metadata_overdose (mg)", "Metadata_dosed")),
    ],
)
def test_a_unit_is_not_guessed(tmp_path: Path, columns: str, kept: tuple[str, ...]) -> None:
    table = read_platemap(write(tmp_path, f"well,{columns}\nA1,1,2\n"))
    assert set(kept) <= set(table.columns)
    assert "Metadata_DoseUnit" not in table.columns


@pytest.mark.parametrize("row", ['A1,x,"0,5"\n', 'A1,x,"1,000"\n'])
def test_a_comma_is_no_decimal_point_where_it_parts_columns(tmp_path: Path, row: str) -> None:
    (name,) = read_platemap(write(tmp_path, f"well,compound,dose\n{row}"))["Metadata_Perturbation"]
    assert name == "x@" + row.split('"')[1]


def test_a_workbook_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "map.xlsx").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    with pytest.raises(InputError, match="workbook") as caught:
        read_platemap(tmp_path / "map.xlsx")
    assert "CSV" in caught.value.hint


def test_text_files_by_their_content(tmp_path: Path) -> None:
    assert read_platemap(write(tmp_path, "well,drug\nA1,x\n", "map.txt")).height == 1
    packed = tmp_path / "map.tsv.gz"
    packed.write_bytes(gzip.compress(b"well\tdrug, salt\nA1\tx\n"))
    assert read_platemap(packed)["Metadata_drug, salt"].to_list() == ["x"]


def test_a_table_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "map.csv.gz"
    bomb.write_bytes(gzip.compress(b"well\n" + bytes(300 << 20), 1))
    with pytest.raises(InputError, match="more than 256 MB"):
        read_platemap(bomb)


def test_columns_of_lists_are_left_out(tmp_path: Path) -> None:
    rows = {"well": ["A1"], "pert": ["x"], "targets": [["a", "b"]], "raw": [b"\xff"], "facts": [{"a": 1}]}
    pl.DataFrame(rows).with_columns(batch=pl.lit("b").cast(pl.Categorical)).write_parquet(
        tmp_path / "m.parquet"
    )
    assert read_platemap(tmp_path / "m.parquet").rows() == [("A01", "x", None, "x", "b")]


def test_a_list_of_barcodes_gives_each_plate_its_map(tmp_path: Path) -> None:
    write(tmp_path, "Metadata_Plate,Plate_Map_Name,Batch\n007,one,1\nP 2,two,2\nP3,one,3\n", "list.csv")
    write(tmp_path, "well,pert,ratio\nA1,x,1\nA2,y,2\n", "one.csv")
    write(tmp_path, "plate\twell\tpert\tratio\nP_2\tA1\tz\thigh\nother\tA1\tw\tlow\n", "two.txt")
    whole = read_platemap(tmp_path / "list.csv")
    columns = ["Metadata_Plate", "Metadata_Well", "Metadata_Perturbation", "Metadata_Batch"]
    assert whole.select(columns).rows() == [
        *[("007", "A01", "x", 1), ("007", "A02", "y", 1)],
        ("P 2", "A01", "z", 2),
        *[("P3", "A01", "x", 3), ("P3", "A02", "y", 3)],
    ]
    assert read_platemap(tmp_path / "list.csv", ["007", "P9"])["Metadata_ratio"].to_list() == [1, 2]
    table = pl.DataFrame({"Metadata_Plate": ["P_2", "007"], "Metadata_Well": ["A01", "A02"]})
    joined = join_platemap(table, read_platemap(tmp_path / "list.csv", ["P_2", "007"]))
    assert joined["Metadata_Perturbation"].to_list() == ["z", "y"]
    (tmp_path / "two.txt").unlink()
    assert read_platemap(tmp_path / "list.csv", ["P3"]).height == 2
    with pytest.raises(NotFoundError, match="no plate map of plate P 2"):
        read_platemap(tmp_path / "list.csv")
    with pytest.raises(InputError, match=r"no plate 'P9' \(it has 007, P 2, P3\)"):
        read_platemap(tmp_path / "list.csv", ["P9"])


def test_a_map_of_several_plates_is_no_template(tmp_path: Path) -> None:
    write(tmp_path, "barcode,plate_map\nP1,m\n", "list.csv")
    write(tmp_path, "plate,well\nQ1,A1\nQ2,A1\n", "m.csv")
    with pytest.raises(InputError, match=r"m.csv has several rows for P1/A01"):
        read_platemap(tmp_path / "list.csv")


def test_a_plate_is_found_under_either_of_its_names() -> None:
    platemap = pl.DataFrame(
        {"Metadata_Plate": ["BC1", "P1"], "Metadata_Well": ["A01"] * 2, "Metadata_x": [1, 2]}
    )
    assert select_plate(platemap, "P1", "BC1").rows() == [("P1", "A01", 2)]
    assert select_plate(platemap, "mine", "BC1").rows() == [("mine", "A01", 1)]
    with pytest.raises(InputError, match="no plate 'BC9'"):
        select_plate(platemap, "mine", "BC9")


@pytest.mark.parametrize("name", ["map.csv", "map.parquet", "map.csv.gz"])
def test_mutants_are_read_or_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = {"well": ["A1", "B02", "AF48"], "compound": ["DMSO", "x, y", None], "dose": ["0", "1.5", ""]}
    if name.endswith("parquet"):
        pl.DataFrame(rows).write_parquet(path)
        content = path.read_bytes()
    else:
        text = pl.DataFrame(rows).write_csv().encode()
        content = gzip.compress(text) if name.endswith("gz") else text
    pieces = [
        b"\0",
        b'"',
        b"\xff\xfe",
        b"\n",
        b",",
        b";;;",
        b"\xf0\x9f\x98\x80",
        b"9" * 400,
        b"well,",
        b"PAR1",
    ]
    outcomes = {"read": 0, "refused": 0}
    for seed in range(300):
        generator = np.random.default_rng(seed)
        changed = bytearray(content)
        for _ in range(generator.integers(1, 4)):
            at, end = sorted(generator.integers(0, len(changed) + 1, 2).tolist())
            piece = pieces[generator.integers(len(pieces))] if generator.random() < 0.5 else b""
            changed[at : min(end, at + 5)] = piece
        path.write_bytes(changed)
        try:
            select_plate(read_platemap(path), "P")
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 30
    assert outcomes["read"] > (30 if name == "map.csv" else -1)


def test_a_parquet_of_millions_of_equal_rows_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "map.parquet"
    pl.select(well=pl.repeat("A01", 1_000_001, dtype=pl.String)).write_parquet(path)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(InputError, match=r"map\.parquet holds 1,000,001 rows"):
        read_platemap(path)
