"""Style and scripts of the page, and the policy that lets exactly these run."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import vl_convert
from markupsafe import Markup

from cellvim.evaluate.report.section import Section

STYLES = ("report", "focus", "sections/sections")
SCRIPTS = (
    "data", "tooltip", "sight", "charts", "walk", "table", "scores", "maps", "legend", "plate_effects", "plates", "montage",
    "finder", "panel", "dose_curve", "focus",
)  # fmt: skip
"""Our own scripts, in the order they are joined; those of sections follow, and `main` comes last."""


@cache
def assets(sections: tuple[Section, ...], *, is_synthetic: bool) -> dict[str, Any]:
    """Style, scripts, and the policy that lets exactly these run."""
    names = (*STYLES, "synthetic") if is_synthetic else STYLES
    styles = [_static(f"{name}.css") for name in names]
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
