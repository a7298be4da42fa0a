"""The page of results: a section for each campaign, written anew by its own campaign alone."""

import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from cellvim.atomic import write_text

HEADING = """# Reliability

What was done to cellvim, and what became of its results. Every section is the output of one campaign, and says at its
end when and where it ran; `make torture` runs them all, `python -m pipelines.torture --only NAME` one of them.
"""
TITLES = (
    "Pretraining, killed",
    "Ingest, killed",
    "Ingest onto a full disk",
    "Eight writers on one plate",
    "Damaged and hostile files",
)
"""Sections in the order of the page."""
_SECTION = re.compile(r"^## (.+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """What one campaign found.

    Attributes:
        title: One of `TITLES`.
        body: Markdown.
        failures: One line each; empty if all is well.
    """

    title: str
    body: str
    failures: Sequence[str] = field(default_factory=tuple)


def update_page(path: Path, section: Section) -> None:
    """Put a section in the place of its predecessor; all others stay as they are."""
    sections = read_sections(path.read_text() if path.exists() else "")
    sections[section.title] = section.body.strip()
    parts = [f"## {title}\n\n{sections[title]}\n" for title in TITLES if title in sections]
    write_text(path, "\n".join([HEADING, *parts]))


def read_sections(page: str) -> dict[str, str]:
    """Title to body of every section."""
    pieces = _SECTION.split(page)
    return {title: body.strip() for title, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def footer(line: str, packages: Sequence[str]) -> str:
    """Say how, when and where a section came about."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"`{line}` on {time.strftime('%Y-%m-%d')}: {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, load {load} (1, 5, 15 min) at the end; Python {platform.python_version()}, {versions}."
    )
