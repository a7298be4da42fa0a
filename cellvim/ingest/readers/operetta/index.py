"""The index of a Harmony measurement: its plate, its channels and the place of every image.

An index may be hundreds of megabytes. It is parsed as it streams by, and only what is asked for is kept: no tree
of elements is built, so nesting, repetition and long texts cost no memory.

Source:
    Indexes of Harmony 4 to 7 as read by Bio-Formats (OperettaReader). Harmony 4 and 5 describe the channel in each
    image; from 6 on it is said once, in an `Entry` of one of several `Map` elements, and each image refers to it.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import XMLParser

from cellvim.errors import InputError
from cellvim.ingest.readers.xml_pieces import Pieces
from cellvim.ingest.sources import MOST_FILES
from cellvim.store import FieldKey, well_name

MOST_INDEX_BYTES = 2 << 30
_MOST_TEXT = 4096
_MOST_DEPTH = 64
_CHUNK_BYTES = 1 << 16

_FACTS = frozenset(
    (
        *("ChannelName", "ImageResolutionX", "ImageResolutionY"),
        *("MainExcitationWavelength", "MainEmissionWavelength"),
    )
)
_PLACE = frozenset(("URL", "Row", "Col", "FieldID", "PlaneID", "TimepointID", "ChannelID"))
_WANTED: Mapping[str, frozenset[str]] = {
    "Plate": frozenset(("PlateID", "Name", "MeasurementStartTime")),
    "Entry": _FACTS,
    "Image": _FACTS | _PLACE | {"State", "ImageType"},
}


@dataclass(frozen=True, slots=True)
class IndexImage:
    """One image as the index places it.

    Attributes:
        url: File name, or path below the folder of images, as in the index or as Harmony would have named it.
        is_recorded: False if the index names no file.
        page: Page of a file that holds several; None if the file holds this image alone.
        z: Number of the plane, from 1.
        t: Number of the time point, from 0 or from 1.
        kind: ``Signal`` for what a camera saw.
    """

    url: str
    is_recorded: bool
    page: int | None
    key: FieldKey
    channel: str
    z: int
    t: int
    kind: str
    state: str


Facts = dict[str, dict[str, None]]
"""Name of an element to the distinct values that it has, in order of appearance."""


@dataclass
class Index:
    """What an index says.

    Attributes:
        plates: PlateID and Name of each plate; a measurement has one.
        declared: ``RRCC`` of every well chosen for the measurement.
        own_facts: Channel to what its images say.
        map_facts: Channel to what the maps say; counts where the images are silent.
    """

    path: Path
    plates: list[tuple[str, str]] = field(default_factory=list)
    started: str = ""
    declared: list[str] = field(default_factory=list)
    images: list[IndexImage] = field(default_factory=list)
    own_facts: dict[str, Facts] = field(default_factory=dict)
    map_facts: dict[str, Facts] = field(default_factory=dict)

    @property
    def channels(self) -> list[str]:
        """Channels that have images."""
        return list(self.own_facts)

    def values(self, channel: str, name: str) -> list[str]:
        """Distinct values of a channel's fact, the images' own if they have any."""
        for facts in (self.own_facts, self.map_facts):
            if found := facts.get(channel, {}).get(name):
                return list(found)
        return []


def parse_index(path: Path) -> Index:
    """Read an index of any Harmony version.

    Raises:
        InputError: Not an index, damaged, too large, or an image without a place.
    """
    collector = _Collector(path)
    parser = cast("_Parser", XMLParser(target=collector, forbid_dtd=True))
    collector.attach(parser.parser)
    try:
        with path.open("rb") as file:
            _refuse_huge(path, os.fstat(file.fileno()).st_size)
            pieces = Pieces(file, parser.parser)
            while chunk := pieces.read(_CHUNK_BYTES):
                parser.feed(chunk)
        parser.close()
    except InputError:
        raise
    except (ParseError, LookupError, ValueError, OSError) as error:
        # LookupError: no such encoding. ValueError: one of several bytes per letter, or what defusedxml forbids.
        found = f"{path} is not a readable index: {error}"
        raise InputError(found, hint="copy it again from the instrument") from error
    return collector.index


def number_of(text: str) -> int:
    """A number from an index, not negative and of at most nine digits.

    Raises:
        ValueError: It is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        message = f"{text!r} is no number"
        raise ValueError(message)
    return int(text)


def _refuse_huge(path: Path, size: int) -> None:
    if size > MOST_INDEX_BYTES:
        found = f"{path} is larger than {MOST_INDEX_BYTES >> 30} GiB"
        raise InputError(found, hint="ingest one measurement at a time")


