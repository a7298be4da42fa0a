"""The page as text: what it says, what it lets run, and that it says the same twice."""

import base64
import copy
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.evaluate.report import ReportContent, write_report
from cellvim.evaluate.report.measures import measures
from cellvim.evaluate.report.montage import Pictures, montage
from cellvim.evaluate.report.payload import payload, script_json
from cellvim.evaluate.report.plates import place_of, plate_shape
from cellvim.evaluate.report.summary import headline, leaders, silent, tiles
from cellvim.evaluate.report.wording import counted, estimate_of, listed, probability, score


@pytest.fixture(scope="module")
def html(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(content, path)
    return path.read_text(encoding="utf-8")


def test_the_same_content_gives_the_same_bytes(content: ReportContent, html: str, tmp_path: Path) -> None:
    write_report(content, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_the_policy_lets_exactly_the_page_s_own_scripts_and_styles_run(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    directives = dict(part.split(" ", 1) for part in policy[1].replace("&#39;", "'").split("; "))
    assert directives.keys() == {
        "default-src",
        "script-src",
        "style-src",
        "img-src",
        "base-uri",
        "form-action",
    }
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"
    assert directives["img-src"] == "data:"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        hashes = {
            f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"
            for block in blocks
        }
        assert set(directives[kind].split()) == hashes


def test_the_summary_says_how_many_and_how_sure(content: ReportContent) -> None:
    significant = (
        content.perturbations.filter(pl.col("table") == "trained").filter(pl.col("activity_q") < 0.05).height
    )
    assert headline(content) == (
        f"{significant} of 9 perturbations differ from their plate's negative controls (q < 0.05); "
        "mean mAP 0.83 (95 % interval 0.77 to 0.89)."
    )
    first = content.perturbations.filter(pl.col("table") == "trained").sort("activity_map", descending=True)
    found = first.filter(pl.col("activity_q") < 0.05)["Metadata_Perturbation"].to_list()
    assert [leader.name for leader in leaders(content)] == found[:6]
    assert all(
        name in silent(content)
        for name in first.filter(pl.col("activity_q") >= 0.05)["Metadata_Perturbation"]
    )
    assert [tile.label for tile in tiles(content)] == [
        "Activity", "Distinctiveness", "Replicate retrieval", "Probe, plate held out",
    ]  # fmt: skip


def test_where_single_perturbations_cannot_be_shown_the_top_of_the_page_says_what_the_doses_show(
    content: ReportContent,
) -> None:
    found = {"compounds_tested": 9, "fraction_significant": 4 / 9, "mean_z_prime": 0.57, "leading": [
        {"compound": "LY294002", "trend": 0.95, "q": 1e-4, "ec50": 4.417, "unit": "uM"},
        {"compound": "taxol", "trend": 0.9, "q": 1e-4, "ec50": None, "unit": None},
    ]}  # fmt: skip
    tables = [{"name": "trained", "tasks": content.metrics["tasks"] | {"dose": found}}]
    names = ["taxol@3 uM", "LY294002@20 uM", "LY294002@5 uM"]
    wells = pl.DataFrame(
        {"table": ["trained"] * 3, "Metadata_Perturbation": names, "compound": ["taxol", "LY294002", "LY294002"],
         "dose": [3.0, 20.0, 5.0]}
    )  # fmt: skip
    weak = content.perturbations.with_columns(
        pl.lit(0.2).alias("activity_q"), pl.lit(0.02).alias("activity_smallest_p")
    )
    shown = dataclasses.replace(content, metrics={"tables": tables}, tables_on_disk={"dose_wells": wells})
    assert "4 of 9 compounds rise with the dose (q < 0.05): LY294002 (EC50 4.42 uM), taxol" in headline(shown)
    assert headline(shown).endswith("Z' of the controls 0.57.")
    assert not any(leader.is_of_doses for leader in leaders(shown))

    # Nine p of 0.02 could be q of 0.02; one of them among p that cannot be small could not.
    weak = weak.with_columns(
        pl.when(pl.int_range(pl.len()) % 9 > 0)
        .then(0.5)
        .otherwise("activity_smallest_p")
        .alias("activity_smallest_p")
    )
    weak = dataclasses.replace(shown, perturbations=weak)
    assert headline(weak).startswith("None of 9 perturbations could be shown to differ from their plate's")
    assert silent(weak) == ""
    assert [(leader.name, leader.title) for leader in leaders(weak)] == [
        ("LY294002@20 uM", "LY294002"), ("taxol@3 uM", "taxol"),
    ]  # fmt: skip


def test_a_table_without_any_task_still_makes_a_page(content: ReportContent, tmp_path: Path) -> None:
    bare = dataclasses.replace(
        content,
        perturbations=content.perturbations.select(
            "table", "Metadata_Perturbation", "replicates", "plates"
        ).clear(),
        neighbors=content.neighbors.clear(),
        thumbnails=None,
        wells=content.wells.with_columns(
            pl.lit(None, pl.Float64).alias(name) for name in ("umap_1", "umap_2", "activity_ap")
        ),
        metrics={"tables": [{"name": "only", "tasks": {}}], "tasks": {}},
        facts={},
        is_synthetic=False,
    )
    write_report(bare, tmp_path / "bare.html")
    text = (tmp_path / "bare.html").read_text(encoding="utf-8")
    assert "143 wells on 3 plates; no retrieval task was run." in text
    assert "synthetic" not in text.split("<script")[0].lower()
    assert 'data-map="umap"' not in text


def test_nulls_nan_and_wells_without_a_place_are_no_obstacle(content: ReportContent, tmp_path: Path) -> None:
    odd = dataclasses.replace(
        content,
        wells=content.wells.with_columns(
            pl.lit(float("nan")).alias("pca_1"),
            pl.lit("nowhere").alias("Metadata_Well"),
            pl.lit(None, pl.String).alias("Metadata_Perturbation"),
        ),
        perturbations=content.perturbations.with_columns(pl.lit(None, pl.Float64).alias("activity_q")),
    )
    write_report(odd, tmp_path / "odd.html")
    data = payload(odd, measures(odd))
    assert data["plates"][0]["rows"] == 0
    assert "NaN" not in script_json(data)


def test_every_split_and_every_reason_is_named(html: str) -> None:
    for name in ("plate_held_out", "random_well (leaky)", "perturbation_held_out"):
        assert f"<code>{name}</code>" in html
    assert "not done: fewer than two labels are shared" in html


def test_every_split_says_what_is_held_out_and_what_is_shared(html: str) -> None:
    assert "Whole plates are held out; the same perturbations are on both sides." in html
    assert "Whole perturbations are held out, with all doses of a compound" in html
    assert "Single wells are held out" in html


def test_wells_whose_label_cannot_be_learned_are_counted(content: ReportContent, tmp_path: Path) -> None:
    metrics = copy.deepcopy(content.metrics)
    metrics["tables"][0]["tasks"]["probe"]["plate_held_out"]["unlearnable_wells"] = 12
    write_report(dataclasses.replace(content, metrics=metrics), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("12 wells left out: the label is never on both sides") == 1


def test_p_is_defined_as_it_is_computed(html: str) -> None:
    assert "p is (1 + the number of random rank lists that do better) / (1 + the number of random" in html


def test_without_a_command_the_page_points_to_the_record(content: ReportContent, tmp_path: Path) -> None:
    write_report(dataclasses.replace(content, facts={"command": ""}), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "is in <code>run.json</code> beside this page" in text
    assert "Install cellvim" not in text


def test_run_facts_hold_the_command_and_the_hashes(html: str) -> None:
    assert "cellvim evaluate trained.parquet untrained.parquet --out evaluation" in html
    assert "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" in html


def test_pictures_are_stored_once_and_stop_at_the_budget() -> None:
    pictures = Pictures({("p", f"A0{n}"): bytes(300) for n in range(1, 5)}, room_bytes=1000)
    places = [pictures.place(("p", f"A0{n}")) for n in (1, 1, 2, 3, 9)]
    assert places == [0, 0, 1, None, None]
    assert (len(pictures.encoded), pictures.left_out) == (2, 1)


def test_the_montage_puts_the_most_active_first_and_controls_last(content: ReportContent) -> None:
    names = [query.well.perturbation for query in montage(content).queries]
    first = content.perturbations.filter(pl.col("table") == "trained")
    best = first.sort("activity_map", descending=True)["Metadata_Perturbation"][0]
    assert (names[0], names[-1]) == (best, "DMSO")
    assert all(len(query.neighbors) == 5 for query in montage(content).queries)


def test_the_montage_says_how_many_of_how_many(content: ReportContent, tmp_path: Path) -> None:
    assert montage(content).extent == "one well of each perturbation"
    ranked = montage(content).queries
    shown = [(query.well.plate, query.well.well) for query in (*ranked[:4], ranked[-1])]
    keys = pl.DataFrame(shown, schema=["Metadata_Plate", "Metadata_Well"], orient="row")
    few = dataclasses.replace(content, neighbors=content.neighbors.join(keys, on=keys.columns, how="semi"))
    write_report(few, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the best well of each of the 4 strongest of 9 perturbations" in text

    unranked = dataclasses.replace(
        few, perturbations=few.perturbations.drop(pl.selectors.matches("^activity_"))
    )
    assert montage(unranked).extent == "one well of each of 4 of 9 perturbations"


PAIRS = (
    ("ink", "page"), ("ink", "panel"), ("quiet", "page"), ("quiet", "panel"), ("accent", "page"),
    ("accent", "panel"), ("ink", "warn-panel"), ("ink", "mark"),
)  # fmt: skip


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_what_it_is_on(theme: int, text: str, ground: str, html: str) -> None:
    themes = re.findall(r":root \{(.*?)\}", html, flags=re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", themes[theme]))
    light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("text", ["</script><script>", "<!--", "&lt;", "\u2028\u2029", "]]>"])
def test_script_json_is_inert_and_reads_back(text: str) -> None:
    written = script_json({text: text})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {text: text}


@pytest.mark.parametrize(
    ("wells", "shape"),
    [(["A01", "C04"], (3, 4)), (["H12"], (8, 12)), (["B13"], (16, 24)), (["AF48"], (32, 48)), (["?"], None)],
)
def test_a_plate_is_as_large_as_the_smallest_format_that_holds_its_wells(
    wells: list[str], shape: tuple[int, int] | None
) -> None:
    assert plate_shape(pl.Series(wells)) == shape


def test_wells_that_no_plate_has_have_no_place() -> None:
    assert place_of("B03") == (2, 3)
    assert place_of(None) is place_of("ZZ9") is place_of("<b>") is None


def test_numbers_read_as_people_write_them() -> None:
    assert [probability(value) for value in (0.0499, 0.00012, None)] == ["0.050", "1.2e-4", "\N{EN DASH}"]
    assert [score(value) for value in (0.834, None)] == ["0.83", "\N{EN DASH}"]
    assert [counted(number, "well") for number in (1, 3840)] == ["1 well", "3,840 wells"]
    assert [listed(list("abcde")[:most]) for most in (1, 2, 3, 5)] == [
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and 2 more",
    ]
    assert estimate_of(float("nan")) is estimate_of({"low": 1}) is estimate_of("0.5") is None
