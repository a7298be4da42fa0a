"""The page of results: a table of figures, and a section for each campaign, written anew by its own campaign alone."""

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from cellvim.atomic import write_text

HEADING = """# Reliability

What was done to cellvim, and what became of its results. Every section is the output of one campaign, and says at its
end when and where it ran. `make torture` runs them all but the soak, which is `make soak`; `python -m pipelines.torture
--only NAME` runs one of them. The rows of this table come from the sections that they name.
"""
TABLE = """| threat | what was done | figure asked | figure found | met | section |
|---|---|---|---|---|---|
"""
MOST_MINUTES = 60
"""For all campaigns, on two cores."""
TIME = "Time"
THREATS = (
    "kill -9",
    "SIGTERM",
    "disk full",
    "read-only target",
    "two writers",
    "corrupt TIFF",
    "decompression bomb",
    "XML bomb",
    "path traversal",
    "malicious checkpoint",
    "script in names",
    "bit rot",
    "soak",
    "time",
)
"""Rows of the table in the order of the page; several rows may be about one threat."""
TITLES = (
    "Ingest, killed",
    "Embedding, killed",
    "Pretraining, killed",
    "Ingest onto a full disk",
    "Every stage onto a full disk",
    "A target that is read-only",
    "Eight writers on one plate",
    "Eight writers of one table, run or report",
    "Damaged and hostile files",
    "Other doors for XML and names",
    "Malicious checkpoints",
    "Scripts in names",
    "Bit rot",
    "Soak",
    TIME,
)
"""Sections in the order of the page; any other comes after them."""
_SECTION = re.compile(r"^## (.+)\n", re.MULTILINE)
_TIMES = re.compile(r"^\| ([a-z-]+) \| (\d+) \|$", re.MULTILINE)
_ROW = re.compile(r"^\| (.+) \| \[(.+)\]\(#.*\) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One figure that was asked for, and what was found.

    Attributes:
        threat: One of `THREATS`.
        test: What was done.
        asked: The figure, in words.
        found: The same of this run.
        is_met: Whether it is as asked, the number of trials included.
    """

    threat: str
    test: str
    asked: str
    found: str
    is_met: bool

    @property
    def line(self) -> str:
        """The row in one line, for those who have no page."""
        return f"{self.threat}: {self.test}: asked {self.asked}, found {self.found}"


@dataclass(frozen=True)
class Section:
    """What one campaign found.

    Attributes:
        title: One of `TITLES`.
        body: Markdown.
        failures: One line each; empty if all is well.
        rows: Figures for the table on top of the page.
    """

    title: str
    body: str
    failures: Sequence[str] = field(default_factory=tuple)
    rows: tuple[Row, ...] = ()

    @property
    def complaints(self) -> list[str]:
        """Everything that is not as it should be: failures, and figures that are missed."""
        return [*self.failures, *(row.line for row in self.rows if not row.is_met)]


def update_page(path: Path, section: Section) -> None:
    """Put a section and its rows in the place of their predecessors; all others stay as they are."""
    page = path.read_text() if path.exists() else ""
    sections, rows = read_sections(page), read_rows(page)
    sections[section.title] = section.body.strip()
    rows[section.title] = [_cells(row) for row in section.rows]
    order = [title for title in TITLES if title in sections]
    order += [title for title in sections if title not in order]
    lines = [
        f"| {cells} | [{title}](#{_anchor(title)}) |\n" for title in order for cells in rows.get(title, ())
    ]
    lines.sort(key=_place)
    parts = [f"## {title}\n\n{sections[title]}\n" for title in order]
    write_text(path, "\n".join([HEADING, *(["".join([TABLE, *lines])] if lines else []), *parts]))


def read_sections(page: str) -> dict[str, str]:
    """Title to body of every section."""
    pieces = _SECTION.split(page)
    return {title: body.strip() for title, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def read_rows(page: str) -> dict[str, list[str]]:
    """Title of a section to its rows of the table on top, without the link."""
    rows: dict[str, list[str]] = {}
    for cells, title in _ROW.findall(_SECTION.split(page)[0]):
        rows.setdefault(title, []).append(cells)
    return rows


def time_section(
    known: Mapping[str, float], seconds: Mapping[str, float], campaigns: Sequence[str]
) -> Section:
    """What the campaigns take by the clock, one after the other.

    Args:
        known: Seconds of campaigns that ran before, as `read_times` has them.
        seconds: The same of those that ran now.
        campaigns: Names of all.
    """
    found = {**known, **seconds}
    taken = {name: found[name] for name in campaigns if name in found}
    minutes = sum(taken.values()) / 60
    table = ["| campaign | seconds |", "|---|---|"]
    table += [f"| {name} | {each:.0f} |" for name, each in taken.items()]
    row = Row(
        "time",
        f"{len(taken)} of the {len(campaigns)} campaigns of `make torture`, one after the other",
        f"under {MOST_MINUTES} minutes on 2 cores",
        f"{minutes:.0f} minutes",
        len(taken) == len(campaigns) and minutes < MOST_MINUTES,
    )
    return Section(TIME, "\n".join(table), rows=(row,))


def read_times(path: Path) -> dict[str, float]:
    """Seconds of every campaign that the page tells of."""
    body = read_sections(path.read_text()).get(TIME, "") if path.exists() else ""
    return {name: float(seconds) for name, seconds in _TIMES.findall(body)}


def footer(line: str, packages: Sequence[str]) -> str:
    """Say how, when and where a section came about."""
    versions = ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"`{line}` on {time.strftime('%Y-%m-%d')}: {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, load {load} (1, 5, 15 min) at the end; {versions}."
    )


def _cells(row: Row) -> str:
    cells = (row.threat, row.test, row.asked, row.found, "yes" if row.is_met else "**no**")
    return " | ".join(cell.replace("|", "&#124;").replace("\n", " ") for cell in cells)


def _place(line: str) -> int:
    """Where a line of the table belongs; among those of one threat, the order of the sections stays."""
    threat = line.removeprefix("| ").split(" | ")[0]
    return THREATS.index(threat) if threat in THREATS else len(THREATS)


def _anchor(title: str) -> str:
    """What the page's readers make of a heading."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
