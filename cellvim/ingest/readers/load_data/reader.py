"""CellProfiler and JUMP: a load_data.csv that names every image of a plate, or of several."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.load_data.columns import Columns, ImageColumn, find_columns, image_names
from cellvim.ingest.readers.locate import Located, Locator, refuse_shared
from cellvim.ingest.readers.rows import read_head, read_rows
from cellvim.ingest.sources import MOST_FILES, Plane, Source, SourcePlate, some
from cellvim.store import FieldKey, parse_well, safe_name, well_name

TABLES = frozenset({".csv", ".gz", ".tsv", ".txt"})
_USUAL_NAME = re.compile(r"load_data.*\.csv(\.gz)?", re.IGNORECASE)
_INDEXES = frozenset({".htd", ".mlf", ".mes", ".mrf"})
_NUMBER = re.compile(r"[A-Za-z_ -]{0,12}0*(\d{1,6})(?:\.0+)?")
_NOTHING = frozenset({"", "na", "nan", "none", "null"})
_HINT = "correct the table, or describe the image names with --pattern"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image as its table names it; the plane but for where its file lies."""

    text: str
    field: FieldKey
    channel: str
    z: int | None
    t: int | None
    part: tuple[int, ...]


class LoadDataReader:
    """Reads the tables that CellProfiler's LoadData reads."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        tables, _ = find_tables(source)
        if not tables:
            return None
        names = some(image_names(read_head(tables[0])), 8)
        return f"load_data: found {some([path.name for path in tables])} with {names}"

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        tables, left = find_tables(source)
        if not tables:
            found = f"{source.path} is no table with columns FileName_* or URL_*, and holds none"
            raise InputError(found, hint="name a load_data.csv, or the folder that holds it")
        evidence = self.recognise(source, settings) or ""
        plates: dict[str, list[Plane]] = {}
        notes: dict[str, list[str]] = {}
        stains: dict[str, str] = {}
        for table in tables:
            content = _read_table(table, source)
            stains.update(content.stains)
            for name, planes in content.plates.items():
                plates.setdefault(name, []).extend(planes)
                notes.setdefault(name, []).extend([*content.notes, *content.found_notes[name]])
        refuse_shared(plates, tables[0])
        skipped = f"not read, as {tables[0].name} names the images: {some([path.name for path in left])}"
        unnamed = _unnamed(plates, source)
        return [
            SourcePlate(
                name=safe_name(name),
                folder=source.folder,
                evidence=evidence,
                planes=tuple(plates[name]),
                stains=stains,
                notes=tuple(dict.fromkeys([*notes[name], *([skipped] if left else []), *unnamed])),
                barcode=name,
                described_by=tuple(tables),
            )
            for name in sorted(plates)
        ]


def find_tables(source: Source) -> tuple[list[Path], list[Path]]:
    """Tables to be read, and those left out as others name the same images.

    Of a folder that also holds a vendor's index, only tables called load_data count. Never fails.
    """
    if source.path.is_file():
        is_table = source.path.suffix.lower() in TABLES and bool(image_names(read_head(source.path)))
        return ([source.path], []) if is_table else ([], [])
    named = [path for path in source.files(TABLES) if _USUAL_NAME.fullmatch(path.name)]
    usual = [path for path in named if image_names(read_head(path))]
    if usual:
        return _without_twins(usual)
    if source.files(_INDEXES) or any(
        p.name.lower().startswith("index.") for p in source.files(frozenset({".xml"}))
    ):
        return [], []
    beside = [path for path in source.files(TABLES) if path.parent == source.folder]
    return [path for path in beside[:20] if image_names(read_head(path))][:1], []


def _without_twins(tables: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """JUMP keeps load_data.csv and load_data_with_illum.csv of the same images in one folder."""
    plain = {path.parent for path in tables if path.name.lower().startswith("load_data.csv")}
    left = [
        path
        for path in tables
        if path.parent in plain
        and "illum" in path.name.lower()
        and not path.name.lower().startswith("load_data.csv")
    ]
    return [path for path in tables if path not in left], left


@dataclass(frozen=True)
class _Content:
    plates: Mapping[str, list[Plane]]
    stains: Mapping[str, str]
    notes: Sequence[str]
    found_notes: Mapping[str, Sequence[str]]


def _read_table(path: Path, source: Source) -> _Content:
    rows = read_rows(path)
    _, head = next(rows, (0, []))
    columns = find_columns(head, path)
    entries: dict[str, list[_Entry]] = {}
    fallback = path.resolve().parent.name
    for count, (line, cells) in enumerate(rows, start=1):
        place = f"{path} line {line}"
        if count * len(columns.images) > MOST_FILES:
            found = f"{path} names more than {MOST_FILES:,} images"
            raise InputError(found, hint="ingest one plate at a time")
        _refuse_ragged(cells, head, place)
        name = columns.cell(columns.plate, cells)
        plate = fallback if name.lower() in _NOTHING else name
        entries.setdefault(plate, []).extend(_entries(cells, columns, place))
    if not any(entries.values()):
        found = f"{path} names no images"
        raise InputError(found, hint=_HINT)
    texts = {entry.text for found in entries.values() for entry in found}
    located = Locator(source, path.parent).all_of(sorted(texts))
    plates = {name: _planes(found, located) for name, found in entries.items() if found}
    notes = _empty_channels(columns, entries)
    return _Content(
        plates,
        {image.key: image.stain for image in columns.images},
        [*columns.notes, *notes],
        {name: _notes(entries[name], located) for name in plates},
    )


def _refuse_ragged(cells: Sequence[str], head: Sequence[str], place: str) -> None:
    """A cell too many or too few means that the others stand in the wrong columns."""
    if len(cells) < len(head) or any(cells[len(head) :]):
        found = f"{place} has {len(cells)} cells, the head {len(head)}"
        raise InputError(found, hint="the table is damaged or cut off; copy it again")


def _entries(cells: Sequence[str], columns: Columns, place: str) -> Iterator[_Entry]:
    site = _number(cells, columns.site, columns, place)
    field = FieldKey(_well(cells, columns, place), 1 if site is None else site)
    z, t = (_number(cells, column, columns, place) for column in (columns.z, columns.t))
    for image in columns.images:
        text = image.text(cells)
        if text is not None:
            yield _Entry(text, field, image.key, z, t, _part(cells, image, columns, place))


def _part(cells: Sequence[str], image: ImageColumn, columns: Columns, place: str) -> tuple[int, ...]:
    """Page of an image in its file. Series are not counted in pages, so that only the first can be found."""
    if series := _number(cells, image.series, columns, place):
        found = f"{place} names series {series} of an image of {image.stain}, and only series 0 is read"
        raise InputError(found, hint="write one series per file")
    frame = _number(cells, image.frame, columns, place)
    return () if frame is None else (frame,)


def _well(cells: Sequence[str], columns: Columns, place: str) -> str:
    try:
        if columns.well is not None:
            return parse_well(columns.cell(columns.well, cells))
        row, column = (columns.cell(index, cells) for index in (columns.row, columns.column))
        if row.isdecimal() and column.isdecimal() and len(row) < 4 > len(column):
            return well_name(int(row), int(column))
        return parse_well(row + column)
    except InputError as error:
        found = f"{place}: {error.found}"
        raise InputError(found, hint=error.hint) from error


def _number(cells: Sequence[str], index: int | None, columns: Columns, place: str) -> int | None:
    """A site, depth or time, as bare as ``1`` or dressed as ``s01``; None where it is not counted."""
    text = columns.cell(index, cells)
    if index is None or (text.lower() in _NOTHING and index != columns.site):
        return None
    match = _NUMBER.fullmatch(text)
    if match is None or not text.isascii():
        found = f"{place}: {columns.names[index]} is {text[:80]!r}, expected a number"
        raise InputError(found, hint=_HINT)
    return int(match[1])


def _planes(entries: Sequence[_Entry], located: Mapping[str, Located]) -> list[Plane]:
    return [
        Plane(located[entry.text].path, entry.field, entry.channel, z=entry.z, t=entry.t, part=entry.part)
        for entry in entries
    ]


def _unnamed(plates: Mapping[str, Sequence[Plane]], source: Source) -> list[str]:
    """Count the images beside those that the tables name: a table of a part of a plate is not the plate."""
    if not source.path.is_dir():
        return []
    real = cache(Path.resolve)
    named = {real(plane.path.parent) / plane.path.name for planes in plates.values() for plane in planes}
    folders = {path.parent for path in named}
    others = [
        path.name
        for path in source.files()
        if (folder := real(path.parent)) in folders and folder / path.name not in named
    ]
    return [f"{len(others)} images are in no table: {some(others)}"] if others else []


def _empty_channels(columns: Columns, entries: Mapping[str, Sequence[_Entry]]) -> list[str]:
    filled = {entry.channel for found in entries.values() for entry in found}
    return [
        f"channel {image.stain} has no image in any row"
        for image in columns.images
        if image.key not in filled
    ]


def _notes(entries: Sequence[_Entry], located: Mapping[str, Located]) -> list[str]:
    """Say which images are named again, and which are not below the table's folder under the path that it gives."""
    kinds = Counter({"again": len(entries) - len(set(entries))})
    example: dict[str, str] = {}
    for text in sorted({entry.text for entry in entries}):
        found = located[text]
        kind = "" if found.is_as_named else "moved"
        kinds[kind] += 1
        example.setdefault(kind, f"{text} is {found.path}" if kind == "moved" else text)
    example["again"] = ""
    what = {
        "again": "images are named again, in another row",
        "moved": "images are not where the table says, and were found by the end of their path",
    }
    return [
        f"{kinds[kind]:,} {line}" + (f": {example[kind]}" if example[kind] else "")
        for kind, line in what.items()
        if kinds[kind]
    ]
