"""Any naming scheme, described by the user: ``{plate}/{well}_{field}_{channel}.tif``."""

import re
from itertools import takewhile
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError, UsageError
from cellvim.ingest.readers.pattern_pages import with_pages
from cellvim.ingest.sources import IMAGE_SUFFIXES, Plane, Source, SourcePlate, list_files, some
from cellvim.store import FieldKey, parse_well, safe_name, well_name
from cellvim.store.naming import COLUMN_EXPRESSION, ROW_EXPRESSION

_EXPRESSIONS = {
    "plate": r"[^/]+?",
    "well": rf"{ROW_EXPRESSION}[-_]?{COLUMN_EXPRESSION}",
    "row": rf"{ROW_EXPRESSION}|0?[1-9]|[12]\d|3[0-2]",
    "column": COLUMN_EXPRESSION,
    "field": r"\d{1,6}",
    "channel": r"[^/]+?",
    "z": r"\d{1,6}",
    "t": r"\d{1,6}",
}
_HINT = (
    "a pattern looks like '{plate}/{well}_{field}_{channel}.tif'; its fields are "
    f"{', '.join(_EXPRESSIONS)}, and {{}} for what does not matter"
)
_MOST_FIELDS = 24
_MOST_TRIED = 100
_ANY_TEXT = frozenset({"{}", "{plate}", "{channel}", ""})
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
_TIFF = re.compile(r"\.tiff?$", re.IGNORECASE)


class PatternReader:
    """Reads a folder whose file names follow `--pattern`."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        return None if settings.pattern is None else f"pattern {settings.pattern}"

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        folder = source.folder
        if settings.pattern is None:
            found = "the pattern reader needs a pattern"
            raise UsageError(found, hint=_HINT)
        pattern = settings.pattern.replace("\\", "/")
        expression = compile_pattern(pattern)
        files = source.files(_endings(pattern))
        matches = [(path, match_path(expression, pattern, path.relative_to(folder))) for path in files]
        plates: dict[str, list[Plane]] = {}
        for path, match in matches:
            if match is not None:
                plane, plate = _plane_of(path, match)
                plates.setdefault(plate or settings.plate or folder.resolve().name, []).append(plane)
        if not plates:
            _refuse(folder, pattern, [path.relative_to(folder) for path in files])
        evidence = f"pattern {pattern}: matches {sum(map(len, plates.values()))} of {len(files)} files"
        told = frozenset(expression.groupindex)
        return [
            with_pages(SourcePlate(safe_name(name), folder, evidence, tuple(planes), barcode=name), told)
            for name, planes in sorted(plates.items())
        ]


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn a pattern with forward slashes into a regular expression over such paths; case does not matter.

    Each field is matched as shortly as the rest allows; a field named twice must match the same text twice. ``.tif``
    stands for ``.tiff`` as well, and is meant where a pattern has no ending.

    Raises:
        UsageError: Unknown field, unbalanced braces, or no way to tell the well.
    """
    return re.compile("".join(expression for _, expression in _pieces(pattern)), re.IGNORECASE)


def match_path(expression: re.Pattern[str], pattern: str, path: Path) -> re.Match[str] | None:
    """Match the end of a path: as many folders as the pattern has, and the file name."""
    depth = pattern.count("/") + 1
    return expression.fullmatch("/".join(path.parts[-depth:]))


def _pieces(pattern: str) -> list[tuple[str, str]]:
    """Literals and fields in turn: each as it is written, and as a regular expression."""
    literals, names = _split(pattern)
    pieces = [(literals[0], re.escape(literals[0]))]
    seen: set[str] = set()
    for name, literal in zip(names, literals[1:], strict=True):
        if not name:
            pieces.append(("{}", r"[^/]*?"))
        elif name in seen:
            pieces.append((f"{{{name}}}", f"(?P={name})"))
        else:
            pieces.append((f"{{{name}}}", f"(?P<{name}>{_EXPRESSIONS[name]})"))
            seen.add(name)
        pieces.append((literal, re.escape(literal)))
    if "well" not in seen and not {"row", "column"} <= seen:
        found = f"pattern {pattern!r} does not tell the well"
        raise UsageError(found, hint="add {well}, or {row} and {column}")
    if _endings(pattern) == IMAGE_SUFFIXES and not pattern.endswith("{}"):
        stem = _TIFF.sub("", literals[-1])
        pieces[-1] = (f"{stem}.tif", re.escape(stem) + r"\.tiff?")
    return pieces


