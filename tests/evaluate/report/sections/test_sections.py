"""What each section says of a report: the numbers of its tables, nothing else."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from cellvim.evaluate.precision import expected_average_precision
from cellvim.evaluate.report import ReportContent, page
from cellvim.evaluate.report.focus import focus
from cellvim.evaluate.report.payload import script_json
from cellvim.evaluate.report.section import shown_sections
from cellvim.evaluate.report.sections import SECTIONS
from cellvim.evaluate.report.sections.tables import without_tables

BY_KEY = {section.key: section for section in SECTIONS}


def data_of(key: str, content: ReportContent) -> dict[str, Any]:
    data = BY_KEY[key].data(content)
    assert data is not None
    return data


def first(content: ReportContent, stem: str) -> pl.DataFrame:
    return content.tables_on_disk[stem].filter(pl.col("table") == content.tables[0])


def column(table: dict[str, Any], label: str) -> list[Any]:
    place = [each["label"] for each in table["columns"]].index(label)
    return [row[place] for row in table["rows"]]


def test_every_section_is_there_and_fits_into_json(full_content: ReportContent) -> None:
    shown = shown_sections(SECTIONS, full_content)
    assert [each.section.key for each in shown] == [each.key for each in SECTIONS]
    for each in shown:
        script_json(each.data)
        assert str(each.section.key).isidentifier()


def test_a_report_without_tables_has_no_sections(content: ReportContent) -> None:
    assert shown_sections(SECTIONS, content) == ()


@pytest.mark.parametrize(
    "stem", ["percent_replicating", "consistency", "recall", "dose", "dose_wells", "probe_confusion", "batch"]
)
def test_an_empty_table_is_no_obstacle(full_content: ReportContent, stem: str) -> None:
    tables = {
        name: table.clear() if name == stem else table for name, table in full_content.tables_on_disk.items()
    }
    for each in shown_sections(SECTIONS, dataclasses.replace(full_content, tables_on_disk=tables)):
        script_json(each.data)


def test_specifications_hold_no_word_of_the_data() -> None:
    text = json.dumps([section.specifications() for section in SECTIONS])
    for name in ("taxol", "tubulin", "BR00000", "trained", "CORUM", "plate_held_out"):
        assert name not in text
    kinds = [kind for section in SECTIONS for kind in section.specifications()]
    assert len(kinds) == len(set(kinds))


def test_replicates_show_the_first_table_s_histogram_and_perturbations(full_content: ReportContent) -> None:
    data, rows = data_of("replicates", full_content), first(full_content, "percent_replicating")
    bins = first(full_content, "percent_replicating_histogram")
    assert data["replicating"] == rows["is_replicating"].sum()
    assert data["perturbations"] == rows.height == len(data["table"]["rows"])
    assert sum(each["count"] for each in data["bins"]) == bins["count"].sum()
    for kind in ("null", "replicates"):
        assert sum(each["share"] for each in data["bins"] if each["kind"] == kind) == pytest.approx(
            1, abs=1e-3
        )
    assert column(data["table"], "Median correlation") == sorted(rows["similarity"].to_list(), reverse=True)
    assert (
        data["fraction"]["value"]
        == full_content.metrics["tasks"]["percent_replicating"]["fraction_replicating"]["value"]
    )
    assert "67 % of 9 perturbations" in data["alternative"]


def test_labels_have_their_members_best_first_and_chance_by_its_definition(
    full_content: ReportContent,
) -> None:
    data, rows = data_of("label_groups", full_content), first(full_content, "consistency")
    members = first(full_content, "consistency_perturbations")
    assert {label["label"]: label["value"] for label in data["labels"]} == pytest.approx(
        dict(zip(rows["label"], rows["map"], strict=True)), rel=1e-3
    )
    assert data["significant"] == rows.filter(pl.col("q") < 0.05).height
    for label in data["labels"]:
        own = members.filter(pl.col("label") == label["label"]).sort("ap", descending=True)
        assert [member["name"] for member in label["members"]] == own["Metadata_Perturbation"].to_list()
        chance = expected_average_precision(own["positives"].to_numpy(), own["total"].to_numpy()).mean()
        assert label["chance"] == pytest.approx(chance, rel=1e-3)


def test_nearest_neighbours_stand_beside_chance_and_say_why_they_were_not_done(
    full_content: ReportContent,
) -> None:
    nearest = data_of("label_groups", full_content)["nearest"]
    assert [(row["task"], row["table"]) for row in nearest] == [
        (task, table) for task in ("nsc", "nscb") for table in full_content.tables
    ]
    assert nearest[0]["accuracy"]["value"] == pytest.approx(0.6)
    assert (nearest[0]["chance"]["value"], nearest[0]["shuffled"]["value"]) == (0.2, 0.18)
    assert nearest[-1]["reason"] == "all labelled wells are of one batch"


def test_wrong_neighbours_come_first_and_those_without_an_answer_last(full_content: ReportContent) -> None:
    right = column(data_of("label_groups", full_content)["wrong"], "Right")
    assert right == sorted(right, key=lambda value: (value is None, value or False))
    assert right[-1] is None


def test_relationships_show_recall_per_source_and_every_pair(full_content: ReportContent) -> None:
    data, rows = data_of("relationships", full_content), first(full_content, "recall")
    assert [source["label"] for source in data["sources"]] == ["all pairs", "CORUM", "Reactome"]
    assert data["recall"]["value"] == 0.66
    assert len(data["table"]["rows"]) == rows.height
    assert sum(column(data["table"], "Recalled")) == rows["is_recalled"].sum()
    assert not data["is_cut"]


def test_of_many_pairs_the_most_and_the_least_similar_are_kept(full_content: ReportContent) -> None:
    rows = first(full_content, "recall")
    many = pl.concat([rows] * 60).with_columns(similarity=pl.int_range(pl.len()) / 2000)
    tables = full_content.tables_on_disk | {"recall": many}
    data = data_of("relationships", dataclasses.replace(full_content, tables_on_disk=tables))
    shown = column(data["table"], "Cosine")
    assert data["is_cut"]
    assert len(shown) == 500
    assert shown[0] == pytest.approx(many["similarity"].max(), rel=1e-3)
    assert shown[-1] == 0


def test_doses_show_the_clearest_first_with_wells_medians_and_the_controls_band(
    full_content: ReportContent,
) -> None:
    data, wells = data_of("dose_overview", full_content), first(full_content, "dose_wells")
    assert [panel["compound"] for panel in data["panels"]] == ["taxol", "nocodazole", "aspirin"]
    for panel in data["panels"]:
        own = wells.filter(pl.col("compound") == panel["compound"])
        assert len(panel["wells"]) == own.height
        medians = dict(own.group_by("dose").agg(pl.col("projection").median()).iter_rows())
        assert {each["dose"]: each["projection"] for each in panel["medians"]} == pytest.approx(
            medians, rel=1e-3
        )
    controls = wells.filter(pl.col("Metadata_ControlType") == "negcon")["projection"]
    assert data["band"]["low"] == pytest.approx(controls.quantile(0.05, "linear"), rel=1e-3)
    assert data["limits"][0] < min(wells["projection"].min(), 0)
    assert data["limits"][1] > wells["projection"].max()
    assert (data["significant"], data["active"]) == (2, 2)


def test_columns_that_a_dose_table_may_lack_are_no_obstacle(full_content: ReportContent) -> None:
    bare = full_content.tables_on_disk["dose"].drop("lowest_active_dose", "ec50", "q")
    tables = full_content.tables_on_disk | {"dose": bare}
    data = data_of("dose_overview", dataclasses.replace(full_content, tables_on_disk=tables))
    assert (data["compounds"], data["active"], data["significant"]) == (3, 0, 0)
    assert column(data["table"], "Lowest active dose") == [None] * 3


def test_the_panel_of_a_perturbation_and_the_section_of_doses_show_one_band(
    full_content: ReportContent,
) -> None:
    dose = focus(full_content, [])["dose"]
    assert dose["band"] == data_of("dose_overview", full_content)["band"]


def test_long_tables_are_cut_and_say_how_many_rows_there_are(
    full_content: ReportContent, render: Callable[[ReportContent], str]
) -> None:
    rows = first(full_content, "percent_replicating")
    many = pl.concat([rows] * 300)
    tables = full_content.tables_on_disk | {"percent_replicating": many}
    content = dataclasses.replace(full_content, tables_on_disk=tables)
    listed = data_of("replicates", content)["table"]
    assert (len(listed["rows"]), listed["row_count"]) == (1000, many.height)
    assert f"replicates ({many.height:,} rows)</summary>" in render(content)
    assert "The first 1,000; all are in the Parquet files" in render(content)


def test_the_script_s_data_hold_no_table_for_the_page_lays_them_out(full_content: ReportContent) -> None:
    for each in shown_sections(SECTIONS, full_content):
        text = script_json(without_tables(each.data))
        assert '"row_count"' not in text
        assert '"row_count"' in script_json(each.data) or each.section.key in ("not_done", "provenance")


def test_pictures_get_what_sections_leave(
    full_content: ReportContent,
    render: Callable[[ReportContent], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page, "PICTURE_BYTES", 0)
    bare = len(render(full_content).encode())
    rows = first(full_content, "percent_replicating")
    tables = full_content.tables_on_disk | {"percent_replicating": pl.concat([rows] * 100)}
    long = dataclasses.replace(full_content, tables_on_disk=tables)
    monkeypatch.undo()
    monkeypatch.setattr(page, "MOST_BYTES", bare + 1_000_000)
    sizes = [len(render(content).encode()) for content in (full_content, long)]
    assert sizes[0] > bare + 500_000
    assert sizes[1] < sizes[0] + 50_000


def test_a_compound_is_followed_by_its_lowest_active_dose_else_by_its_highest(
    full_content: ReportContent,
) -> None:
    data, wells = data_of("dose_overview", full_content), first(full_content, "dose_wells")
    for panel, dose in zip(data["panels"], (0.1, 10.0, 10.0), strict=True):
        at = wells.filter((pl.col("compound") == panel["compound"]) & (pl.col("dose") == dose))
        assert panel["name"] == at["Metadata_Perturbation"][0]


def test_doses_of_single_wells_are_not_called_inactive(full_content: ReportContent) -> None:
    tables = [
        entry | {"tasks": entry["tasks"] | {"dose": entry["tasks"]["dose"] | {"doses_tested": 0}}}
        for entry in full_content.metrics["tables"]
    ]
    content = dataclasses.replace(full_content, metrics=full_content.metrics | {"tables": tables})
    assert data_of("dose_overview", content)["panels"][2]["finding"] == "single doses not tested; EC50 1.5 uM"
    assert (
        data_of("dose_overview", full_content)["panels"][2]["finding"]
        == "no single dose shown active; EC50 1.5 uM"
    )


def test_labels_that_cannot_become_significant_are_counted(full_content: ReportContent) -> None:
    coarse = first(full_content, "consistency").with_columns(
        smallest_p=pl.Series([0.2, 0.01, 0.001, 0.001, 0.001])
    )
    tables = full_content.tables_on_disk | {"consistency": coarse}
    assert (
        data_of("label_groups", dataclasses.replace(full_content, tables_on_disk=tables))["beyond_reach"] == 2
    )
    assert data_of("label_groups", full_content)["beyond_reach"] == 0


def test_plates_are_ranked_by_z_prime_and_those_without_are_only_in_the_table(
    full_content: ReportContent,
) -> None:
    data = data_of("dose_overview", full_content)
    assert [plate["value"] for plate in data["plates"]] == [0.42, 0.71]
    assert column(data["plate_table"], "Z'") == [0.42, 0.71, None]
    assert "1 of 2 reach 0.5" in data["plate_alternative"]


def test_confusion_names_the_commonest_mistake_and_keeps_every_cell(full_content: ReportContent) -> None:
    rows = first(full_content, "probe_confusion")
    for split in data_of("confusion", full_content)["splits"]:
        own = rows.filter(pl.col("split") == split["split"])
        assert len(split["cells"]) == own.height
        worst = own.filter(pl.col("label") != pl.col("predicted"))["share"].max()
        assert f"{100 * worst:.0f} %" in split["finding"]


def test_too_many_labels_become_a_table_of_mistakes(full_content: ReportContent) -> None:
    rows = first(full_content, "probe_confusion").head(1)
    pairs = [
        rows.with_columns(label=pl.lit(f"label {place}"), predicted=pl.lit(f"label {place + (place % 2)}"), share=place / 100)
        for place in range(60)
    ]  # fmt: skip
    tables = full_content.tables_on_disk | {"probe_confusion": pl.concat(pairs)}
    split = data_of("confusion", dataclasses.replace(full_content, tables_on_disk=tables))["splits"][0]
    assert split["cells"] == []
    assert column(split["table"], "True") == [f"label {place}" for place in range(59, 0, -2)]


def test_batch_says_which_of_the_two_is_stronger(full_content: ReportContent) -> None:
    data = data_of("batch_or_biology", full_content)
    assert [row["value"] for row in data["rows"]] == first(full_content, "batch")["value"].to_list()
    assert data["findings"] == [
        "By nearest neighbour, Plate (0.61, chance 0.33) shows less than biology (0.55, chance 0.10), each held against its chance.",
        "By silhouette, Plate (-0.02, chance 0.00) shows less than biology (0.12, chance 0.00), each held against its chance.",
        "By variance explained, Plate (0.20, chance 0.02) shows less than biology (0.50, chance 0.06), each held against its chance.",
    ]


def test_biology_that_explains_no_more_than_chance_is_not_called_the_stronger(
    full_content: ReportContent,
) -> None:
    """100 perturbations of 4 wells explain a quarter of the variance of pure noise, 4 plates hardly any."""
    rows = full_content.tables_on_disk["batch"]
    noise = (pl.col("measure") == "variance explained") & (pl.col("batch_column") == "biology")
    changed = rows.with_columns(
        pl.when(noise).then(0.25).otherwise("value").alias("value"),
        pl.when(noise).then(0.25).otherwise("chance").alias("chance"),
    )
    tables = full_content.tables_on_disk | {"batch": changed}
    findings = data_of("batch_or_biology", dataclasses.replace(full_content, tables_on_disk=tables))[
        "findings"
    ]
    assert findings[-1].startswith("By variance explained, Plate (0.20, chance 0.02) shows more than biology")


def test_only_differences_whose_interval_leaves_out_0_are_said_in_words(full_content: ReportContent) -> None:
    data = data_of("paired_comparison", full_content)
    assert data["differences"] == len(data["table"]["rows"]) == len(full_content.metrics["comparison"])
    assert {row["metric"] for row in data["rows"]} == {"mean normalized map"}
    assert [row["is_certain"] for row in data["rows"]] == [True, True, False, False]
    assert data["findings"] == [
        "Activity: trained is better than untrained by 0.10 (95 % interval 0.08 to 0.12).",
        "Consistency: trained is worse than untrained by 0.15 (95 % interval 0.13 to 0.17).",
    ]


def test_a_choice_over_blocks_is_a_line_with_the_cross_fitted_score_beside_the_naive_one(
    full_content: ReportContent,
) -> None:
    data = data_of("layer_choice", full_content)
    assert [(row["block"], row["value"]) for row in data["rows"]] == [(0, 0.6), (4, 0.5), (8, 0.4)]
    assert [row["is_chosen"] for row in data["rows"]] == [True, False, False]
    assert data["has_blocks"]
    assert (
        data["optimism"]
        == "Its score on all perturbations, 0.60, is 0.050 too high, for luck had a say in it."
    )
    assert (
        "trained is best (0.60); tables so chosen score 0.55 (95 % interval 0.50 to 0.60)"
        in data["alternative"]
    )


@pytest.mark.parametrize("layers", [None, [3, 7]])
def test_tables_that_are_not_single_blocks_are_rows(
    full_content: ReportContent, layers: list[int] | None
) -> None:
    choice = full_content.metrics["choice"]
    tables = [entry | {"layers": layers} for entry in choice["tables"]]
    metrics = full_content.metrics | {"choice": choice | {"tables": tables}}
    data = data_of("layer_choice", dataclasses.replace(full_content, metrics=metrics))
    assert not data["has_blocks"]
    assert [row["label"] for row in data["rows"]] == list(full_content.tables)


@pytest.mark.parametrize("choice", [None, {"reason": "too few"}])
def test_no_choice_is_no_section(full_content: ReportContent, choice: Any) -> None:
    metrics = full_content.metrics | {"choice": choice}
    assert BY_KEY["layer_choice"].data(dataclasses.replace(full_content, metrics=metrics)) is None


def test_what_was_not_done_gives_its_reason(full_content: ReportContent) -> None:
    reason = "all labelled wells are of one batch"
    assert data_of("not_done", full_content)["tasks"] == [{"task": "NSCB", "reason": reason}]


def test_what_only_some_tables_could_not_answer_names_them(full_content: ReportContent) -> None:
    first_table, *others = full_content.metrics["tables"]
    judged = first_table | {"tasks": first_table["tasks"] | {"nscb": {"accuracy": 0.5}}}
    content = dataclasses.replace(full_content, metrics=full_content.metrics | {"tables": [judged, *others]})
    (entry,) = data_of("not_done", content)["tasks"]
    assert entry["task"] == f"NSCB ({', '.join(full_content.tables[1:])})".replace(", ", " and ", 1)


def test_sections_do_not_depend_on_the_order_of_rows(full_content: ReportContent) -> None:
    tables = {
        stem: table.reverse()
        for stem, table in full_content.tables_on_disk.items()
        if stem not in ("batch", "probe_confusion")
    }
    reversed_content = dataclasses.replace(
        full_content, tables_on_disk=dict(full_content.tables_on_disk) | tables
    )
    for key in ("replicates", "label_groups", "relationships"):
        assert data_of(key, reversed_content) == data_of(key, full_content)


def test_a_page_of_sections_is_the_same_twice(
    full_content: ReportContent, render: Callable[[ReportContent], str]
) -> None:
    assert render(full_content) == render(full_content)
