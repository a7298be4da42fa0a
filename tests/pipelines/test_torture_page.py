"""The table on top of the page of reliability: what was asked, what was found, and from which section."""

from pathlib import Path

from pipelines.torture.page import (
    TITLES,
    Row,
    Section,
    read_rows,
    read_sections,
    read_times,
    time_section,
    update_page,
)

SOAK = Row("soak", "30 minutes", "flat | level", "flat", is_met=True)
KILLS = Row("kill -9", "`cellvim ingest`", "0 differing bytes", "3 differing bytes", is_met=False)
MORE = Row("kill -9", "`cellvim embed`", "0 differing bytes", "0 differing bytes", is_met=True)


def table(page: Path) -> list[str]:
    return [line for line in page.read_text().splitlines() if line.startswith("| ")][1:]


def test_rows_are_in_the_order_of_the_figures_and_stay_when_another_section_is_written(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page.md"
    update_page(page, Section("Soak", "long", rows=(SOAK,)))
    update_page(page, Section("Embedding, killed", "killed", rows=(MORE,)))
    update_page(page, Section("Ingest, killed", "killed", rows=(KILLS,)))
    update_page(page, Section("Bit rot", "| not | a | row | of | it | [x](#x) |"))
    assert [line.split(" | ")[1] for line in table(page)[:3]] == [
        "`cellvim ingest`",
        "`cellvim embed`",
        "30 minutes",
    ]
    assert "| **no** | [Ingest, killed](#ingest-killed) |" in table(page)[0]
    assert "&#124;" in table(page)[2]


def test_a_campaign_that_is_run_again_replaces_its_own_rows_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for rows in ((KILLS, SOAK), (MORE,)):
        update_page(page, Section("Ingest, killed", "killed", rows=rows))
        update_page(page, Section("Soak", "long", rows=(SOAK,)))
    assert {title: len(rows) for title, rows in read_rows(page.read_text()).items()} == {
        "Ingest, killed": 1,
        "Soak": 1,
    }
    before = page.read_text()
    update_page(page, Section("Soak", "long", rows=(SOAK,)))
    assert page.read_text() == before


def test_a_section_that_has_no_place_yet_comes_last(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for title in ("Something new", TITLES[-1], TITLES[0]):
        update_page(page, Section(title, "body"))
    assert list(read_sections(page.read_text())) == [TITLES[0], TITLES[-1], "Something new"]


def test_a_missed_figure_is_a_complaint_as_a_failure_is() -> None:
    assert Section("Soak", "", ["it broke"], (SOAK, KILLS)).complaints == ["it broke", KILLS.line]
    assert not Section("Soak", "", rows=(SOAK, MORE)).complaints


def test_an_hour_is_too_long_and_a_campaign_that_never_ran_is_missed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    update_page(page, time_section({}, {"embed": 1800.0}, ["embed", "ingest-kills"]))
    assert "**no**" in page.read_text()
    known = read_times(page)
    assert known == {"embed": 1800.0}
    assert not time_section(known, {"ingest-kills": 1799.0}, ["embed", "ingest-kills"]).complaints
    assert time_section(known, {"ingest-kills": 1800.0}, ["embed", "ingest-kills"]).complaints
    assert (
        time_section(known, {"embed": 60.0, "ingest-kills": 1800.0}, ["embed", "ingest-kills"]).rows[0].is_met
    )