def _endings(pattern: str) -> frozenset[str]:
    """Endings of the files that a pattern means: TIFFs, unless it says otherwise."""
    ending = _ENDING.search(pattern)
    return frozenset({ending[0].lower()}) if ending and not _TIFF.search(pattern) else IMAGE_SUFFIXES


def _split(pattern: str) -> tuple[list[str], list[str]]:
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    literals, names = pieces[::2], [name.strip().lower() for name in pieces[1::2]]
    if any(brace in literal for literal in literals for brace in "{}"):
        found = f"pattern {pattern!r} has a brace without its partner"
        raise UsageError(found, hint=_HINT)
    unknown = [name for name in names if name and name not in _EXPRESSIONS]
    if unknown:
        found = f"pattern {pattern!r} has an unknown field {{{unknown[0]}}}"
        raise UsageError(found, hint=_HINT)
    if len(names) > _MOST_FIELDS:
        found = f"pattern has {len(names)} fields, at most {_MOST_FIELDS} are allowed"
        raise UsageError(found, hint=_HINT)
    return literals, names


def _plane_of(path: Path, match: re.Match[str]) -> tuple[Plane, str | None]:
    groups = match.groupdict()
    well = parse_well(groups["well"] if groups.get("well") else _well_from_parts(groups))
    z, t = (int(groups[name]) if groups.get(name) else None for name in ("z", "t"))
    key = FieldKey(well, int(groups.get("field") or 1))
    return Plane(path, key, groups.get("channel") or "1", z=z, t=t), groups.get("plate")


def _well_from_parts(groups: dict[str, str | None]) -> str:
    row, column = str(groups["row"]), str(groups["column"])
    if row.isdigit():
        return well_name(int(row), int(column))
    return row + column


def _refuse(folder: Path, pattern: str, tried: list[Path]) -> None:
    if not tried:
        ending = "".join(sorted(_endings(pattern))[:1])
        others = list_files(folder)
        there = f"; other images there: {some([path.name for path in others])}" if others else ""
        found = f"{folder} holds no *{ending} files{there}"
        raise InputError(found, hint="name the folder that holds the images, and check the pattern's ending")
    stops = [where_it_stops(pattern, path) for path in tried[:_MOST_TRIED]]
    path, prefix, expected = max(stops, key=lambda stop: len(stop[1]))
    fits = f"{path!r} fits as far as {prefix!r}" if prefix else f"{path!r} does not begin so"
    found = (
        f"pattern {pattern!r} matches none of the {len(tried)} files in {folder}; tried {some(tried)}; "
        f"{fits}, where {expected} was expected"
    )
    raise InputError(found, hint=_HINT)


def where_it_stops(pattern: str, path: Path) -> tuple[str, str, str]:
    """Find how far a pattern fits a path: the path as it was tried, the part that fits, and what had to follow."""
    pieces = _pieces(pattern)
    tried = "/".join(path.parts[-pattern.count("/") - 1 :])
    fits, rest = "", pieces
    for count in range(len(pieces), 0, -1):
        match = re.match("".join(expression for _, expression in pieces[:count]), tried, re.IGNORECASE)
        # A field of any text fits somewhat everywhere: what counts is the text around it.
        if match is not None and pieces[count - 1][0] not in _ANY_TEXT:
            fits, rest = match[0], pieces[count:]
            break
    expected = [shown for shown, _ in rest if shown] or ["the end"]
    pairs = zip(expected[0].lower(), tried[len(fits) :].lower(), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return tried, tried[: len(fits) + same], expected[0][same:] + "".join(expected[1:2])
