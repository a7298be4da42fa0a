"""What goes into the report: the right wells and pictures, warnings, and nothing of the machine it was made on."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate.page_content import command_of, page_content
from cellvim.evaluate.report import ReportContent
from cellvim.evaluate.stage import EvaluatedTable, collect_metrics, evaluate_table, warn_of_labels
from cellvim.profiles import PROVENANCE_KEY, Profiles

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


def test_pictures_of_all_wells_of_the_table_are_carried_and_no_others(content: ReportContent) -> None:
    assert content.thumbnails is not None
    assert set(content.thumbnails["Metadata_Plate"]) == {"P1"}
    assert set(content.thumbnails["Metadata_Well"]) == set(content.wells["Metadata_Well"])


def test_a_reader_is_warned_of_what_cannot_be_shown(content: ReportContent) -> None:
    assert content.facts["warnings"] == [
        (
            "activity: 4 of 4 perturbations have too few replicates or controls for p < 0.05, "
            "however well they are found (smallest reachable p 0.2)."
        ),
    ]


def test_a_lone_hit_that_could_never_be_significant_is_warned_of(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path: Path
) -> None:
    """p may reach 1/46 with three replicates and eight controls: enough for p, not for q among four."""
    settings, table = evaluated(make_screen(plates=1, replicates=3), write_screen, tmp_path)
    metrics = table.results["activity"].metrics
    assert (metrics["beyond_reach"], metrics["beyond_reach_alone"]) == (0, 4)
    warnings = page_content([table], collect_metrics([table], settings), settings, {}).facts["warnings"]
    assert "4 of 4 perturbations could not reach q < 0.05 if they alone did something" in warnings[0]
    assert "q is then 4 times p" in warnings[0]

    settings, table = evaluated(make_screen(plates=1, replicates=3, controls=30), write_screen, tmp_path)
    assert table.results["activity"].metrics["beyond_reach_alone"] == 0
    assert page_content([table], collect_metrics([table], settings), settings, {}).facts["warnings"] == []


def test_plain_notes_are_facts_and_losses_are_warnings_named_only_where_there_are_several_tables(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path: Path
) -> None:
    screen = make_screen(controls=30)
    screen = replace(screen, metadata=screen.metadata.rename({"Metadata_Perturbation": "Metadata_compound"}))
    screen.features[:, 3] = np.nan
    settings, table = evaluated(screen, write_screen, tmp_path)
    facts = page_content([table], collect_metrics([table], settings), settings, {}).facts
    assert facts["notes"] == {"screen": "perturbations are named by Metadata_compound"}
    assert facts["warnings"] == ["1 feature(s) dropped: empty, NaN or infinite in some row."]

    other = replace(table, name="other")
    several = page_content([table, other], collect_metrics([table, other], settings), settings, {}).facts
    assert [warning.partition(":")[0] for warning in several["warnings"]] == ["screen", "other"]


def test_a_reader_is_warned_of_a_model_that_saw_labels(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path: Path
) -> None:
    card = {"objective": "supervised", "labels_used": "Metadata_Moa", "plates": ["P1"]}
    screen = make_screen(controls=30)
    settings, table = evaluated(screen, write_screen, tmp_path)
    path = settings.tables[0]
    told = {PROVENANCE_KEY: json.dumps({"model": card}).encode()}
    pq.write_table(pq.read_table(path).replace_schema_metadata(told), path)
    table = evaluate_table("screen", path, settings)
    metrics = collect_metrics([table], settings)
    (warning,) = page_content([table], metrics, settings, {}).facts["warnings"]
    assert warning == (
        "the model learned from labels (supervised: Metadata_Moa); 1 of 2 plates here were trained on (P1), "
        "and their scores say little about new ones."
    )
    assert [warning.removesuffix(".")] == table.metrics["warnings"]
    for harmless in ({}, {"model": {**card, "labels_used": None}}, {"model": "a name"}):
        assert warn_of_labels(replace(screen, provenance=harmless)).warnings == ()


def evaluated(
    screen: Profiles, write_screen: WriteScreen, folder: Path
) -> tuple[EvaluateSettings, EvaluatedTable]:
    path = write_screen(screen, folder / "screen.parquet")
    settings = EvaluateSettings(tables=(path,), out=folder / "out", tasks=("activity",), bootstraps=20)
    return settings, evaluate_table("screen", path, settings)


def test_nothing_of_the_machine_is_in_the_page(content: ReportContent) -> None:
    facts = json.dumps(content.facts)
    assert "/" not in facts.replace(" / ", "")
    assert content.facts["command"] == (
        "cellvim evaluate screen.parquet --label Moa --tasks activity,replicate_retrieval --bootstraps 20 "
        "--out report"
    )


def test_the_command_decides_every_setting_or_is_not_printed() -> None:
    """A setting without a flag, or paths that differ by folder only, would make another page."""
    changed = EvaluateSettings(
        tables=(Path("a/x.parquet"), Path("b/y.csv")),
        out=Path("o"),
        platemap=Path("c/map.csv"),
        perturbation="drug",
        control="drug=DMSO 1 %",
        label="Moa",
        label_separator=";",
        relations=Path("d/pairs.csv"),
        dose="uM",
        batch="week",
        normalize="mad",
        average="median",
        consensus="median",
        tasks=("activity", "probe"),
        different_position=True,
        null_size=77,
        bootstraps=33,
        seed=5,
        title='It\'s "mine"',
        left_out=Path("e/left_out.csv"),
    )
    words = shlex.split(command_of(changed))
    words.insert(words.index("--different-position") + 1, "True")
    given = dict(zip(words[4::2], words[5::2], strict=True))
    read = {
        flag.removeprefix("--").replace("-", "_"): value.split(",") if flag == "--tasks" else value
        for flag, value in given.items()
    }
    again = EvaluateSettings.model_validate(read | {"tables": words[2:4]})
    elsewhere = {
        "tables": (Path("x.parquet"), Path("y.csv")),
        "platemap": Path("map.csv"),
        "relations": Path("pairs.csv"),
        "left_out": Path("left_out.csv"),
        "out": Path("report"),
    }
    assert again == changed.model_copy(update=elsewhere)
    decided = {*read, "tables", "overwrite", "is_synthetic"}
    assert decided == set(EvaluateSettings.model_fields)

    for unprintable in (
        {"is_synthetic": True},
        {"tables": (Path("a/x.parquet"), Path("b/x.parquet"))},
        {"platemap": Path("c/y.csv")},
    ):
        assert command_of(changed.model_copy(update=unprintable)) == ""
