"""A folder of tables is one table if they were made alike, and is refused with both names and the setting if not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from cellvim.errors import InputError, NotFoundError
from cellvim.evaluate.thumbnails import read_thumbnails
from cellvim.profiles import PROVENANCE_KEY, read_profiles, read_together, thumbnails_files

MADE = {
    "model_sha256": "aa11",
    "normalization": "clip",
    "level": "well",
    "pool": "channel",
    "layers": [3],
    "tile_px": 64,
    "has_intensity": False,
    "channels": ["DNA", "ER"],
}


def write(
    path: Path, plate: str, made: Mapping[str, Any] | None = None, names: tuple[str, ...] = ("x", "y")
) -> Path:
    """Three wells, whose first feature is their number."""
    table = pl.DataFrame(
        {"Metadata_Plate": [plate] * 3, "Metadata_Well": ["A01", "A02", "B01"]}
        | {name: [float(index), 1.0 + index, 2.0 + index] for index, name in enumerate(names)}
    )
    path.parent.mkdir(exist_ok=True)
    arrow = table.to_arrow()
    if made is not None:
        own = {"identity": f"of {plate}", "plates": {plate: "f"}, "failed": {f"{plate} C01": "why"}}
        arrow = arrow.replace_schema_metadata({PROVENANCE_KEY: json.dumps(own | dict(made))})
    pq.write_table(arrow, path)
    return path


def test_tables_of_one_making_become_one_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "screen"
    for plate in ("P2", "P1", "P3"):
        write(folder / f"{plate}.parquet", plate, MADE)
    (folder / "P1.run.json").write_text("{}")
    (folder / "NOTES.txt").write_text("hello")
    (folder / ".tmp-1-P9.parquet").write_bytes(b"half")

    table = read_profiles(folder)
    assert table.name == "screen"
    assert table.source == folder
    assert table.plates == ("P1", "P2", "P3")
    assert table.metadata["Metadata_Plate"].to_list() == ["P1"] * 3 + ["P2"] * 3 + ["P3"] * 3
    np.testing.assert_array_equal(table.features[:, 0], [0, 1, 2] * 3)
    assert table.provenance["plates"] == {"P1": "f", "P2": "f", "P3": "f"}
    assert table.provenance["failed"] == {"P1 C01": "why", "P2 C01": "why", "P3 C01": "why"}
    assert "identity" not in table.provenance
    assert table.provenance["model_sha256"] == "aa11"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_sha256", "bb22"),
        ("normalization", "none"),
        ("level", "field"),
        ("pool", "all"),
        ("layers", [2]),
        ("tile_px", 32),
        ("has_intensity", True),
        ("channels", ["ER", "DNA"]),
        ("a setting of tomorrow", 1),
    ],
)
def test_tables_made_differently_are_refused_by_name_and_setting(
    tmp_path: Path, key: str, value: object
) -> None:
    write(tmp_path / "t" / "a.parquet", "P1", MADE)
    write(tmp_path / "t" / "b.parquet", "P2", MADE | {key: value})
    with pytest.raises(InputError, match=key) as caught:
        read_profiles(tmp_path / "t")
    assert all(name in caught.value.found for name in ("a.parquet", "b.parquet", str(value)))


def test_channels_may_differ_where_features_are_averaged_over_them(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet", "P1", MADE | {"pool": "all"})
    write(tmp_path / "t" / "b.parquet", "P2", MADE | {"pool": "all", "channels": ["RNA"]})
    assert len(read_profiles(tmp_path / "t").plates) == 2


def test_foreign_tables_need_the_same_features(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet", "P1")
    write(tmp_path / "t" / "b.parquet", "P2", names=("y", "x"))
    table = read_profiles(tmp_path / "t")
    assert table.feature_names == ("x", "y")
    # x is the second feature of the second file.
    np.testing.assert_array_equal(table.features[:, 0], [0, 1, 2, 1, 2, 3])

    write(tmp_path / "t" / "c.parquet", "P3", names=("x", "z"))
    with pytest.raises(InputError, match=r"a.parquet and .*c.parquet cannot be one table: 2 feature.*y, z"):
        read_profiles(tmp_path / "t")


def test_foreign_tables_and_ours_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet", "P1", MADE)
    write(tmp_path / "t" / "b.parquet", "P2")
    with pytest.raises(InputError, match="one says how it was made"):
        read_profiles(tmp_path / "t")


def test_a_well_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet", "P1", MADE)
    write(tmp_path / "t" / "b.parquet", "P2", MADE)
    write(tmp_path / "t" / "c.parquet", "P1", MADE)
    with pytest.raises(InputError, match=r"a.parquet and .*c.parquet both hold plate P1 well A01 \(3 such"):
        read_profiles(tmp_path / "t")


def test_formats_and_columns_may_differ_between_foreign_files(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet", "P1")
    rows = "Metadata_Plate,Metadata_Well,Metadata_Dose,x,y\n2,A1,0.5,7,8\n"
    (tmp_path / "t" / "b.csv").write_text(rows)
    table = read_profiles(tmp_path / "t")
    assert table.metadata["Metadata_Dose"].to_list() == [None, None, None, 0.5]
    assert table.plates == ("2", "P1")


def test_an_empty_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no profile table in the folder"):
        read_profiles(tmp_path)


def test_values_that_are_not_finite_are_judged_over_all_files(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet", "P1")
    table = pl.read_parquet(write(tmp_path / "t" / "b.parquet", "P2"))
    table.with_columns(pl.Series("y", [None, 1.0, 2.0])).write_parquet(tmp_path / "t" / "b.parquet")
    joined = read_profiles(tmp_path / "t")
    assert joined.feature_names == ("x",)
    assert joined.features.shape == (6, 1)


def test_files_given_one_by_one_are_joined_by_the_same_rules(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", "P1", MADE)
    second = write(tmp_path / "b.parquet", "P2", MADE)
    assert read_together([first, second]).plates == ("P1", "P2")
    other = write(tmp_path / "c.parquet", "P3", MADE | {"tile_px": 8})
    with pytest.raises(InputError, match="tile_px is 64 in one and 8 in the other"):
        read_together([first, second, other])


def test_pictures_of_all_tables_of_a_folder_are_found(tmp_path: Path) -> None:
    for plate in ("P1", "P2", "P3"):
        write(tmp_path / "t" / f"{plate}.parquet", plate, MADE)
    for plate in ("P1", "P3"):
        pictures = {"Metadata_Plate": [plate], "Metadata_Well": ["A01"], "png": [plate.encode()]}
        pl.DataFrame(pictures).write_parquet(tmp_path / "t" / f"{plate}.thumbnails.parquet")
    assert read_profiles(tmp_path / "t").metadata.height == 9
    assert [path.name for path in thumbnails_files(tmp_path / "t")] == [
        "P1.thumbnails.parquet",
        "P3.thumbnails.parquet",
    ]
    wells = pl.DataFrame({"Metadata_Plate": ["P1", "P2", "P3"], "Metadata_Well": ["A01"] * 3})
    found = read_thumbnails(tmp_path / "t", wells)
    assert found is not None
    assert found["png"].to_list() == [b"P1", b"P3"]
