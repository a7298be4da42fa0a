"""Names come from strangers: thirty that try to run code or reach the network, everywhere a name can stand."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Page

from cellvim.evaluate.report import ReportContent, write_report
from pipelines.torture.payloads import PAYLOADS


def hostile(content: ReportContent) -> ReportContent:
    """Put the payloads wherever a name of a stranger can stand, columns and keys included."""
    well = pl.int_range(pl.len())
    payload = pl.lit(pl.Series(PAYLOADS))
    wells = content.wells.with_columns(
        payload.gather(well % len(PAYLOADS)).alias("Metadata_Perturbation"),
        pl.concat_str(payload.first(), "Metadata_Plate").alias("Metadata_Plate"),
        payload.gather(well % 7).alias(f"Metadata_{PAYLOADS[6]}"),
        payload.gather(well % 5).alias("Metadata_a.b[0]['c']"),
        pl.when(well % 9 == 0)
        .then(payload.get(10))
        .otherwise("Metadata_ControlType")
        .alias("Metadata_ControlType"),
    )
    scores = content.perturbations.filter(pl.col("table") == "trained")
    repeated = (
        pl.concat([scores] * 4)
        .head(len(PAYLOADS))
        .with_columns(pl.Series("Metadata_Perturbation", PAYLOADS), pl.lit(PAYLOADS[1]).alias("table"))
    )
    first = PAYLOADS[0]
    moved = {
        "Metadata_Plate": first + pl.col("Metadata_Plate"),
        "neighbor_plate": first + pl.col("neighbor_plate"),
    }
    tasks = content.metrics["tasks"] | {
        "probe": dict.fromkeys(PAYLOADS, content.metrics["tasks"]["probe"]["plate_held_out"])
    }
    tables = [{"name": name, "tasks": tasks} for name in PAYLOADS[1:3]]
    return dataclasses.replace(
        content,
        title=PAYLOADS[1],
        wells=wells,
        perturbations=pl.concat([repeated, repeated.with_columns(pl.lit(PAYLOADS[2]).alias("table"))]),
        neighbors=content.neighbors.with_columns(**moved),
        thumbnails=content.thumbnails.with_columns(first + pl.col("Metadata_Plate")),
        metrics={"tables": tables, "tasks": tasks},
        facts={
            "command": " ".join(PAYLOADS),
            "warnings": list(PAYLOADS),
            "inputs": {name: name for name in PAYLOADS},
        }
        | {name: {name: [name, {name: name}]} for name in PAYLOADS},
    )


def test_there_are_thirty() -> None:
    assert len(set(PAYLOADS)) == 30


def test_no_name_runs_and_none_reaches_the_network(
    content: ReportContent, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    write_report(hostile(content), tmp_path / "report.html")
    page = open_page(tmp_path / "report.html")
    use_everything(page)
    assert page.evaluate("window.ran ?? 0") == 0
    assert (
        page.locator(
            "iframe, main script, header script, [onload], [onerror], [onfocus], [onmouseover]"
        ).count()
        == 0
    )
    shown = page.locator("#perturbation-table button.choose:visible").all_text_contents()
    assert sorted(shown) == sorted(PAYLOADS)


@pytest.mark.parametrize("where", ["#legend button", "#montage h3"])
def test_names_are_shown_as_they_are(
    where: str, content: ReportContent, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    write_report(hostile(content), tmp_path / "report.html")
    page = open_page(tmp_path / "report.html")
    assert set(page.locator(where).all_text_contents()) <= set(PAYLOADS)


def test_no_name_runs_in_the_panel_the_finder_or_the_address(
    content: ReportContent, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    similar = {
        "Metadata_Perturbation": PAYLOADS,
        "rank": [1] * 30,
        "neighbor": PAYLOADS[::-1],
        "similarity": [0.5] * 30,
    }
    telling = pl.concat_str(pl.lit(PAYLOADS[6]), "Metadata_Perturbation")
    full = hostile(content)
    full = dataclasses.replace(
        full, wells=full.wells.with_columns(telling.alias("Metadata_target")), similar=pl.DataFrame(similar)
    )
    write_report(full, tmp_path / "report.html")
    page = open_page(tmp_path / "report.html")
    for name in PAYLOADS:
        page.evaluate("name => { location.hash = 'focus=' + encodeURIComponent(name) }", name)
        page.wait_for_function(
            "name => document.getElementById('focus-title').textContent === name", arg=name
        )
    for name in PAYLOADS[::6]:
        page.evaluate("name => { location.hash = 'focus=' + name }", name)
        page.locator("#finder").fill(name[:12])
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.locator("#finder").fill("<")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#focus-title").inner_text() in PAYLOADS
    assert page.locator("#focus .similar button").first.inner_text() in PAYLOADS
    assert page.evaluate("window.ran ?? 0") == 0
    assert page.locator("#focus script, #focus iframe, #focus [onerror], #finder-list img").count() == 0


def use_everything(page: Page) -> None:
    """Go through every select, filter, highlight and tooltip that shows a name."""
    for select in page.locator("select").all():
        for number in range(min(select.locator("option").count(), 8)):
            select.select_option(index=number)
    page.locator("#table-choice").select_option(index=0)
    page.locator("#colour-choice").select_option("Metadata_Perturbation")
    for button in page.locator("#legend button").all()[:6]:
        button.click()
    page.keyboard.press("Escape")
    for chart in ('[data-scores="activity"]', '[data-map="pca"]'):
        for mark in page.locator(f"{chart} .mark-symbol > path").all()[:6]:
            mark.hover(force=True)
    for header in page.locator("#perturbation-table thead button:visible").all():
        header.click()
