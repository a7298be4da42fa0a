"""Any naming scheme, described by the user: ``{plate}/{well}_{field}_{channel}.tif``."""

import re
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError, UsageError
from cellvim.ingest.sources import Plane, Source, SourcePlate, list_files, some
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
        files = source.files(frozenset({Path(pattern).suffix.lower()}))
        plates: dict[str, list[Plane]] = {}
        for path in files:
            match = match_path(expression, pattern, path.relative_to(folder))
            if match is not None:
                plane, plate = _plane_of(path, match)
                plates.setdefault(plate or settings.plate or folder.resolve().name, []).append(plane)
        if not plates:
            _refuse(folder, pattern, [path.relative_to(folder) for path in files])
        matched = sum(map(len, plates.values()))
        return [
            SourcePlate(
                name=safe_name(name),
                folder=folder,
                evidence=f"pattern {pattern}: matches {matched} of {len(files)} files",
                planes=tuple(planes),
            )
            for name, planes in sorted(plates.items())
        ]


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn a pattern with forward slashes into a regular expression over such paths; case does not matter.

    Each field is matched as shortly as the rest allows; a field named twice must match the same text twice.

    Raises:
        UsageError: Unknown field, unbalanced braces, or no way to tell the well.
    """
    literals, names = _split(pattern)
    parts = [re.escape(literals[0])]
    seen: set[str] = set()
    for name, literal in zip(names, literals[1:], strict=True):
        if not name:
            parts.append(r"[^/]*?")
        elif name in seen:
            parts.append(f"(?P={name})")
        else:
            parts.append(f"(?P<{name}>{_EXPRESSIONS[name]})")
            seen.add(name)
        parts.append(re.escape(literal))
    if "well" not in seen and not {"row", "column"} <= seen:
        found = f"pattern {pattern!r} does not tell the well"
        raise UsageError(found, hint="add {well}, or {row} and {column}")
    return re.compile("".join(parts), re.IGNORECASE)


def match_path(expression: re.Pattern[str], pattern: str, path: Path) -> re.Match[str] | None:
    """Match the end of a path: as many folders as the pattern has, and the file name."""
    depth = pattern.count("/") + 1
    return expression.fullmatch("/".join(path.parts[-depth:]))


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
        suffix = Path(pattern).suffix
        others = list_files(folder)
        ending = f"; other images there: {some([path.name for path in others])}" if others else ""
        found = f"{folder} holds no *{suffix} files{ending}"
        raise InputError(found, hint="name the folder that holds the images, and check the pattern's ending")
    found = f"pattern {pattern!r} matches none of the {len(tried)} files in {folder}; tried {some(tried)}"
    raise InputError(found, hint=_HINT)
