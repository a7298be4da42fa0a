"""Profile tables as strangers write them: what is read, what is refused and in which words."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.errors import InputError, NotFoundError
from cellvim.profiles import read_profiles

PLAIN = {
    "Metadata_Plate": ["P1", "P1", "P2"],
    "Metadata_Well": ["a1", "A02", "AF48"],
    "size": [1.0, 2.0, 3.5],
    "count": [4, 5, 6],
}


def write(folder: Path, name: str, columns: dict[str, list[object]]) -> Path:
    path = folder / name
    table = pl.DataFrame(columns)
    if name.endswith(".parquet"):
        table.write_parquet(path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(table.write_csv().encode()))
    else:
        table.write_csv(path, separator="\t" if name.endswith(".tsv") else ",")
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.tsv"])
def test_every_format_gives_the_same_profiles(tmp_path: Path, name: str) -> None:
    profiles = read_profiles(write(tmp_path, name, PLAIN))

    assert profiles.feature_names == ("size", "count")
    assert profiles.features.dtype == np.float32
    np.testing.assert_array_equal(profiles.features, [[1, 4], [2, 5], [3.5, 6]])
    assert profiles.metadata["Metadata_Well"].to_list() == ["A01", "A02", "AF48"]
    assert profiles.name == "t"
    assert profiles.plates == ("P1", "P2")
    assert not profiles.is_control.any()


@pytest.mark.parametrize(
    ("separator", "decimal", "name"),
    [
        (";", ",", "t.csv"),
        (";", ".", "t.csv.gz"),
        ("\t", ".", "t.csv"),
        (",", ".", "t.txt"),
        (";", ",", "t.tsv"),
    ],
)
def test_a_text_table_is_read_by_what_parts_its_header(
    tmp_path: Path, separator: str, decimal: str, name: str
) -> None:
    rows = [
        ["Metadata_Plate", "Metadata_Well", "Metadata_moa", "size"],
        ["P", "A1", "a|b", "1.5"],
        ["P", "A2", "c", "-2.25"],
    ]
    text = "\n".join(separator.join(row).replace(".", decimal) for row in rows).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    profiles = read_profiles(path)
    np.testing.assert_array_equal(profiles.features, [[1.5], [-2.25]])
    assert profiles.metadata["Metadata_moa"].to_list() == ["a|b", "c"]


def test_peers_names_of_plate_and_well_are_understood(tmp_path: Path) -> None:
    columns = {"Metadata_Assay_Plate_Barcode": [7], "Metadata_well_position": ["C3"], "x": [1.0]}
    profiles = read_profiles(write(tmp_path, "t.csv", columns))
    assert profiles.metadata.select("Metadata_Plate", "Metadata_Well").rows() == [("7", "C03")]


def test_features_and_rows_that_are_not_finite_are_dropped_and_counted(tmp_path: Path) -> None:
    columns = {
        "Metadata_Plate": ["P"] * 4,
        "Metadata_Well": ["A1", "A2", "A3", "A4"],
        "good": [1.0, 2.0, 3.0, None],
        "hole": [1.0, None, 3.0, None],
        "infinite": [1.0, 2.0, float("inf"), float("nan")],
    }
    profiles = read_profiles(write(tmp_path, "t.parquet", columns))

    assert profiles.feature_names == ("good",)
    assert profiles.metadata.height == 3
    assert [note.split(" ")[0] for note in profiles.warnings] == ["1", "2"]


def test_a_nearly_empty_well_costs_itself_and_not_the_features_of_all_wells(tmp_path: Path) -> None:
    """A05 has one feature of ten; the tenth feature is empty almost everywhere and must not cost A01."""
    features: dict[str, list[object]] = {
        f"f{number}": [1.0, 2.0, 3.0, 4.0, 5.0 if number == 0 else None] for number in range(9)
    }
    features["f9"] = [None, None, None, None, 1.0]
    columns = {"Metadata_Plate": ["P"] * 5, "Metadata_Well": [f"A{number}" for number in range(1, 6)]}
    profiles = read_profiles(write(tmp_path, "t.parquet", columns | features))

    assert profiles.feature_names == tuple(f"f{number}" for number in range(9))
    assert profiles.metadata["Metadata_Well"].to_list() == ["A01", "A02", "A03", "A04"]
    assert profiles.warnings[0].startswith("1 row(s) dropped")
    assert profiles.warnings[0].endswith(": P A05")


def without(name: str) -> dict[str, list[object]]:
    return {key: value for key, value in PLAIN.items() if key != name}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (without("Metadata_Plate"), "no column Metadata_Plate"),
        (without("Metadata_Well"), "no column Metadata_Well"),
        ({key: value for key, value in PLAIN.items() if key.startswith("Meta")}, "no feature columns"),
        ({key: [] for key in PLAIN}, "no rows"),
        (PLAIN | {"compound": ["x", "y", "z"]}, "hold no numbers: compound"),
        (PLAIN | {"Metadata_Well": ["A1", "A2", "nowhere"]}, "is not a well"),
        (PLAIN | {"Metadata_Plate": ["P1", None, "P2"]}, "is empty in some rows"),
        (without("count") | {"size": [float("nan")] * 3}, "no feature is a finite number"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(
    tmp_path: Path, columns: dict[str, list[object]], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_profiles(write(tmp_path, "t.csv", columns))
    assert caught.value.hint


def test_a_file_that_is_no_table_says_so(tmp_path: Path) -> None:
    damaged = write(tmp_path, "t.parquet", PLAIN)
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        read_profiles(damaged)
    with pytest.raises(InputError, match="by its ending"):
        read_profiles(write(tmp_path, "t.csv", PLAIN).rename(tmp_path / "t.xlsx"))
    with pytest.raises(NotFoundError):
        read_profiles(tmp_path / "absent.parquet")


def test_numbers_of_rows_are_no_features(tmp_path: Path) -> None:
    """What pandas writes unless told not to: as a feature it would know the order of rows, and place on the plate."""
    for name in ("", "Unnamed: 0", "index", "__index_level_0__"):
        columns = {name: [0, 1, 2], **PLAIN}
        profiles = read_profiles(write(tmp_path, "t.csv", columns))
        assert profiles.feature_names == ("size", "count")
        assert "row numbers" in profiles.warnings[0]
    assert not read_profiles(write(tmp_path, "t.csv", PLAIN)).warnings


def test_metadata_of_any_format_are_what_they_would_be_as_text(tmp_path: Path) -> None:
    told = {"moa": ["", " ", "x"], "code": [float("nan"), 1.0, 2.0], "targets": [["a", "b"], [], None]}
    columns = PLAIN | {f"Metadata_{name}": values for name, values in told.items()}
    metadata = read_profiles(write(tmp_path, "t.parquet", columns)).metadata
    assert metadata["Metadata_moa"].to_list() == [None, None, "x"]
    assert metadata["Metadata_code"].to_list() == [None, 1.0, 2.0]
    assert metadata["Metadata_targets"].to_list() == ["a|b", None, None]
    for strange in ([{"a": 1}] * 3, [[{"a": 1}]] * 3, [b"x"] * 3):
        with pytest.raises(InputError, match=r"Metadata_odd holds .* neither numbers nor text"):
            read_profiles(write(tmp_path, "t.parquet", PLAIN | {"Metadata_odd": strange}))
