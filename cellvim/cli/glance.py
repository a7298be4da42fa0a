"""A plate at a glance: facts as lines, and the plate itself as a picture of one character per well."""

import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from cellvim.store import well_name, well_position
from cellvim.store.illumination import BAKED, ON_READ
from cellvim.terminal import printable

WIDTH = 80
_LABEL = 14
# Rows and columns of the plates that are sold.
_FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
_COMPLETE, _FEWER, _FILLED, _SKIPPED, _NOTHING = "#+fx."
_MEANINGS = {
    _COMPLETE: "all fields",
    _FEWER: "fewer fields",
    _FILLED: "filled planes",
    _SKIPPED: "skipped",
    _NOTHING: "no images",
}
# Behind the name of a row, and in the legend before a word.
_MARK = re.compile(r"(?<=[#+fx.])[#+fx.]|(?<=\s)[#+fx.](?=[\s#+fx.]|$)")
_CORRECTED = {ON_READ: "corrected on reading", BAKED: "corrected in the stored pixels"}
_STYLES = {_COMPLETE: "green", _FEWER: "yellow", _FILLED: "magenta", _SKIPPED: "red", _NOTHING: "dim"}


def show_plates(plates: Iterable[Mapping[str, Any]]) -> None:
    """Print every plate, in colours where stdout is a terminal."""
    for number, facts in enumerate(plates):
        lines, picture = [""] * (number > 0) + glance(facts), plate_picture(facts)
        if sys.stdout.isatty():
            _print_in_colours(lines, picture)
        else:
            for line in (*lines, *picture):
                typer.echo(line)


def glance(facts: Mapping[str, Any]) -> list[str]:
    """What a plate is, in lines of at most 80 characters; the first is its name."""
    shapes = " and ".join(f"{width} x {height}" for height, width in facts["shapes_px"])
    size = facts["pixel_size_um"]
    fields = f"{facts['wells']:,} wells, {facts['fields']:,} fields of {shapes} px, {facts['dtype']}"
    entries = {
        "path": facts["path"],
        "source": facts.get("source") or "",
        "acquired": facts.get("acquired") or "",
        "barcode": facts.get("barcode") or "",
        "images": fields,
        "pixel size": f"{size:g} um" if size else "not known",
        "stored": _stored(facts),
        "illumination": _CORRECTED.get(str(facts.get("illumination")), ""),
        "plate map": _platemap(facts),
        "skipped": _several(f"{unit}: {reason}" for unit, reason in facts["skipped"].items()),
        "filled": _several(f"{field}: {', '.join(names)}" for field, names in facts["filled"].items()),
        "notes": _several(facts.get("notes", ())),
    }
    lines = [printable(facts["name"])]
    for label, text in entries.items():
        if text:
            lines += _wrapped(label, text)
    return lines + _channel_lines(facts)


def plate_picture(facts: Mapping[str, Any]) -> list[str]:
    """The plate as rows and columns, one character per well, and what the characters mean."""
    states = _states(facts)
    positions = {well_position(well): state for well, state in states.items()}
    if not positions:
        return []
    most_row, most_column = (max(position[axis] for position in positions) for axis in (0, 1))
    rows, columns = next(size for size in _FORMATS if most_row <= size[0] and most_column <= size[1])
    # Three characters per well where they fit, one for 1536 wells.
    step = 3 if columns <= 24 else 1
    lines = ["", *_column_heads(columns, step)]
    for row in range(1, rows + 1):
        wells = "".join(
            positions.get((row, column), _NOTHING).rjust(step) for column in range(1, columns + 1)
        )
        lines.append(f"  {well_name(row, 1)[:-2]:>2} {wells}")
    counts = Counter(
        positions.get((row, column), _NOTHING)
        for row in range(1, rows + 1)
        for column in range(1, columns + 1)
    )
    legend = [f"{mark} {meaning} ({counts[mark]})" for mark, meaning in _MEANINGS.items() if counts[mark]]
    return [
        *lines,
        "",
        *textwrap.wrap("   ".join(legend), WIDTH, initial_indent="     ", subsequent_indent="     "),
    ]


def _states(facts: Mapping[str, Any]) -> dict[str, str]:
    counts: Mapping[str, int] = facts["fields_per_well"]
    most = max(counts.values(), default=0)
    states = {unit.partition("/")[0]: _SKIPPED for unit in facts["skipped"]}
    states |= {well: _COMPLETE if count == most else _FEWER for well, count in counts.items()}
    return states | {field.partition("/")[0]: _FILLED for field in facts["filled"]}


def _column_heads(columns: int, step: int) -> list[str]:
    numbers = range(1, columns + 1)
    if step > 1:
        return ["     " + "".join(f"{number:>{step}}" for number in numbers)]
    tens = "".join(str(number // 10) if number % 10 == 0 else " " for number in numbers)
    return [f"     {tens}", "     " + "".join(str(number % 10) for number in numbers)]


def _stored(facts: Mapping[str, Any]) -> str:
    codec = f", {facts['codec']}" if facts.get("codec") else ""
    return f"{_bytes(facts['bytes'])}{codec}" if facts["bytes"] else ""


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _platemap(facts: Mapping[str, Any]) -> str:
    columns = facts["platemap_columns"]
    if not columns:
        return ""
    controls = [f"{count} {kind} wells" for kind, count in facts["controls"].items()]
    names = ", ".join(name.removeprefix("Metadata_") for name in columns)
    return ", ".join([f"{facts['perturbations']} perturbations", *controls]) + f"; columns: {names}"


def _several(lines: Iterable[str], shown: int = 4) -> str:
    entries = list(lines)
    more = f"; and {len(entries) - shown} more" if len(entries) > shown else ""
    return "; ".join(entries[:shown]) + more


def _channel_lines(facts: Mapping[str, Any]) -> list[str]:
    heads = ["channel", "ex nm", "em nm", "0.1 %", "1 %", "50 %", "99 %", "99.9 %"]
    rows = []
    for channel in facts["channels"]:
        light = facts["wavelengths"].get(channel, {})
        levels = facts["percentiles"].get(channel, {})
        numbers = [light.get("excitation_nm"), light.get("emission_nm")]
        numbers += [levels.get(key) for key in ("0.1", "1", "50", "99", "99.9")]
        rows.append(
            [printable(channel)[:24], *("" if number is None else f"{number:g}" for number in numbers)]
        )
    used = [column for column in range(len(heads)) if column == 0 or any(row[column] for row in rows)]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in used]
    return ["", *(_columns([row[column] for column in used], widths) for row in (heads, *rows))]


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        f"{cell:<{width}}" if number == 0 else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  " + "  ".join((first, *others)).rstrip()


def _wrapped(label: str, text: str) -> list[str]:
    indent = " " * (_LABEL + 2)
    return textwrap.wrap(
        printable(text), WIDTH, initial_indent=f"  {label:<{_LABEL}}", subsequent_indent=indent
    )


def _print_in_colours(lines: Sequence[str], picture: Sequence[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text(line, style="" if line.startswith(" ") else "bold"))
    for line in picture:
        text = Text(line)
        for mark in _MARK.finditer(line):
            text.stylize(_STYLES[mark[0]], *mark.span())
        console.print(text)
