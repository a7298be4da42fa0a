"""What a section of a benchmark found, as JSON, Markdown and plots."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns, and notes below them."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    """What a row has no room for, such as why a case failed."""


@dataclass(frozen=True)
class Goal:
    """One claim and whether it held.

    Args:
        claim: What is claimed, with its bound.
        found: The number; None if it could not be measured.
        is_met: Whether the bound holds.
        is_required: Whether the run fails without it, as a wrong result does and a slow one does not.
    """

    claim: str
    found: float | None
    is_met: bool
    is_required: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves over one axis, both axes logarithmic; points are (x, y)."""

    name: str
    x_label: str
    y_label: str
    curves: dict[str, list[tuple[float, float]]]


@dataclass
class Findings:
    """Everything that one section found."""

    section: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None
    """Why the section has no result, or not all of them."""

    @property
    def is_sound(self) -> bool:
        return self.error is None and all(goal.is_met for goal in self.goals if goal.is_required)


def at_most(claim: str, found: float | None, bound: float) -> Goal:
    return Goal(f"{claim}: at most {bound:g}", found, found is not None and found <= bound)


def at_least(claim: str, found: float | None, bound: float) -> Goal:
    return Goal(f"{claim}: at least {bound:g}", found, found is not None and found >= bound)


def save(findings: Findings, out: Path) -> None:
    """Write one section as JSON, and its plots as PNG where matplotlib is installed."""
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(findings), indent=1)
    (out / f"{findings.section}.json").write_text(content, encoding="utf-8")
    for plot in findings.plots:
        _draw(plot, out / f"{plot.name}.png")


def publish(page: str, docs: Path | None) -> None:
    """Write a page where it was asked for, or print it."""
    if docs is None:
        print(page, end="")
    else:
        docs.write_text(page, encoding="utf-8")


def as_markdown(sections: Sequence[Findings], heading: str) -> str:
    """Give the whole report: what was claimed first, then every section's tables."""
    parts = [heading, claims(sections), *(section_markdown(findings) for findings in sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def claims(sections: Sequence[Findings]) -> str:
    """Give what was claimed, its number and whether it held."""
    goals = [goal for findings in sections for goal in findings.goals]
    lines = [f"| {goal.claim} | {_number(goal.found)} | {_verdict(goal)} |" for goal in goals]
    return "\n".join(["| claim | found | held |", "|---|---|---|", *lines]) if goals else ""


def _verdict(goal: Goal) -> str:
    if goal.found is None:
        return "not measured"
    return "yes" if goal.is_met else "**no**"


def section_markdown(findings: Findings) -> str:
    parts = [f"## {findings.section} ({findings.seconds:.0f} s)"]
    if findings.error is not None:
        parts.append(f"**Not finished**: {findings.error}")
    parts += [_table(table) for table in findings.tables]
    parts += [f"![{plot.y_label} over {plot.x_label}]({plot.name}.png)" for plot in findings.plots]
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    head = [f"| {' | '.join(table.columns)} |", "|" + "---|" * len(table.columns)]
    rows = [f"| {' | '.join(_number(cell) for cell in row)} |" for row in table.rows]
    return "\n".join([f"**{table.title}**\n", *head, *rows, *(f"\n{note}" for note in table.notes)])


def _number(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return str(cell).replace("|", "/")


def _draw(plot: Plot, path: Path) -> None:
    # A machine for measuring need not be able to draw: the JSON holds the numbers.
    if find_spec("matplotlib") is None or not any(plot.curves.values()):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for name, points in plot.curves.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel=plot.x_label, ylabel=plot.y_label)
    measured = sorted({x for points in plot.curves.values() for x, _ in points})
    axes.set_xticks(measured, [f"{x:g}" for x in measured], minor=False)
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
