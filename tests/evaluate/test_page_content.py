"""What goes into the report: the right wells and pictures, warnings, and nothing of the machine it was made on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate.page_content import page_content
from cellvim.evaluate.report import ReportContent
from cellvim.evaluate.stage import collect_metrics, evaluate_table
from cellvim.profiles import Profiles

MakeScreen = Callable[..., Profiles]
WriteScreen = Callable[[Profiles, Path], Path]


@pytest.fixture(scope="module")
def content(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path_factory: pytest.TempPathFactory
) -> ReportContent:
    """One plate with two replicates and three controls, too few for p < 0.05; with pictures of all wells."""
    folder = tmp_path_factory.mktemp("page")
    screen = make_screen(plates=1, controls=3)
    counted = replace(screen, metadata=screen.metadata.with_columns(Metadata_FieldCount=pl.lit(9)))
    path = write_screen(counted, folder / "screen.parquet")
    pictures = screen.metadata.select("Metadata_Plate", "Metadata_Well").with_columns(png=pl.lit(b"png"))
    absent = pl.DataFrame({"Metadata_Plate": ["P9"], "Metadata_Well": ["A01"], "png": [b"other"]})
    pl.concat([pictures, absent]).write_parquet(folder / "screen.thumbnails.parquet")
    settings = EvaluateSettings(
        tables=(path,),
        out=folder / "out",
        label="Moa",
        tasks=("activity", "replicate_retrieval"),
        bootstraps=20,
    )
    table = evaluate_table("screen", path, settings)
    return page_content([table], collect_metrics([table], settings), settings, {"screen": "0" * 64})


def test_every_well_has_a_place_and_every_treated_well_its_activity(content: ReportContent) -> None:
    assert content.wells.height == 11
    assert (
        content.wells.select("pca_1", "pca_2", "umap_1", "umap_2").null_count().sum_horizontal().item() == 0
    )
    is_control = pl.col("Metadata_ControlType").is_not_null()
    assert content.wells.filter(pl.col("activity_ap").is_null()).select(is_control.all()).item()
    assert content.wells["n_fields"].to_list() == [9] * 11


def test_a_perturbation_is_listed_whatever_could_be_judged(content: ReportContent) -> None:
    assert content.tasks == ("activity",)
    assert content.perturbations["Metadata_Perturbation"].to_list() == [f"drug {n}" for n in range(4)]
    assert content.perturbations["replicates"].to_list() == [2] * 4


def test_only_pictures_that_are_shown_are_carried(content: ReportContent) -> None:
    assert content.thumbnails is not None
    assert set(content.thumbnails["Metadata_Plate"]) == {"P1"}
    shown = {*content.neighbors["Metadata_Well"], *content.neighbors["neighbor_well"]}
    assert set(content.thumbnails["Metadata_Well"]) == shown


def test_a_reader_is_warned_of_what_cannot_be_shown(content: ReportContent) -> None:
    warnings = " ".join(content.facts["warnings"])
    assert "4 of 4 perturbations have too few replicates or controls for p < 0.05" in warnings
    assert "smallest reachable p 0.200" in warnings
    assert "replicate_retrieval: not done, no perturbation has wells on two plates" in warnings


def test_nothing_of_the_machine_is_in_the_page(content: ReportContent) -> None:
    facts = json.dumps(content.facts)
    assert "/" not in facts.replace(" / ", "")
    assert content.facts["command"] == (
        "cellvim evaluate screen.parquet --label Moa --tasks activity,replicate_retrieval --out report"
    )
