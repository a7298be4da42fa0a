"""One perturbation at a time: chosen anywhere, shown beside everything, kept in the address."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Page

from cellvim.evaluate.report import ReportContent, write_report
from cellvim.evaluate.report.focus import focus
from cellvim.evaluate.report.measures import MOST_EXACT_WELLS, Measure, measures

Opener = Callable[..., Page]
NAME = "rapamycin@0.5 uM"
# Charts are fitted and drawn again after the panel has gone, one after the other: a mark's place is known only when
# every mark has kept its own for twenty turns of the page's own clock.
AT_REST = """async () => {
  const places = () => [...document.querySelectorAll("svg path")].map((mark) => {
    const { x, y } = mark.getBoundingClientRect();
    return `${x + scrollX},${y + scrollY}`;
  }).join(" ");
  let [before, turns] = [places(), 0];
  while (turns < 20) {
    await new Promise((resolve) => { setTimeout(resolve, 25); });
    const now = places();
    turns = now === before ? turns + 1 : 0;
    before = now;
  }
}"""
PERTURBATION = "Metadata_Perturbation"


def with_focus(content: ReportContent) -> ReportContent:
    """Two doses of one compound, nearest perturbations, replicate similarity and scores of two more tasks."""
    names = content.perturbations[PERTURBATION].unique(maintain_order=True)
    similar = pl.DataFrame(
        {PERTURBATION: names, "rank": 1, "neighbor": names.reverse(), "similarity": 0.5}
    ).filter(pl.col(PERTURBATION) != pl.col("neighbor"))
    keys = content.wells.select("Metadata_Plate", "Metadata_Well", PERTURBATION, "Metadata_ControlType")
    treated = pl.col("Metadata_ControlType").is_null()
    doses = keys.with_columns(
        table=pl.lit("trained"),
        compound=pl.when(treated).then(pl.lit("rapamycin")),
        dose=pl.when(treated).then(10.0 ** (pl.int_range(pl.len()) % 3)),
        projection=pl.int_range(pl.len()) / pl.len(),
    )
    fits = {"table": "trained", "compound": "rapamycin", "unit": "uM", "trend": 0.9, "q": 0.01, "ec50": 2.0}
    replicating = pl.DataFrame(
        {PERTURBATION: names, "similarity": 0.6, "threshold": 0.2, "is_replicating": True}
    ).with_columns(table=pl.lit("trained"))
    aps = keys.head(20).with_columns(table=pl.lit("trained"), ap=pl.lit(0.25))
    return dataclasses.replace(
        content,
        similar=similar,
        tables_on_disk={
            "dose_wells": doses,
            "dose": pl.DataFrame([fits]),
            "percent_replicating": replicating,
            "distinctiveness_wells": aps,
        },
    )


@pytest.fixture(scope="module")
def full(content: ReportContent) -> ReportContent:
    return with_focus(content)


@pytest.fixture(scope="module")
def path(full: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("focus") / "report.html"
    with pytest.MonkeyPatch.context() as patched:
        # Sections read the same tables, and have tests of their own.
        patched.setattr("cellvim.evaluate.report.page.SECTIONS", ())
        write_report(full, path)
    return path


@pytest.fixture(scope="module")
def opened(open_once: Opener, path: Path) -> Page:
    return open_once(path)


@pytest.fixture
def page(opened: Page) -> Page:
    """The same page for all, with nothing chosen."""
    opened.evaluate("document.activeElement?.blur()")
    opened.keyboard.press("Escape")
    opened.wait_for_selector("#focus", state="hidden")
    return opened


def title(page: Page) -> str:
    page.wait_for_selector("#focus:not([hidden])")
    return page.locator("#focus-title").inner_text()


def test_a_name_chosen_by_keyboard_opens_the_panel_and_gives_the_focus_back(page: Page) -> None:
    button = page.locator(f'#perturbation-table button[data-perturbation="{NAME}"]')
    button.focus()
    page.keyboard.press("Enter")
    assert title(page) == NAME
    assert page.evaluate("document.activeElement.id") == "focus-title"
    assert page.locator("#status").inner_text().startswith(f"{NAME}: Shown (q < 0.05)")
    page.keyboard.press("Escape")
    assert page.locator("#focus").is_hidden()
    assert button.evaluate("button => button === document.activeElement")


def test_the_panel_shows_every_well_with_its_picture_and_place(page: Page, full: ReportContent) -> None:
    page.evaluate("name => { location.hash = 'focus=' + encodeURIComponent(name) }", NAME)
    assert title(page) == NAME
    wells = full.wells.filter(pl.col(PERTURBATION) == NAME)
    cards = page.locator("#focus .cards > li")
    assert cards.count() == wells.height == page.locator("#focus .cards img").count()
    shown = {tuple(text.split()[:2]) for text in cards.all_inner_texts()}
    assert shown == set(wells.select("Metadata_Well", "Metadata_Plate").iter_rows())
    sizes = page.locator("#focus .cards img").evaluate_all("all => all.map(image => image.naturalWidth)")
    assert set(sizes) == {96}


def test_the_panel_has_scores_replicates_doses_and_what_is_similar(page: Page, full: ReportContent) -> None:
    page.locator(f'#perturbation-table button[data-perturbation="{NAME}"]').click()
    row = full.perturbations.filter((pl.col("table") == "trained") & (pl.col(PERTURBATION) == NAME))
    text = page.locator("#focus").inner_text()
    assert f"{row['activity_map'].item():.2f}" in text
    assert (
        "Its replicates correlate with 0.6 (median pair), beyond what random wells do (threshold 0.2)."
        in text
    )
    assert "EC50 2 uM." in text
    page.wait_for_selector("#focus [data-dose] svg")
    doses = full.tables_on_disk["dose_wells"].filter(pl.col("dose").is_not_null())
    assert page.locator("#focus [data-dose] .mark-symbol > path").count() == doses.height
    other = full.similar.filter(pl.col(PERTURBATION) == NAME)["neighbor"].item()
    page.locator("#focus .similar button").click()
    assert title(page) == other


@pytest.mark.parametrize(
    "where",
    [
        '[data-scores="activity"] .mark-symbol > path',
        '[data-map="pca"] .mark-symbol > path',
        '[data-plate="0"] .mark-rect.role-mark.layer_1_marks > path',
        "#legend button",
        "#montage > li:first-child h3 button",
        ".leaders button",
    ],
)
def test_it_opens_from_everywhere(page: Page, full: ReportContent, where: str) -> None:
    page.evaluate(AT_REST)
    page.locator(where).last.click(force=True)
    assert title(page) in full.wells[PERTURBATION].to_list()


def test_the_address_leads_back_and_forth(page: Page) -> None:
    first, second = "taxol@3 uM", "wortmannin@2 uM"
    for name in (first, second):
        page.locator(f'#perturbation-table button[data-perturbation="{name}"]').click()
    assert page.evaluate("location.hash") == f"#focus={quote(second, safe='')}"
    page.go_back()
    assert title(page) == first
    page.go_forward()
    assert title(page) == second
    page.locator("#focus-close").click()
    assert page.evaluate("location.hash") == ""


@pytest.mark.parametrize("fragment", ["%E0%A4%A", "<img src=x onerror=alert(1)>", "", "no such name"])
def test_an_address_that_names_nothing_opens_nothing(page: Page, fragment: str) -> None:
    page.evaluate("fragment => { location.hash = 'focus=' + fragment }", fragment)
    assert page.locator("#focus").is_hidden()


def test_a_link_opens_what_it_names(open_page: Opener, path: Path) -> None:
    page = open_page(path, fragment=f"#focus={quote(NAME)}")
    assert title(page) == NAME


def test_a_perturbation_is_found_by_a_part_of_its_name_or_label(page: Page) -> None:
    finder = page.get_by_role("combobox", name="Find a perturbation")
    finder.fill("APAMY")
    assert finder.get_attribute("aria-expanded") == "true"
    assert page.locator("#finder-list [role=option]").count() == 1
    page.keyboard.press("ArrowDown")
    assert finder.get_attribute("aria-activedescendant") == "finder-option-0"
    page.keyboard.press("Enter")
    assert title(page) == NAME
    page.keyboard.press("Escape")
    finder.fill("mechanism 2")
    assert 0 < page.locator("#finder-list [role=option]").count() < 9
    finder.fill("nothing is called so")
    assert page.locator("#finder-list [role=option]").count() == 0
    page.keyboard.press("Enter")
    assert page.locator("#focus").is_hidden()
    finder.fill("")


def test_arrow_keys_go_through_the_points_of_a_chart(page: Page, full: ReportContent) -> None:
    first = (
        full.perturbations.filter(pl.col("table") == "trained").sort("activity_map")[PERTURBATION].to_list()
    )
    page.locator('[data-scores="activity"]').focus()
    page.keyboard.press("End")
    assert page.locator("#tooltip").inner_text().startswith(first[-1])
    page.keyboard.press("ArrowLeft")
    assert page.locator("#status").inner_text().startswith(first[-2])
    page.keyboard.press("Enter")
    assert title(page) == first[-2]


def test_alternative_texts_say_the_finding(page: Page, full: ReportContent) -> None:
    found = full.perturbations.filter((pl.col("table") == "trained") & (pl.col("activity_q") < 0.05)).height
    label = page.locator('[data-scores="activity"]').get_attribute("aria-label") or ""
    assert f"{found} of 9 perturbations lie above the line" in label
    assert "nearest to a well is of the same perturbation for" in (
        page.locator('[data-map="pca"]').get_attribute("aria-label") or ""
    )


def test_what_rows_and_columns_explain_is_the_share_of_the_variance(page: Page, full: ReportContent) -> None:
    page.locator("#measure-choice").select_option("pca_1")
    plate = full.wells.filter(pl.col("Metadata_Plate") == "BR00000").with_columns(
        row=pl.col("Metadata_Well").str.head(1), column=pl.col("Metadata_Well").str.tail(2)
    )
    spread = np.square(plate["pca_1"] - plate["pca_1"].mean()).sum()
    shares = [
        np.square(plate.select(pl.col("pca_1").mean().over(by)).to_series() - plate["pca_1"].mean()).sum()
        / spread
        for by in ("row", "column")
    ]
    note = page.locator("#plate-list figure").first.locator(".plate-note").inner_text()
    assert note.startswith(
        f"Rows explain {100 * shares[0]:.0f} % of the differences ({100 * 5 / 47:.0f} % by chance), "
        f"columns {100 * shares[1]:.0f} % ({100 * 7 / 47:.0f} %)."
    )


def test_plates_are_coloured_by_every_task_that_scored_wells_and_by_numbers_of_the_table(
    full: ReportContent,
) -> None:
    wells = full.wells.with_columns(Metadata_CellCount=pl.int_range(pl.len()), Metadata_Same=pl.lit(3))
    found = {measure.key: measure for measure in measures(dataclasses.replace(full, wells=wells))}
    assert {"activity_ap", "distinctiveness_ap", "dose_projection", "n_fields", "Metadata_CellCount"} <= set(
        found
    )
    assert not {"Metadata_Same", "replicate_retrieval_ap"} & set(found)
    assert found["distinctiveness_ap"].values.to_list() == [0.25] * 20 + [None] * (wells.height - 20)
    assert (found["Metadata_CellCount"].low, found["Metadata_CellCount"].high) == (0.0, wells.height - 1)


def test_many_values_are_stored_as_steps_of_their_range() -> None:
    values = np.random.default_rng(0).normal(size=MOST_EXACT_WELLS + 1)
    stored = Measure("x", "X", pl.Series(values), values.min(), values.max()).as_json()
    back = stored["first"] + np.array(stored["values"]) * stored["step"]
    assert np.abs(back - values).max() <= 0.51 * np.ptp(values) / 999


def test_labels_say_the_same_of_all_wells_of_a_perturbation(full: ReportContent) -> None:
    names = sorted(full.wells[PERTURBATION].unique())
    (label,) = focus(full, names)["labels"]
    assert label["label"] == "Mechanism"
    mixed = full.wells.with_columns(Metadata_Mechanism=pl.concat_str(pl.lit("m"), pl.int_range(pl.len()) % 5))
    assert focus(dataclasses.replace(full, wells=mixed), names)["labels"] == []
