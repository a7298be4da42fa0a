"""One HTML file that works offline, asks nothing of the network, and runs no script but our own."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cellvim.atomic import write_text
from cellvim.evaluate.report.content import ReportContent


def write_report(content: ReportContent, path: Path) -> None:
    """Write the report; the same content gives the same bytes.

    Args:
        content: What to show.
        path: The HTML file to write, whole or not at all.
    """
    write_text(path, render(content))


def render(content: ReportContent) -> str:
    environment = Environment(
        loader=PackageLoader("cellvim.evaluate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(content=content)
