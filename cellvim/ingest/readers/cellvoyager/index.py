"""The .mlf of Yokogawa instruments: one line per image, and one for everything that went wrong.

Source:
    Measurements of CV7000, CV8000 and CQ1 instruments: XML of the namespace ``BTSSchema/1.0``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

from defusedxml.sax import make_parser

from cellvim.errors import InputError
from cellvim.ingest.readers.xml_pieces import Pieces

MOST_INDEX_BYTES = 4 << 30
HINT = "copy it again from the instrument"
_CHUNK_BYTES = 1 << 16
# The longest path of Windows, with room.
_MOST_TEXT = 1 << 16
_MOST_DEPTH = 32


@dataclass(slots=True)
class Record:
    """One line of the .mlf: an image, or what went wrong.

    Attributes:
        kind: ``IMG``, ``ERR`` or something newer.
        row: From 1, as all numbers here; None where the record has no such number.
        projection: How the instrument made one plane of several, for example ``Maximum``; empty for a plane.
        text: The image's path, in the style of Windows or not; or the error.
    """

    kind: str
    row: int | None
    column: int | None
    site: int | None
    channel: int | None
    z: int | None
    t: int | None
    tile: int | None
    projection: str
    time: str
    text: str


def read_records(path: Path) -> Iterator[Record]:
    """Stream a .mlf, which may have millions of lines: a piece of it is in memory at a time.

    Raises:
        InputError: Not a .mlf, too large, or damaged.
    """
    size = path.stat().st_size
    if size > MOST_INDEX_BYTES:
        found = f"{path} is larger than {MOST_INDEX_BYTES >> 20:,} MiB"
        raise InputError(found, hint="ingest one measurement at a time")
    handler = _Handler(path)
    for _ in _pieces(path, handler):
        yield from handler.records
        handler.records.clear()


def whole(text: str) -> int | None:
    """Read a number that counts something; None if it is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


def iso_time(text: str) -> str | None:
    """Check a time and shorten it to microseconds; None if it is none."""
    try:
        return datetime.fromisoformat(text.strip()).isoformat() if text.strip() else None
    except ValueError:
        return None


def _pieces(path: Path, handler: "_Handler") -> Iterator[None]:
    """Feed a file to the parser, piece by piece."""
    parser = make_parser()
    parser.forbid_dtd = True
    parser.setContentHandler(handler)
    try:
        with path.open("rb") as file:
            # The library makes its expat with the first piece, were it empty.
            parser.feed(b"")
            pieces = Pieces(file, cast("Any", parser)._parser)
            while piece := pieces.read(_CHUNK_BYTES):
                parser.feed(piece)
                yield
        parser.close()
    except InputError:
        raise
    except SAXParseException as error:
        found = f"{path} is not readable: line {error.getLineNumber()}: {error.getMessage()}"
        raise InputError(found, hint=HINT) from error
    except (OSError, LookupError, ValueError) as error:
        # LookupError: no such encoding. ValueError: one of several bytes per letter, or what defusedxml forbids.
        found = f"{path} is not readable: {error}"
        raise InputError(found, hint=HINT) from error
    yield


class _Handler(ContentHandler):
    """Collects records; `records` is emptied by its reader."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.records: list[Record] = []
        self._path = path
        self._depth = 0
        self._values: dict[str, str] | None = None
        self._text: list[str] = []
        self._length = 0

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802 - the library's name
        self._depth += 1
        kind = _local(name)
        if self._depth == 1 and kind != "MeasurementData":
            found = f"{self._path} is no file of a Yokogawa instrument: it holds {kind!r}, expected MeasurementData"
            raise InputError(found, hint=HINT)
        if self._depth > _MOST_DEPTH:
            found = f"{self._path} holds elements in elements, {_MOST_DEPTH} deep, expected a list of records"
            raise InputError(found, hint=HINT)
        if self._depth == 2 and kind == "MeasurementRecord":
            self._values = {_local(key): value.strip() for key, value in attrs.items()}
            self._text, self._length = [], 0

    def characters(self, content: str) -> None:
        if self._values is None or self._depth != 2:
            return
        self._length += len(content)
        if self._length > _MOST_TEXT:
            found = f"{self._path} names an image in more than {_MOST_TEXT:,} letters"
            raise InputError(found, hint=HINT)
        self._text.append(content)

    def endElement(self, name: str) -> None:  # noqa: ARG002, N802 - the library's name
        self._depth -= 1
        if self._depth == 1 and self._values is not None:
            self.records.append(_record(self._values, "".join(self._text).strip(), self._path))
            self._values = None


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _record(values: dict[str, str], text: str, path: Path) -> Record:
    def number(name: str) -> int | None:
        value = values.get(name)
        found = whole(value) if value is not None else None
        if value is not None and found is None:
            message = f"{path}: the record of {text!r} has {name} {value!r}, expected a number"
            raise InputError(message, hint=HINT)
        return found

    return Record(
        kind=values.get("Type", "IMG"),
        row=number("Row"),
        column=number("Column"),
        site=number("FieldIndex"),
        channel=number("Ch"),
        z=number("ZIndex"),
        t=number("TimePoint"),
        tile=number("PartialTileIndex"),
        projection=values.get("ZImageProcessing", ""),
        time=values.get("Time", ""),
        text=text,
    )
