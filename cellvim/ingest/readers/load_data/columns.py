"""Columns of a load_data.csv: which name images, which say where on the plate they belong."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.sources import some

_IMAGE = re.compile(r"(?:Image_)?(?P<kind>FileName|URL)_(?P<name>.+)", re.IGNORECASE)
# What pipelines made of the images, or need to read them: no images of cells.
_NO_IMAGE = re.compile(r"illum|mask|outline|object|label|segment|flat_?field", re.IGNORECASE)
# Lower case, without `Metadata_`, underscores and spaces; the first that is there counts.
_PLATES = ("plate", "platename", "plateid", "platebarcode", "assayplatebarcode", "barcode")
_WELLS = ("well", "wellposition", "wellid", "wellname")
_ROWS, _COLUMNS = ("row", "wellrow"), ("col", "column", "wellcol", "wellcolumn")
_SITES = ("site", "field", "fieldid", "fieldindex", "siteid", "fov")
_DEPTHS = ("planeid", "z", "zplane", "plane", "zindex", "zslice", "zstep")
_TIMES = ("timepoint", "timepointid", "t")
_HINT = "a load_data.csv has columns such as FileName_OrigDNA, PathName_OrigDNA, Metadata_Well, Metadata_Site"
_MOST_COLUMNS = 4096


@dataclass(frozen=True)
class ImageColumn:
    """One channel: where its key, stain, file names, folders, pages and series of pages are."""

    key: str
    stain: str
    name: int
    folder: int | None
    frame: int | None
    series: int | None

    def text(self, cells: Sequence[str]) -> str | None:
        """Path of a row's image; None if the row has none."""
        name = cells[self.name]
        folder = "" if self.folder is None else cells[self.folder]
        if name.lower() in ("", "na", "nan", "none", "null"):
            return None
        return f"{folder.rstrip('/')}/{name}" if folder else name


@dataclass(frozen=True)
class Columns:
    """Positions of the columns that matter; None for those that are not there."""

    names: tuple[str, ...]
    images: tuple[ImageColumn, ...]
    plate: int | None
    well: int | None
    row: int | None
    column: int | None
    site: int | None
    z: int | None
    t: int | None
    notes: tuple[str, ...]

    def cell(self, index: int | None, cells: Sequence[str]) -> str:
        """Text of a cell, empty where there is no such column."""
        return "" if index is None else cells[index]


def image_names(head: Sequence[str]) -> list[str]:
    """Columns that name images of cells; none in the first line of a table of another kind."""
    return [
        name for name in head if (match := _IMAGE.fullmatch(name)) and not _NO_IMAGE.search(match["name"])
    ]


def find_columns(head: Sequence[str], path: Path) -> Columns:
    """Find what a table's columns mean.

    Raises:
        InputError: No column of images or of wells, or two of one name.
    """
    if len(head) > _MOST_COLUMNS:
        found = f"{path} has {len(head):,} columns"
        raise InputError(found, hint=_HINT)
    lower = [name.lower() for name in head]
    doubled = [name for name in dict.fromkeys(head) if name and lower.count(name.lower()) > 1]
    if doubled:
        found = f"{path} has several columns named {some(doubled)}"
        raise InputError(found, hint="name each channel once")
    images, skipped = _images(head)
    keys = [image.key.lower() for image in images]
    same = [image.key for image in images if keys.count(image.key.lower()) > 1]
    if same:
        found = f"{path} has several columns for channel {same[0]}"
        raise InputError(found, hint="name each channel once")
    plain = [name.removeprefix("metadata_").replace("_", "").replace(" ", "") for name in lower]
    find = {key: _first(plain, names) for key, names in _PLACES.items()}
    if not images or (find["well"] is None and None in (find["row"], find["column"])):
        what = "wells" if images else "images"
        found = f"{path} has no column of {what} (columns: {some(head, 12)})"
        raise InputError(found, hint=_HINT)
    notes = (f"columns skipped: {some(skipped, 12)}",) if skipped else ()
    return Columns(names=tuple(head), images=tuple(images), notes=notes, **find)


_PLACES = {
    "plate": _PLATES,
    "well": _WELLS,
    "row": _ROWS,
    "column": _COLUMNS,
    "site": _SITES,
    "z": _DEPTHS,
    "t": _TIMES,
}


def _images(head: Sequence[str]) -> tuple[list[ImageColumn], list[str]]:
    """Channels in the order of the table. Where some are called Orig, they alone are raw images."""
    matches = {index: match for index, name in enumerate(head) if (match := _IMAGE.fullmatch(name))}
    names = {index: match["name"] for index, match in matches.items() if not _NO_IMAGE.search(match["name"])}
    raw = {index: name for index, name in names.items() if name.lower().startswith("orig")} or names
    with_file = {name.lower() for index, name in raw.items() if matches[index]["kind"].lower() == "filename"}
    chosen = {
        index: name
        for index, name in raw.items()
        if matches[index]["kind"].lower() == "filename" or name.lower() not in with_file
    }
    position = {name.lower().removeprefix("image_"): index for index, name in enumerate(head)}
    images = [
        ImageColumn(
            key=_stain(name),
            stain=_stain(name),
            name=index,
            folder=position.get(f"pathname_{name.lower()}")
            if matches[index]["kind"].lower() == "filename"
            else None,
            frame=position.get(f"frame_{name.lower()}"),
            series=position.get(f"series_{name.lower()}"),
        )
        for index, name in chosen.items()
    ]
    return images, [head[index] for index in matches if index not in raw]


def _stain(name: str) -> str:
    stain = name[4:] if name.lower().startswith("orig") else name
    return stain.strip("_ ") or name


def _first(plain: Sequence[str], names: Sequence[str]) -> int | None:
    return next((plain.index(name) for name in names if name in plain), None)