class _Parser(Protocol):
    """What defusedxml's parser offers, which is untyped."""

    parser: Any

    def feed(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class _Collector:
    """Sees every element begin and end, and keeps the texts of the few that matter."""

    def __init__(self, path: Path) -> None:
        self.index = Index(path)
        self._depth = 0
        self._local: dict[str, str] = {}
        # The Plate, Entry or Image that is open, and where; elements of elements are of no interest.
        self._record = ""
        self._value_depth = 0
        self._skipped_depth = 0
        self._key = ""
        self._values: dict[str, str] = {}
        self._unit = ""
        self._text: list[str] = []
        self._text_length = 0

    def attach(self, expat: Any) -> None:
        """Take the events from below the parser, which would make a tree of them; its guards stay where they are."""
        expat.StartElementHandler = self._start
        expat.EndElementHandler = self._end
        expat.CharacterDataHandler = self._data

    def _start(self, tag: str, attributes: list[str]) -> None:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            message = f"elements are nested more than {_MOST_DEPTH} deep"
            raise ValueError(message)
        # Every Harmony version has its own namespace.
        name = self._local.get(tag) or self._local.setdefault(tag, tag.rpartition("}")[2])
        if not self._record:
            self._open(name, attributes)
        elif self._depth == self._value_depth:
            self._open_value(name, attributes)

    def _data(self, text: str) -> None:
        if self._key and self._depth == self._value_depth:
            self._text.append(text)
            self._text_length += len(text)
            if self._text_length > _MOST_TEXT:
                message = f"{self._key} is longer than {_MOST_TEXT} letters"
                raise ValueError(message)

    def _end(self, tag: str) -> None:  # noqa: ARG002 - the parser gives it
        if self._depth == self._value_depth:
            if self._key:
                self._close_value()
        elif self._record and self._depth == self._value_depth - 1:
            self._keep()
        elif self._depth == self._skipped_depth:
            self._skipped_depth = 0
        self._depth -= 1

    def _open(self, name: str, attributes: Sequence[str]) -> None:
        if name == "Wells":
            # Its images are mere references to those of the list proper.
            self._skipped_depth = self._skipped_depth or self._depth
        elif name in _WANTED and not self._skipped_depth:
            self._record, self._value_depth = name, self._depth + 1
            self._values = {"@ChannelID": _attribute(attributes, "ChannelID")}

    def _open_value(self, name: str, attributes: Sequence[str]) -> None:
        if name in _WANTED[self._record]:
            self._key, self._text, self._text_length = name, [], 0
            if name.startswith("ImageResolution"):
                self._unit = " " + _attribute(attributes, "Unit")
            else:
                self._unit = ""
            if name == "URL" and attributes:
                self._values["@BufferNo"] = _attribute(attributes, "BufferNo")
        elif name == "Well" and attributes:
            self.index.declared.append(_attribute(attributes, "id"))

    def _close_value(self) -> None:
        text = " ".join("".join(self._text).split())
        if text:
            self._values.setdefault(self._key, text + self._unit)
        self._key = ""

    def _keep(self) -> None:
        values = self._values
        if self._record == "Image":
            if len(self.index.images) >= MOST_FILES:
                found = f"{self.index.path} names more than {MOST_FILES:,} images"
                raise InputError(found, hint="ingest one measurement at a time")
            image = _image(values, self.index.path)
            self.index.images.append(image)
            _collect(self.index.own_facts, image.channel, values)
        elif self._record == "Entry":
            _collect(self.index.map_facts, _channel(values["@ChannelID"]), values)
        else:
            self.index.plates.append((values.get("PlateID", ""), values.get("Name", "")))
            self.index.started = self.index.started or values.get("MeasurementStartTime", "")
        self._record, self._value_depth = "", 0


def _attribute(attributes: Sequence[str], name: str) -> str:
    """Value of an attribute in a flat list of names and values; empty if it is not there."""
    return next((attributes[at + 1] for at in range(0, len(attributes), 2) if attributes[at] == name), "")


def _collect(facts: dict[str, Facts], channel: str, values: Mapping[str, str]) -> None:
    found = facts.setdefault(channel, {})
    for name in _FACTS:
        if name in values:
            found.setdefault(name, {})[values[name]] = None


def _image(values: Mapping[str, str], path: Path) -> IndexImage:
    url = values.get("URL", "")
    try:
        row, column, site = (number_of(values.get(name, "")) for name in ("Row", "Col", "FieldID"))
        page = number_of(values["@BufferNo"]) if values.get("@BufferNo") else None
        z, t = number_of(values.get("PlaneID", "1")), number_of(values.get("TimepointID", "0"))
        channel = _channel(values.get("ChannelID", "1"))
        name = f"r{row:02d}c{column:02d}f{site:02d}p{z:02d}-ch{channel}sk{t + 1}fk1fl1.tiff"
        return IndexImage(
            url=url or name,
            is_recorded=bool(url),
            page=page,
            key=_field_key(row, column, site),
            channel=channel,
            z=z,
            t=t,
            kind=sys.intern(values.get("ImageType", "Signal")),
            state=sys.intern(values.get("State", "Ok")),
        )
    except ValueError as error:
        found = f"{path}: image {url!r} has no usable row, column, field, plane or time point"
        raise InputError(found, hint="copy the index again from the instrument") from error


@lru_cache(maxsize=4096)
def _field_key(row: int, column: int, site: int) -> FieldKey:
    """The same object for all images of a field, of which there may be hundreds."""
    return FieldKey(well_name(row, column), site)


def _channel(text: str) -> str:
    """Key of a channel: archives pad its number in file names, indexes do not."""
    return sys.intern(str(int(text)) if text.isascii() and text.isdecimal() else text)
