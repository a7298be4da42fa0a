"""One HTML file that works offline, asks nothing of the network, and runs no script but our own."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cellvim import __version__
from cellvim.atomic import write_text
from cellvim.evaluate.report import wording
from cellvim.evaluate.report.charts import specifications
from cellvim.evaluate.report.comparison import comparison
from cellvim.evaluate.report.content import SIGNIFICANT_Q, TASK_LABELS, TASK_QUESTIONS, ReportContent
from cellvim.evaluate.report.facts import command_line, fact_lists, warnings
from cellvim.evaluate.report.montage import montage
from cellvim.evaluate.report.payload import measure_columns, payload, script_json
from cellvim.evaluate.report.scores import perturbation_rows
from cellvim.evaluate.report.section import Section, ShownSection, shown_sections
from cellvim.evaluate.report.sections import SECTIONS
from cellvim.evaluate.report.summary import HELD_OUT, headline, probes, standouts, tiles

SCRIPTS = ("data", "tooltip", "charts", "scores", "maps", "plates", "montage")
"""Our own scripts, in the order they are joined; those of sections follow, and `main` comes last."""


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report as one file; the same content gives the same bytes.

    Args:
        content: What to show.
        path: The HTML file to write, whole or not at all.
    """
    write_text(path, render(content))


def render(content: ReportContent) -> str:
    """Lay the content out as HTML."""
    shown = montage(content)
    measured = measure_columns(content.wells)
    sections = shown_sections(SECTIONS, content)
    data = payload(content) | {
        "charts": charts(sections),
        "pictures": shown.pictures.encoded,
        "sections": {each.section.key: each.data for each in sections},
    }
    environment = _environment()
    common = {
        "content": content,
        "labels": TASK_LABELS,
        "questions": TASK_QUESTIONS,
        "significant_q": SIGNIFICANT_Q,
    }
    return environment.get_template("page.html.j2").render(
        **common,
        version=__version__,
        sections=_laid_out(environment, sections, common),
        headline=headline(content),
        standouts=standouts(content),
        tiles=tiles(content),
        comparison=comparison(content),
        rows=perturbation_rows(content, shown.faces),
        montage=shown,
        probes=probes(content),
        held_out={probe.split: HELD_OUT.get(probe.split, "") for probe in probes(content)},
        warnings=warnings(content.facts),
        command=command_line(content.facts),
        fact_lists=fact_lists(content.facts),
        maps=[kind for kind in ("pca", "umap") if {f"{kind}_1", f"{kind}_2"} <= set(measured)],
        measures=[{"key": item["key"], "label": item["label"]} for item in data["measures"]],
        categories=[{"key": item["key"], "label": item["label"]} for item in data["categories"]],
        plates=data["plates"],
        data=Markup(script_json(data)),  # noqa: S704 - escaped for a script element by script_json
        **_assets(tuple(each.section for each in sections), is_synthetic=content.is_synthetic),
    )


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
    environment: Environment, sections: tuple[ShownSection, ...], common: Mapping[str, Any]
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
        counted=wording.counted,
        percent=lambda share: f"{100 * min(max(share, 0.0), 1.0):.1f}%",
        whole=lambda number: wording.NOTHING if number is None else f"{number:,.0f}",
    )
    return environment


@cache
def _assets(sections: tuple[Section, ...], *, is_synthetic: bool) -> dict[str, Any]:
    """Style, scripts, and the policy that lets exactly these run."""
    styles = [_static("report.css")] + ([_static("synthetic.css")] if is_synthetic else [])
    own = _own_script(sections)
    scripts = [_chart_library(), f'"use strict";\n(() => {{\n{own}\n}})();']
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(map(_source, scripts)),
        "style-src": " ".join(map(_source, styles)),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # Ours and the chart library's, neither of which holds a word of the data.
    return {
        "styles": [Markup(style) for style in styles],  # noqa: S704
        "scripts": [Markup(script) for script in scripts],  # noqa: S704
        "policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
    }


def _own_script(sections: tuple[Section, ...]) -> str:
    """Our scripts in one, with a list of what the sections want called once the page is there."""
    plugged = dict.fromkeys(script for section in sections for script in section.scripts)
    starters = ", ".join(
        f'{section.key}: typeof {section.starter} === "function" ? {section.starter} : null'
        for section in sections
    )
    parts = [_static(f"{name}.js") for name in (*SCRIPTS, *plugged)]
    return "\n".join([*parts, f"const sectionStarters = {{ {starters} }};", _static("main.js")])


def _static(name: str) -> str:
    return files("cellvim.evaluate.report").joinpath("static", name).read_text(encoding="utf-8")


def _chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script. Its expression interpreter needs no `unsafe-eval`."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    inert = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return _static("library_licences.js") + inert


def _source(inline: str) -> str:
    """Name an inline block in a Content-Security-Policy."""
    digest = hashlib.sha256(inline.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
