"""A part of the report that brings its own data, charts, text and script."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cellvim.evaluate.report.content import ReportContent


def no_charts() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Section:
    """What `render` needs to put a section into the page; how to write one is told in `report.sections`.

    Args:
        key: Id of the section, unlike any other's: a name that is also one in Python (`similarity`).
        title_for_nav: Two or three words for the list of sections.
        template: Name of the template below `templates`, for example `sections/similarity.html.j2`.
        data: What the section shows of a report; None if there is nothing, and then nothing of it is in the page.
        scripts: Names of scripts below `static`, without ending, for example `sections/similarity`.
        specifications: Vega-Lite specifications by names unlike any other's, without data.
        after: Which part of the page it follows: `comparison`, `perturbations`, `appearance`, `maps`, `plates`
            or `probes`.
    """

    key: str
    title_for_nav: str
    template: str
    data: Callable[[ReportContent], dict[str, Any] | None]
    scripts: tuple[str, ...] = ()
    specifications: Callable[[], dict[str, Any]] = no_charts
    after: str = "plates"

    @property
    def starter(self) -> str:
        """Function that the section's script may define: `startSimilarity`, `startDoseOverview`."""
        return "start" + "".join(word.capitalize() for word in self.key.split("_"))


@dataclass(frozen=True)
class ShownSection:
    """A section that has something to show."""

    section: Section
    data: Mapping[str, Any]


def shown_sections(sections: tuple[Section, ...], content: ReportContent) -> tuple[ShownSection, ...]:
    """Ask every section for its data, and keep those that have some."""
    found = ((section, section.data(content)) for section in sections)
    return tuple(ShownSection(section, data) for section, data in found if data is not None)
