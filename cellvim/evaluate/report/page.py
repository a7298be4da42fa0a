"""One HTML file that works offline, asks nothing of the network, and runs no script but our own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cellvim import __version__
from cellvim.atomic import write_text
from cellvim.evaluate.report import wording
from cellvim.evaluate.report.assets import assets
from cellvim.evaluate.report.charts import specifications
from cellvim.evaluate.report.comparison import comparison
from cellvim.evaluate.report.content import SIGNIFICANT_Q, TASK_LABELS, TASK_QUESTIONS, ReportContent
from cellvim.evaluate.report.facts import command_line, fact_lists, warnings
from cellvim.evaluate.report.focus import focus, well_pictures
from cellvim.evaluate.report.measures import Measure, measures
from cellvim.evaluate.report.montage import PICTURE_BYTES, Montage, montage
from cellvim.evaluate.report.origins import origins, with_origin
from cellvim.evaluate.report.payload import payload, script_json
from cellvim.evaluate.report.scores import PerturbationRow, perturbation_rows, score_columns
from cellvim.evaluate.report.section import ShownSection, shown_sections
from cellvim.evaluate.report.sections import SECTIONS
from cellvim.evaluate.report.sections.tables import without_tables
from cellvim.evaluate.report.summary import HELD_OUT, headline, leaders, probes, silent, tiles
from cellvim.profiles.schema import PERTURBATION

MOST_BYTES = 9_600_000
"""Pictures get what other things leave of it."""
LIBRARY_BYTES = 1_100_000
"""The chart library, our scripts and styles."""
MOST_PLAIN_ROWS = 200
"""Rows of the table of perturbations that are there without the script, which makes the others."""
BYTES_OF_A_ROW = 2_000


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report as one file; the same content gives the same bytes.

    Args:
        content: What to show.
        path: The HTML file to write, whole or not at all.
    """
    write_text(path, render(content))


def render(content: ReportContent) -> str:
    """Lay the content out as HTML."""
    sections = shown_sections(SECTIONS, content)
    measured = measures(content)
    data = payload(content, measured) | {
        "charts": charts(sections),
        "sections": {each.section.key: without_tables(each.data) for each in sections},
    }
    environment = _environment()
    common = {
        "content": content,
        "labels": TASK_LABELS,
        "questions": TASK_QUESTIONS,
        "significant_q": SIGNIFICANT_Q,
        "origins": origins(content),
    }
    laid_out = _laid_out(environment, sections, common)
    shown, rows = add_perturbations(data, content, sum(len(each.html.encode()) for each in laid_out))
    first = next(iter(content.tables), None)
    return environment.get_template("page.html.j2").render(
        **common,
        version=__version__,
        sections=laid_out,
        headline=headline(content),
        leaders=leaders(content),
        silent=silent(content),
        labels_of=labels_of(data),
        tiles=tiles(content),
        comparison=comparison(content),
        rows=[row for row in rows if row.table == first][:MOST_PLAIN_ROWS],
        montage=shown,
        probes=probes(content),
        held_out={probe.split: HELD_OUT.get(probe.split, "") for probe in probes(content)},
        warnings=warnings(content.facts),
        command=command_line(content.facts),
        fact_lists=fact_lists(content.facts),
        maps=map_kinds(measured),
        measures=measured,
        categories=[{"key": item["key"], "label": item["label"]} for item in data["categories"]],
        plates=data["plates"],
        data=Markup(script_json(data)),  # noqa: S704 - escaped for a script element by script_json
        **assets(tuple(each.section for each in sections), is_synthetic=content.is_synthetic),
    )


def add_perturbations(
    data: dict[str, Any], content: ReportContent, sections_bytes: int = 0
) -> tuple[Montage, list[PerturbationRow]]:
    """Put scores, what the focus panel shows, and pictures into the page's data, as many as there is room for."""
    plain = perturbation_rows(content, {})
    names: list[str] = next((item["names"] for item in data["categories"] if item["key"] == PERTURBATION), [])
    data["perturbations"] = score_columns(plain, content)
    data["focus"] = focus(content, names)
    room = MOST_BYTES - LIBRARY_BYTES - BYTES_OF_A_ROW * min(len(plain), MOST_PLAIN_ROWS)
    room -= len(script_json(data).encode()) + sections_bytes
    shown = montage(content, max(0, min(PICTURE_BYTES, room)))
    rows = perturbation_rows(content, shown.faces)
    data["perturbations"]["picture"] = [row.picture for row in rows]
    data["wells"]["picture"] = well_pictures(content, shown.pictures)
    data["pictures"] = shown.pictures.encoded
    data["pictures_left_out"] = shown.pictures.left_out
    return shown, rows


def labels_of(data: Mapping[str, Any]) -> dict[str, str]:
    """The most telling label of each perturbation that has one: its target or mechanism."""
    names: list[str] = next((item["names"] for item in data["categories"] if item["key"] == PERTURBATION), [])
    columns = data["focus"]["labels"][:1]
    return {names[int(code)]: text for column in columns for code, text in column["values"].items()}


def map_kinds(measured: list[Measure]) -> list[str]:
    found = {measure.key for measure in measured}
    return [kind for kind in ("pca", "umap") if {f"{kind}_1", f"{kind}_2"} <= found]


def charts(sections: tuple[ShownSection, ...]) -> dict[str, Any]:
    """Specifications of every chart of the page, by name."""
    found = specifications()
    for each in sections:
        found.update(each.section.specifications())
    return found


@dataclass(frozen=True)
class LaidOutSection:
    key: str
    title_for_nav: str
    after: str
    html: Markup


def _laid_out(
    environment: Environment, sections: tuple[ShownSection, ...], common: dict[str, Any]
) -> list[LaidOutSection]:
    """Lay out each section by its own template."""
    found = []
    for each in sections:
        section = each.section
        template = environment.get_template(section.template)
        html = template.render(common | dict(each.data) | {"section": section})
        # Escaped by the template.
        found.append(LaidOutSection(section.key, section.title_for_nav, section.after, Markup(html)))  # noqa: S704
    return found


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cellvim.evaluate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=wording.score,
        interval=wording.interval,
        probability=wording.probability,
        spelled=wording.spelled,
        with_origin=with_origin,
        counted=wording.counted,
        percent=lambda share: f"{100 * min(max(share, 0.0), 1.0):.1f}%",
        whole=lambda number: wording.NOTHING if number is None else f"{number:,.0f}",
    )
    return environment
