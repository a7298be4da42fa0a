"""AnnData files as profile tables."""

import builtins
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from cellvim.errors import InputError, UsageError
from cellvim.profiles import read_profiles

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    anndata = pytest.importorskip("anndata")

OBS = {"Plate": ["P", "P", "Q"], "Metadata_Well": ["a1", "A02", "B3"], "dose": [1.0, None, 3.0]}
VALUES = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]], np.float32)


def as_objects(values: Any) -> Any:
    return pd.Series(values) if isinstance(values, pd.Categorical) else pd.Series(values, dtype=object)


def write(path: Path, obs: dict[str, Any] = OBS, values: Any = VALUES, **content: Any) -> Path:
    # This release of anndata cannot write the text that pandas 3 makes of lists unless told otherwise.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columns = {
            name: pd.Series(values) if name == "dose" else as_objects(values) for name, values in obs.items()
        }
        rows = pd.DataFrame(columns)
        rows.index = pd.Index(["r0", "r1", "r2"], dtype=object)
        features = pd.Index(content.pop("features", ["size", "shape"]), dtype=object)
        anndata.AnnData(X=values, obs=rows, var=pd.DataFrame(index=features), **content).write_h5ad(path)
    return path


def test_rows_features_and_values_are_those_of_the_file(tmp_path: Path) -> None:
    table = read_profiles(write(tmp_path / "t.h5ad"))
    np.testing.assert_array_equal(table.features, VALUES)
    assert table.feature_names == ("size", "shape")
    assert table.metadata["Metadata_Well"].to_list() == ["A01", "A02", "B03"]
    assert table.plates == ("P", "Q")
    assert table.metadata["Metadata_dose"].fill_nan(None).to_list() == [1.0, None, 3.0]
    assert table.provenance == {}
    assert table.name == "t"


def test_sparse_values_are_the_same_table(tmp_path: Path) -> None:
    table = read_profiles(write(tmp_path / "t.h5ad", values=csr_matrix(VALUES)))
    np.testing.assert_array_equal(table.features, VALUES)


def test_categories_and_empty_cells_become_text_and_null(tmp_path: Path) -> None:
    kinds = pd.Categorical(
        ["negcon", None, "poscon"], categories=pd.Index(["negcon", "poscon"], dtype=object)
    )
    table = read_profiles(write(tmp_path / "t.h5ad", OBS | {"ControlType": kinds}))
    assert table.metadata["Metadata_ControlType"].to_list() == ["negcon", None, "poscon"]
    assert table.is_control.tolist() == [True, False, False]


def test_of_two_columns_the_one_with_the_prefix_counts(tmp_path: Path) -> None:
    obs = OBS | {"Metadata_Plate": ["X", "X", "Y"]}
    assert read_profiles(write(tmp_path / "t.h5ad", obs)).plates == ("X", "Y")


def test_what_a_file_says_of_its_making_is_read(tmp_path: Path) -> None:
    made = {"model_sha256": "aa", "level": "well"}
    assert read_profiles(write(tmp_path / "t.h5ad", uns={"cellvim": json.dumps(made)})).provenance == made
    with pytest.raises(InputError, match="is not JSON"):
        read_profiles(write(tmp_path / "t.h5ad", uns={"cellvim": "{"}))


def test_the_same_table_twice_in_a_folder_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "t.h5ad")
    columns = {"Metadata_Plate": OBS["Plate"], "Metadata_Well": ["A01", "A02", "B03"]}
    pl.DataFrame(columns | {"size": VALUES[:, 0], "shape": VALUES[:, 1]}).write_parquet(
        tmp_path / "t.parquet"
    )
    assert read_profiles(tmp_path).metadata.height == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"values": None}, "has no X"),
        ({"features": ["Metadata_size", "shape"]}, "is named Metadata_size"),
        ({"features": ["size", "size"]}, "name of another"),
        ({"obs": {"Plate": ["P"] * 3, "well_id": ["A01"] * 3}}, "no column Metadata_Well"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_profiles(write(tmp_path / "t.h5ad", **content))


@pytest.mark.parametrize("content", [b"", b"no hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 64])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.h5ad").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as an AnnData file"):
        read_profiles(tmp_path / "t.h5ad")
    whole = write(tmp_path / "u.h5ad").read_bytes()
    (tmp_path / "u.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        read_profiles(tmp_path / "u.h5ad")


def test_where_anndata_is_missing_the_way_to_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.h5ad")
    real = builtins.__import__

    def without(name: str, *others: Any) -> Any:
        if name == "anndata":
            raise ImportError(name)
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="not installed") as caught:
        read_profiles(path)
    assert caught.value.hint == "pip install 'cellvim[anndata]'"
