"""A pattern for names nobody knows: a guess from the names themselves, offered only if it fits them all."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.readers.pattern import compile_pattern
from cellvim.store import parse_well

_SEPARATORS = re.compile(r"([_\-. ]+)")
_NUMBERED = re.compile(r"([A-Za-z]*?)(\d{1,6})")
# Letters before a number that say what it counts, and so are no row of a plate.
_FIELDS, _CHANNELS = ("s", "f", "site", "field", "fov", "xy"), ("w", "c", "ch", "channel")
_MOST_NAMES = 20_000


@dataclass(frozen=True)
class _Column:
    """The same part of every name: letters that all have in common, and what differs."""

    prefix: str
    values: tuple[str, ...]

    @property
    def varies(self) -> bool:
        return len(set(self.values)) > 1

    @property
    def is_number(self) -> bool:
        return all(value.isdecimal() and value.isascii() for value in self.values)

    def follows_from(self, other: "_Column") -> bool:
        return len(set(zip(self.values, other.values, strict=True))) == len(set(other.values))


def suggest_pattern(paths: Sequence[Path]) -> str | None:
    """Guess a pattern from all names of a folder; None unless it tells them all apart.

    ``B7_01_1_3_DAPI_001.tif`` and its like become ``{well}_{}_{}_{field}_{channel}_{}.tif``.
    """
    named = paths[:_MOST_NAMES]
    pieces = [_SEPARATORS.split(path.stem) for path in named]
    if not pieces or len({tuple(parts[1::2]) for parts in pieces}) != 1:
        return None
    columns = [_column(values) for values in zip(*(parts[::2] for parts in pieces), strict=True)]
    roles = _roles(columns)
    if roles is None:
        return None
    words = [_word(column, roles.get(number)) for number, column in enumerate(columns)]
    ending = ".tif" if named[0].suffix.lower() in (".tif", ".tiff") else named[0].suffix
    name = "".join(word + gap for word, gap in zip(words, [*pieces[0][1::2], ending], strict=True))
    return next((each for each in (name, f"{{plate}}/{name}") if _fits(each, named)), None)


def _column(values: Sequence[str]) -> _Column:
    matches = [_NUMBERED.fullmatch(value) for value in values]
    prefixes = {match[1].lower() for match in matches if match}
    if all(matches) and len(prefixes) == 1 and (len(prefix := prefixes.pop()) != 1 or prefix in "sfwc"):
        return _Column(matches[0][1] if matches[0] else prefix, tuple(match[2] for match in matches if match))
    return _Column("", tuple(values))


def _roles(columns: Sequence[_Column]) -> dict[int, str] | None:
    """Find which columns are the well, the channel and the field; None without a well."""
    roles = _wells(columns)
    if not roles:
        return None
    places = list(zip(*(columns[number].values for number in roles), strict=True))
    well = _Column("", tuple(map("/".join, places)))
    free = {
        number: column
        for number, column in enumerate(columns)
        if number not in roles
        and column.varies
        and not (column.follows_from(well) and well.follows_from(column))
    }
    channel = _channel(free)
    if channel is not None:
        roles[channel] = "channel"
        free = {
            number: column for number, column in free.items() if not column.follows_from(columns[channel])
        }
    numbers = [number for number, column in free.items() if column.is_number]
    fields = [number for number in numbers if columns[number].prefix.lower() in _FIELDS] or numbers
    return roles | ({fields[0]: "field"} if fields else {})


def _wells(columns: Sequence[_Column]) -> dict[int, str]:
    wells = [
        number for number, column in enumerate(columns) if not column.prefix and _all_wells(column.values)
    ]
    if wells:
        return {max(wells, key=lambda number: len(set(columns[number].values))): "well"}
    for number, (row, column) in enumerate(pairwise(columns)):
        is_row = not row.prefix and all(
            re.fullmatch(r"A[A-F]|[A-Z]", value, re.IGNORECASE) for value in row.values
        )
        if is_row and column.is_number and _all_wells(f"A{value}" for value in column.values):
            return {number: "row", number + 1: "column"}
    return {}


def _all_wells(values: Iterable[str]) -> bool:
    try:
        return all(parse_well(value) for value in set(values))
    except InputError:
        return False


def _channel(free: Mapping[int, _Column]) -> int | None:
    """Words before numbers that are said to be channels, before any numbers; then the column of fewest values."""
    words = [number for number, column in free.items() if not column.is_number]
    said = [number for number, column in free.items() if column.prefix.lower() in _CHANNELS]
    others = [number for number, column in free.items() if column.prefix.lower() not in _FIELDS]
    chosen = words or said or (others if len(free) > 1 else [])
    return min(chosen, key=lambda number: len(set(free[number].values)), default=None)


def _word(column: _Column, role: str | None) -> str:
    return "{}" if role is None else f"{column.prefix}{{{role}}}"


def _fits(pattern: str, paths: Sequence[Path]) -> bool:
    expression, depth = compile_pattern(pattern), pattern.count("/") + 1
    found = [expression.fullmatch("/".join(path.parts[-depth:])) for path in paths]
    return all(found) and len({match.groups() for match in found if match}) == len(paths)
