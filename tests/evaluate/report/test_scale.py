"""Ten plates and a hundred: the file stays small, the page opens, and what is left out is said."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Page

from cellvim.evaluate.report import ReportContent, write_report
from cellvim.evaluate.report.montage import montage

Opener = Callable[..., Page]
MOST_BYTES = 10_000_000
MONTAGE_ROWS = 48 * 5


@pytest.fixture(scope="module")
def ten(new_content: Callable[..., ReportContent]) -> ReportContent:
    names = tuple(f"compound-{number:03d}@10 uM" for number in range(300))
    large = new_content(plates=10, rows=16, columns=24, names=names, most_pictures=400, tables=("one",))
    return dataclasses.replace(large, neighbors=large.neighbors.head(MONTAGE_ROWS))


@pytest.fixture(scope="module")
def page(ten: ReportContent, open_once: Opener, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("ten") / "report.html"
    write_report(ten, path)
    assert path.stat().st_size < MOST_BYTES
    return open_once(path)


@pytest.fixture(scope="module")
def hundred(
    new_content: Callable[..., ReportContent], ten: ReportContent, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    names = tuple(f"compound-{number:04d}@10 uM" for number in range(4000))
    large = new_content(plates=100, rows=16, columns=24, names=names, most_pictures=0, tables=("one",))
    # The first plates are called as those of ten, and so fit their pictures.
    large = dataclasses.replace(large, thumbnails=ten.thumbnails)
    path = tmp_path_factory.mktemp("hundred") / "report.html"
    write_report(dataclasses.replace(large, neighbors=large.neighbors.head(MONTAGE_ROWS)), path)
    return path


def test_ten_plates_fit_and_are_drawn(page: Page) -> None:
    assert page.locator("[data-map] canvas").count() == 2
    assert page.locator('[data-map="pca"] + .map-note').inner_text().startswith("3,839 wells.")
    page.wait_for_selector("#plate-list[data-drawn=yes]", state="attached")
    assert page.locator("[data-plate] svg").count() == 10
    assert page.locator("#plate-choice").count() == 0
    assert page.locator("#perturbation-table tbody tr").count() == 200
    page.locator("#more-rows").click()
    assert page.locator("#perturbation-table tbody tr").count() == 300


def test_pictures_that_do_not_fit_are_counted(ten: ReportContent) -> None:
    pictures = montage(ten, room_bytes=300_000).pictures
    assert pictures.left_out > 0
    assert sum(map(len, pictures.encoded)) <= 300_000


def test_marks_of_a_canvas_can_be_clicked_and_change_with_the_theme(page: Page, ten: ReportContent) -> None:
    page.locator("#perturbation-table button.choose").first.click()
    chosen = page.locator("#focus-title").inner_text()
    canvas = page.locator('[data-map="pca"] canvas')
    picture = "canvas => canvas.toDataURL()"
    light = canvas.evaluate(picture)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        f"before => ({picture})(document.querySelector('[data-map=pca] canvas')) !== before", arg=light
    )
    assert page.locator("#focus-title").inner_text() == chosen
    page.keyboard.press("Escape")
    box = canvas.bounding_box()
    assert box is not None
    for share in range(2, 19):
        canvas.click(position={"x": box["width"] * share / 20, "y": box["height"] / 2}, force=True)
        if page.locator("#focus").is_visible():
            break
    assert page.locator("#focus-title").inner_text() in ten.wells["Metadata_Perturbation"].to_list()


def test_a_choice_is_drawn_first_where_it_is_seen_and_soon_everywhere(page: Page, ten: ReportContent) -> None:
    page.wait_for_selector("#plate-list[data-drawn=yes]", state="attached")
    # The panel is open before, for the page is longer beside it.
    choose = "name => document.querySelector(`#perturbation-table [data-perturbation='${name}']`).click()"
    page.evaluate(choose, "compound-298@10 uM")
    page.locator('[data-plate="9"]').evaluate(
        "plate => plate.scrollIntoView({ block: 'end', behavior: 'instant' })"
    )
    page.wait_for_function(
        "() => document.querySelectorAll('[data-plate] [stroke-width=\"2.5\"]').length > 0"
    )
    page.wait_for_function(
        "() => document.querySelector('[data-plate=\"0\"]').getBoundingClientRect().bottom < -100"
    )
    page.evaluate(
        """() => {
            window.changed = [];
            const watch = (entries) => entries.forEach(({ target }) => {
                window.changed.push(Number(target.closest("[data-plate]").dataset.plate));
            });
            for (const plate of document.querySelectorAll("[data-plate]")) {
                const about = { subtree: true, attributes: true, attributeFilter: ["stroke", "stroke-width"] };
                new MutationObserver(watch).observe(plate.querySelector("svg"), about);
            }
        }"""
    )
    for number in (296, 290):
        page.evaluate(choose, f"compound-{number}@10 uM")
    page.wait_for_function("() => new Set(window.changed).size === 10")
    first = page.evaluate("[...new Set(window.changed)]")
    assert not {0, 1} & set(first[:4])
    wells = ten.wells.filter(pl.col("Metadata_Perturbation") == "compound-290@10 uM")
    outlined = "document.querySelectorAll('[data-plate] .mark-rect > path[stroke-width=\"2.5\"]').length"
    page.wait_for_function(f"wells => {outlined} === wells", arg=wells.height)
    page.keyboard.press("Escape")


def test_a_hundred_plates_fit_twelve_at_a_time(hundred: Path, open_page: Opener) -> None:
    assert hundred.stat().st_size < MOST_BYTES
    page = open_page(hundred)
    note = page.locator('[data-map="pca"] + .map-note').inner_text()
    drawn = int(note.split(" ")[0].replace(",", ""))
    assert "of 38,399 wells" in note
    assert 8000 < drawn <= 10_000
    assert page.locator("#plate-list > figure:visible").count() == 12
    page.locator("#plate-choice").select_option("96")
    assert page.locator("#plate-list > figure:visible h3").all_inner_texts() == [
        f"BR000{n}" for n in range(96, 100)
    ]
    page.locator("#finder").fill("compound-0005")
    page.keyboard.press("Enter")
    assert page.locator("#focus-title").inner_text() == "compound-0005@10 uM"
    page.locator("#plate-choice").select_option("focus")
    assert page.locator("#plate-list > figure:visible").count() == 12
