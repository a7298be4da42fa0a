"""The files in which Yokogawa instruments describe a measurement: .mlf (images), .mrf (measurement), .mes (channels).

Source:
    Measurements of CV7000, CV8000 and CQ1 instruments: XML of the namespace ``BTSSchema/1.0``.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import iterparse

from cellvim.errors import InputError
from cellvim.ingest.sources import Wavelengths

MOST_INDEX_BYTES = 2 << 30
_MOST_SETTING_BYTES = 8 << 20
# A record holds text and nothing else.
_MOST_INNER = 1000
_HINT = "copy it again from the instrument"
_BAND = re.compile(r"BP\s?(\d{3,4}(?:\.\d{1,3})?)\s?/", re.IGNORECASE)


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Detail:
    """What the .mrf says.

    Attributes:
        plate: The plate's own name, often a barcode.
        title: The measurement's name.
        began: ISO 8601.
        columns: Of the plate; 0 if it does not say.
        protocol: File name of the .mes.
        pixel_sizes_um: Channel key to width and height of a pixel.
    """

    plate: str = ""
    title: str = ""
    began: str | None = None
    columns: int = 0
    protocol: str = ""
    pixel_sizes_um: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """What the .mes says.

    Attributes:
        stains: Channel key to name.
        wavelengths: Channel key to its wavelengths.
        wells: Row and column of every well that was to be measured.
    """

    stains: Mapping[str, str] = field(default_factory=dict)
    wavelengths: Mapping[str, Wavelengths] = field(default_factory=dict)
    wells: tuple[tuple[int, int], ...] = ()


def read_records(path: Path) -> Iterator[Record]:
    """Stream a .mlf, which may have millions of lines.

    Raises:
        InputError: Not a .mlf, too large, or damaged.
    """
    depth = inner = 0
    root: Any = None
    for event, element in _elements(path, MOST_INDEX_BYTES):
        if event == "start":
            depth, inner = depth + 1, inner + 1
            if root is None:
                root = element
                _expect(element, "MeasurementData", path)
            if inner > _MOST_INNER:
                found = f"{path} holds more than {_MOST_INNER:,} elements in one record"
                raise InputError(found, hint=_HINT)
            continue
        depth -= 1
        if depth == 1:
            if _local(element.tag) == "MeasurementRecord":
                yield _record(element, path)
            # What has been read is let go of.
            root.clear()
            inner = 0


def read_detail(path: Path) -> Detail:
    """Read a .mrf.

    Raises:
        InputError: Not a .mrf, too large, or damaged.
    """
    sizes = {}
    plate = ""
    top: Mapping[str, str] = {}
    for element in _tree(path, "MeasurementDetail"):
        name, values = _local(element.tag), _attributes(element)
        if name == "MeasurementDetail":
            top = values
        elif name == "MeasurementSamplePlate":
            plate = values.get("Name", "")
        elif name == "MeasurementChannel" and (channel := whole(values.get("Ch", ""))) is not None:
            size = _pixel_size(values)
            if size:
                sizes[str(channel)] = size
    return Detail(
        plate=plate,
        title=top.get("Title", ""),
        began=iso_time(top.get("BeginTime", "")),
        columns=whole(top.get("ColumnCount", "")) or 0,
        protocol=top.get("MeasurementSettingFileName", ""),
        pixel_sizes_um=sizes,
    )


def read_protocol(path: Path) -> Protocol:
    """Read a .mes.

    Raises:
        InputError: Not a .mes, too large, or damaged.
    """
    lights: dict[str, float] = {}
    channels: dict[str, tuple[Mapping[str, str], list[str]]] = {}
    wells: dict[tuple[int, int], None] = {}
    for element in _tree(path, "MeasurementSetting"):
        name, values = _local(element.tag), _attributes(element)
        if name == "LightSource" and (light := _positive(values.get("WaveLength", ""))):
            lights[values.get("Name", "")] = light
        elif name == "TargetWell" and (element.text or "").strip().lower() == "true":
            row, column = whole(values.get("Row", "")), whole(values.get("Column", ""))
            if row is not None and column is not None:
                wells.setdefault((row, column))
        elif name == "Channel" and (channel := whole(values.get("Ch", ""))) is not None:
            used = [(child.text or "").strip() for child in element if _local(child.tag) == "LightSourceName"]
            channels.setdefault(str(channel), (values, used))
    stains = {
        key: values.get("Target") or values.get("Fluorophore") or "" for key, (values, _) in channels.items()
    }
    return Protocol(
        stains={key: stain for key, stain in stains.items() if stain},
        wavelengths={key: _wavelengths(values, used, lights) for key, (values, used) in channels.items()},
        wells=tuple(wells),
    )


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


def _tree(path: Path, root: str) -> Iterator[Any]:
    """Every element of a small file, inner ones first."""
    is_first = True
    for event, element in _elements(path, _MOST_SETTING_BYTES):
        if event == "end":
            yield element
        elif is_first:
            _expect(element, root, path)
            is_first = False


def _elements(path: Path, most_bytes: int) -> Iterator[tuple[str, Any]]:
    try:
        size = path.stat().st_size
        if size <= most_bytes:
            with path.open("rb") as file:
                yield from iterparse(file, events=("start", "end"), forbid_dtd=True)
    except (OSError, ParseError, LookupError, ValueError) as error:
        # LookupError: no such encoding. ValueError: one of several bytes per letter, or what defusedxml forbids.
        found = f"{path} is not readable: {error}"
        raise InputError(found, hint=_HINT) from error
    if size > most_bytes:
        found = f"{path} is larger than {most_bytes >> 20:,} MiB"
        raise InputError(found, hint="ingest one measurement at a time")


def _expect(element: Any, name: str, path: Path) -> None:
    if _local(element.tag) != name:
        found = (
            f"{path} is no file of a Yokogawa instrument: it holds {_local(element.tag)!r}, expected {name}"
        )
        raise InputError(found, hint=_HINT)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _attributes(element: Any) -> dict[str, str]:
    return {_local(name): value.strip() for name, value in element.attrib.items()}


def _record(element: Any, path: Path) -> Record:
    values = _attributes(element)
    text = (element.text or "").strip()
    numbers: dict[str, int | None] = {}
    for name in ("Row", "Column", "FieldIndex", "Ch", "ZIndex", "TimePoint", "PartialTileIndex"):
        numbers[name] = whole(values[name]) if name in values else None
        if name in values and numbers[name] is None:
            found = f"{path}: the record of {text!r} has {name} {values[name]!r}, expected a number"
            raise InputError(found, hint=_HINT)
    return Record(
        kind=values.get("Type", "IMG"),
        row=numbers["Row"],
        column=numbers["Column"],
        site=numbers["FieldIndex"],
        channel=numbers["Ch"],
        z=numbers["ZIndex"],
        t=numbers["TimePoint"],
        tile=numbers["PartialTileIndex"],
        projection=values.get("ZImageProcessing", ""),
        time=values.get("Time", ""),
        text=text,
    )


def _pixel_size(values: Mapping[str, str]) -> tuple[float, float] | None:
    x = _positive(values.get("HorizontalPixelDimension", ""))
    y = _positive(values.get("VerticalPixelDimension", "")) or x
    return (x, y) if x and y else None


def _wavelengths(values: Mapping[str, str], used: list[str], lights: Mapping[str, float]) -> Wavelengths:
    # With several light sources at once, none is the channel's.
    band = _BAND.search(values.get("Acquisition", ""))
    return Wavelengths(
        excitation_nm=lights.get(used[0]) if len(used) == 1 else None,
        emission_nm=float(band[1]) if band else None,
    )


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 < value < 1e5 else None
