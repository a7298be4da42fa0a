"""The table as AnnData holds the same numbers, opens in anndata, and is the same bytes each time."""

import importlib.util
import json
import logging
from datetime import date
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import polars as pl
import pytest

from cellvim.config import EmbedSettings
from cellvim.embed import embed_plates
from cellvim.embed.anndata import write_anndata
from cellvim.embed.writer import read_metadata, write_table
from cellvim.errors import OutputExistsError, UsageError
from cellvim.store import PlateReader


@pytest.fixture
def settings(make_plate: Any, model: Path, tmp_path: Path) -> EmbedSettings:
    plates: list[PlateReader] = [make_plate(name, wells=("A01", "B02"), sites=1) for name in ("P1", "P2")]
    content = {"plates": [plate.path for plate in plates], "model": model, "out": tmp_path / "e.parquet"}
    return EmbedSettings.checked({**content, "device": "cpu", "anndata": True})


def test_anndata_holds_the_table(settings: EmbedSettings) -> None:
    embed_plates(settings)
    table = pl.read_parquet(settings.out)
    found = anndata.read_h5ad(settings.out.with_suffix(".h5ad"))
    features = table.select(pl.selectors.starts_with("emb_"))
    np.testing.assert_array_equal(found.X, features.to_numpy())
    assert found.X.dtype == np.float32
    assert list(found.var_names) == features.columns
    assert list(found.obs_names) == ["P1/A01", "P1/B02", "P2/A01", "P2/B02"]
    assert found.obs["Metadata_Well"].to_list() == table["Metadata_Well"].to_list()
    assert json.loads(found.uns["cellvim"]) == read_metadata(settings.out)


def test_it_is_the_same_bytes_and_written_where_it_is_absent(settings: EmbedSettings) -> None:
    embed_plates(settings)
    path = settings.out.with_suffix(".h5ad")
    first = path.read_bytes()
    path.unlink()
    assert embed_plates(settings).was_done
    assert path.read_bytes() == first


def test_any_metadata_can_be_held(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "Metadata_Plate": ["P", "P", None],
            "Metadata_Well": ["A01", "A01", "B01"],
            "Metadata_dose uM/l": [1.5, None, 3.0],
            "Metadata_dose uM_l": [1, 2, None],
            "Metadata_is/bad": [True, None, False],
            "Metadata_Day": [date(2026, 1, 2), None, None],
            "Metadata_Empty": [None, None, None],
            "Metadata_Name": ["<b>µ</b>", "", None],
            "Metadata_Many": [["a"], [], None],
            "emb_0000": [0.5, 1.5, 2.5],
        },
        schema_overrides={"emb_0000": pl.Float32},
    )
    write_table(tmp_path / "t.parquet", table, {"identity": "x"})
    write_anndata(tmp_path / "t.h5ad", tmp_path / "t.parquet")
    obs = anndata.read_h5ad(tmp_path / "t.h5ad").obs
    # Two rows of one well: numbers name them.
    assert list(obs.index) == ["0", "1", "2"]
    np.testing.assert_array_equal(obs["Metadata_dose uM_l"], [1.5, np.nan, 3.0])
    np.testing.assert_array_equal(obs["Metadata_dose uM_l_"], [1, 2, np.nan])
    assert obs["Metadata_is_bad"].astype(object).to_list()[:1] == ["true"]
    assert obs["Metadata_Day"].astype(object).to_list()[0] == "2026-01-02"
    assert obs["Metadata_Name"].astype(object).to_list()[:2] == ["<b>µ</b>", ""]
    assert obs["Metadata_Empty"].isna().all()
    assert obs["Metadata_Many"].astype(object).to_list()[:2] == ["['a']", "[]"]


def test_without_the_extra_nothing_is_begun(settings: EmbedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="anndata is not installed") as missing:
        embed_plates(settings)
    assert missing.value.hint == "pip install 'cellvim[anndata]'"
    assert [path.name for path in settings.out.parent.glob("e*")] == []


def test_somebody_elses_file_is_not_overwritten(
    settings: EmbedSettings, caplog: pytest.LogCaptureFixture
) -> None:
    path = settings.out.with_suffix(".h5ad")
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="was not made from this table"):
        embed_plates(settings)
    assert not settings.out.exists()
    with caplog.at_level(logging.WARNING, logger="cellvim"):
        embed_plates(settings.model_copy(update={"anndata": False}))
    assert "e.h5ad was not made from this table" in caplog.text
    assert path.read_bytes() == b"mine"
    embed_plates(settings.model_copy(update={"overwrite": True}))
    assert anndata.read_h5ad(path).n_obs == 4
