"""Sections in a real Chromium: as many marks as rows, keyboard, small screens, paper, and names that try to run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from cellvim.evaluate.report import ReportContent, write_report
from cellvim.evaluate.report.sections import SECTIONS

Opener = Callable[..., Page]
BY_KEY = {section.key: section for section in SECTIONS}
RUN = "window.ran=(window.ran||0)+1"
PAYLOADS = (
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"<!--<script>{RUN}</script>-->",
    f"<img src=x onerror={RUN}>",
    f"\"><img src=http://127.0.0.1:9/a onerror='{RUN}'>",
    f"<svg onload={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"' autofocus onfocus='{RUN}' x='",
    f"javascript:{RUN}",
    f"{{{{ constructor.constructor('{RUN}')() }}}}",
    f"datum.x;{RUN}",
    f'"+({RUN})+"',
    f"\u2028{RUN}\u2029",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/b'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/c><style>@import 'http://127.0.0.1:9/d'</style>",
)


@pytest.fixture(scope="module")
def report(full_content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sections") / "report.html"
    write_report(full_content, path)
    return path


def data_of(key: str, content: ReportContent) -> dict[str, Any]:
    data = BY_KEY[key].data(content)
    assert data is not None
    return data


def marks(page: Page, chart: str, kind: str) -> int:
    return page.locator(f"{chart} .mark-{kind} > path").count()


def test_as_many_marks_as_rows(open_page: Opener, report: Path, full_content: ReportContent) -> None:
    page = open_page(report)
    assert marks(page, "#replicates-chart", "rect") == len(data_of("replicates", full_content)["bins"])
    labels = data_of("label_groups", full_content)["labels"]
    members = sum(len(label["members"]) for label in labels)
    assert marks(page, "#label-groups-chart", "symbol") == len(labels) + members
    forests = {"relationships": "sources", "batch_or_biology": "rows", "paired_comparison": "rows"}
    for key, rows in forests.items():
        chart = f"#{key.replace('_', '-')}-chart"
        count = len(data_of(key, full_content)[rows])
        assert marks(page, chart, "symbol") == count
        assert page.locator(f"{chart} .mark-text.role-mark > text").count() == count
    doses = data_of("dose_overview", full_content)
    for number, panel in enumerate(doses["panels"]):
        assert marks(page, f'[data-dose="{number}"]', "symbol") == len(panel["wells"])
        assert marks(page, f'[data-dose="{number}"]', "rect") == 1
    assert marks(page, "#layer-choice-chart", "symbol") == len(data_of("layer_choice", full_content)["rows"])
    assert marks(page, "#z-prime-chart", "symbol") == len(doses["plates"])
    labels = data_of("confusion", full_content)["splits"][0]["labels"]
    assert marks(page, '[data-confusion="0"]', "rect") == len(labels) ** 2


def test_every_table_holds_what_its_section_has(
    open_page: Opener, report: Path, full_content: ReportContent
) -> None:
    page = open_page(report)
    expected = {"replicates": ["table", "bin_table"], "label_groups": ["table", "wrong"], "relationships": ["source_table", "table"],
                "dose_overview": ["table", "plate_table"], "batch_or_biology": ["table"], "paired_comparison": ["table"]}  # fmt: skip
    for key, names in expected.items():
        data = data_of(key, full_content)
        found = [table.locator("tbody tr").count() for table in page.locator(f"#{key} table.sortable").all()]
        assert found == [len(data[name]["rows"]) for name in names]


def test_a_table_opens_sorts_and_chooses_by_keyboard(open_page: Opener, report: Path) -> None:
    page = open_page(report)
    details = page.locator("#replicates details").first
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    header = details.locator("thead th").nth(2)
    header.locator("button").focus()
    page.keyboard.press("Enter")
    shown = [float(text) for text in details.locator("tbody td:nth-child(3)").all_inner_texts()]
    assert header.get_attribute("aria-sort") == "descending"
    assert shown == sorted(shown, reverse=True)
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert details.locator("tbody td:nth-child(3)").all_inner_texts() == [
        f"{value:.2f}" for value in sorted(shown)
    ]
    first = details.locator("tbody button.choose").first
    name = first.inner_text()
    first.focus()
    page.keyboard.press("Enter")
    pressed = page.locator('#replicates button.choose[aria-pressed="true"]')
    assert pressed.all_inner_texts() == [name]


def test_the_split_chosen_is_the_split_shown(open_page: Opener, report: Path) -> None:
    page = open_page(report)
    page.locator("#confusion-split").select_option(index=1)
    page.wait_for_selector('[data-confusion="1"] .mark-rect > path')
    assert page.locator(".confusion-split:visible h3").all_inner_texts() == ["random_well (leaky)"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_never_scrolls_sideways(open_page: Opener, report: Path, scheme: str) -> None:
    page = open_page(report, width=320, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_every_chart_says_its_finding_and_paper_shows_every_table(open_page: Opener, report: Path) -> None:
    page = open_page(report)
    for section in SECTIONS:
        for chart in page.locator(f"#{section.key} .chart").all():
            assert any(letter.isdigit() for letter in chart.get_attribute("aria-label") or "")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#replicates tbody tr").first.is_visible()


def test_no_name_runs_and_none_reaches_the_network(
    content: ReportContent,
    fill: Callable[..., ReportContent],
    make_names: Any,
    open_page: Opener,
    tmp_path: Path,
) -> None:
    tables = PAYLOADS[:2]
    perturbations = content.perturbations.head(2).with_columns(table=tables_column(tables))
    names = make_names(
        tables=tables, perturbations=PAYLOADS[:9], labels=PAYLOADS[3:12], compounds=PAYLOADS[6:9],
        plates=PAYLOADS[9:12], splits=PAYLOADS[12:14], sources=PAYLOADS, unit=PAYLOADS[3],
    )  # fmt: skip
    full = fill(dataclasses.replace(content, perturbations=perturbations), names)
    full.metrics["tables"][0]["tasks"]["nscb"]["reason"] = PAYLOADS[5]
    write_report(full, tmp_path / "report.html")
    page = open_page(tmp_path / "report.html")
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for section in SECTIONS:
        for header in page.locator(f"#{section.key} thead button:visible").all()[:2]:
            header.click()
        for mark in page.locator(
            f"#{section.key} .mark-symbol > path, #{section.key} .mark-rect > path"
        ).all()[:2]:
            mark.hover(force=True)
        for button in page.locator(f"#{section.key} button.choose:visible").all()[:1]:
            button.click()
    page.locator("#confusion-split").select_option(index=1)
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran ?? 0") == 0
    assert page.locator("main :is(iframe, script, [onload], [onerror], [onfocus], [ontoggle])").count() == 0
    shown = page.locator("#label_groups tbody th button, #label_groups .sortable").first
    assert shown.is_visible()
    assert set(page.locator("#relationships tbody th").all_inner_texts()) & set(PAYLOADS)


def tables_column(names: tuple[str, ...]) -> Any:
    import polars as pl

    return pl.Series(names)
