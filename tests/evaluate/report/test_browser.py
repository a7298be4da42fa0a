"""The page in a real Chromium: nothing leaves it, nothing but its own script runs, and it answers to the keyboard."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Page

from cellvim.evaluate.report import ReportContent, write_report
from cellvim.evaluate.report.plates import PLATE_FORMATS

Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def report(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(content, path)
    return path


@pytest.fixture
def page(open_page: Opener, report: Path) -> Page:
    return open_page(report)


def names_shown(page: Page) -> list[str]:
    return page.locator("#perturbation-table tbody tr:visible button.choose").all_inner_texts()


def test_as_many_marks_and_rows_as_data(page: Page, content: ReportContent) -> None:
    first = content.perturbations.filter(pl.col("table") == "trained")
    for task in content.tasks:
        assert page.locator(f'[data-scores="{task}"] .mark-symbol > path').count() == first.height
    for kind in ("pca", "umap"):
        assert page.locator(f'[data-map="{kind}"] .mark-symbol > path').count() == content.wells.height
    assert len(names_shown(page)) == first.height
    sizes = content.wells.group_by("Metadata_Plate").len().sort("Metadata_Plate")["len"].to_list()
    rows, columns = PLATE_FORMATS[3]
    for number, wells in enumerate(sizes):
        assert page.locator(f'[data-plate="{number}"] .mark-rect > path').count() == rows * columns + wells


def test_a_chart_says_how_many_p_values_cannot_become_small(
    open_page: Opener, content: ReportContent, tmp_path: Path
) -> None:
    floors = [0.2] * 3 + [0.001] * 24
    perturbations = content.perturbations.with_columns(pl.Series("activity_smallest_p", floors))
    write_report(replace(content, perturbations=perturbations), tmp_path / "report.html")
    note = open_page(tmp_path / "report.html").locator('.score-note[data-task="activity"]').inner_text()
    assert "Smallest reachable p: 0.001 to 0.2. 3 of 9 cannot reach p < 0.05." in note
    other = (
        open_page(tmp_path / "report.html").locator('.score-note[data-task="distinctiveness"]').inner_text()
    )
    assert other.endswith("Smallest reachable p: 0.0001.")


def test_columns_sort_by_keyboard_and_say_so(page: Page) -> None:
    header = page.locator("#perturbation-table thead tr:last-child th").first
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert names_shown(page) == sorted(names_shown(page), key=str.lower)
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "descending"
    assert names_shown(page) == sorted(names_shown(page), key=str.lower, reverse=True)
    assert page.locator("#perturbation-table [aria-sort]").count() == 1


def test_filters_and_the_choice_of_table_change_what_is_shown(page: Page, content: ReportContent) -> None:
    page.get_by_label("Filter").fill("TAXOL")
    assert names_shown(page) == ["taxol@3 uM"]
    assert page.locator("#row-count").inner_text() == "1 of 9 shown"
    page.get_by_label("Filter").fill("")
    page.locator("#significant-only").check()
    page.locator("#table-choice").select_option("untrained")
    tasks = [f"{task}_q" for task in content.tasks]
    untrained = content.perturbations.filter(pl.col("table") == "untrained")
    found = untrained.filter(pl.any_horizontal(pl.col(tasks) < 0.05))["Metadata_Perturbation"].to_list()
    assert sorted(names_shown(page)) == sorted(found)


def test_the_measure_recolours_the_plates(page: Page) -> None:
    fills = """() => [...document.querySelectorAll('[data-plate="0"] .mark-rect > path')].map(
        path => path.getAttribute("fill"))"""
    before = page.evaluate(fills)
    page.locator("#measure-choice").select_option("pca_1")
    page.wait_for_function(f"before => JSON.stringify(({fills})()) !== JSON.stringify(before)", arg=before)
    assert page.locator("#scale-low").inner_text().startswith("-")


def test_a_name_pressed_by_keyboard_is_followed_through_every_chart(
    page: Page, content: ReportContent
) -> None:
    name = "rapamycin@0.5 uM"
    page.locator("#perturbation-table").get_by_role("button", name=name).focus()
    page.keyboard.press("Enter")
    assert page.locator("#focus-title").inner_text() == name
    wells = content.wells.filter(pl.col("Metadata_Perturbation") == name).height
    page.wait_for_function(
        """expected => [...document.querySelectorAll('[data-map="pca"] .mark-symbol > path')].filter(
            path => path.getAttribute("opacity") === "1" || !path.hasAttribute("opacity")).length === expected""",
        arg=wells,
    )
    assert page.locator(".query-row:visible h3").all_inner_texts() == [name]
    page.keyboard.press("Escape")
    assert page.locator("#focus").is_hidden()


def test_pointing_at_a_mark_names_it(page: Page) -> None:
    page.locator('[data-scores="activity"] .mark-symbol > path').first.hover()
    assert "mAP" in page.locator("#tooltip").inner_text()


def test_every_chart_and_picture_has_a_text(page: Page) -> None:
    for selector in (".chart", ".well img"):
        for element in page.locator(selector).all():
            assert element.get_attribute("aria-label") or element.get_attribute("alt")
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].map(heading => Number(heading.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_never_scrolls_sideways(open_page: Opener, report: Path, scheme: str) -> None:
    page = open_page(report, width=320, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    ink = page.evaluate("getComputedStyle(document.querySelector('.chart')).color")
    assert ink == ("rgb(26, 31, 39)" if scheme == "light" else "rgb(232, 235, 239)")


def test_every_printed_sheet_says_synthetic(page: Page) -> None:
    page.emulate_media(media="print")
    watermark = page.locator(".watermark")
    assert watermark.is_visible()
    assert watermark.evaluate("element => getComputedStyle(element).position") == "fixed"
    rules = page.evaluate(
        "[...document.styleSheets].flatMap(sheet => [...sheet.cssRules]).map(rule => rule.cssText).join()"
    )
    assert "@top-center" in rules
