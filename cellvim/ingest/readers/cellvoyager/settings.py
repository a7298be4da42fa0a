"""The .mrf and .mes beside a measurement: welcome, but pixels do not depend on them."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

from cellvim.errors import InputError
from cellvim.ingest.readers.cellvoyager.index import HINT, iso_time, whole
from cellvim.ingest.readers.xml_pieces import iterparse
from cellvim.ingest.sources import Source, Wavelengths

_MOST_BYTES = 8 << 20
# The largest plates have 1536 wells, and each is named once for every sequence.
_MOST_ELEMENTS = 50_000
_BAND = re.compile(r"BP\s?(\d{3,4}(?:\.\d{1,3})?)\s?/", re.IGNORECASE)
# What the instrument writes where nobody gave the plate a name.
_NO_NAME = "noplateid"


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


@dataclass(frozen=True)
class Described:
    """What is known about a measurement beside its images.

    Attributes:
        files: The .mrf and the .mes, where they are.
        notes: Which of them are absent or damaged, and what that costs.
    """

    detail: Detail
    protocol: Protocol
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def describe(root: Path, source: Source) -> Described:
    """Read the .mrf and the .mes of the measurement in a folder. What is damaged becomes a note, not an error."""
    notes: list[str] = []
    details = _beside(root, source, ".mrf")
    named = [path for path in details if path.name.lower() == "measurementdetail.mrf"]
    details = (named or details)[:1]
    detail = _read(details, read_detail, Detail(), notes)
    if not details:
        notes.append("no MeasurementDetail.mrf: the pixel size is unknown")
    if detail.plate.lower() == _NO_NAME:
        detail = replace(detail, plate="")
    protocols = _beside(root, source, ".mes")
    wanted = PureWindowsPath(detail.protocol).name.lower()
    chosen = [path for path in protocols if path.name.lower() == wanted]
    if not chosen and len(protocols) > 1:
        notes.append(
            f"{len(protocols)} .mes files, none of them named by the .mrf: channels keep their numbers"
        )
    elif not protocols:
        notes.append("no .mes file: channels keep their numbers")
    chosen = chosen or (protocols if len(protocols) == 1 else [])
    protocol = _read(chosen, read_protocol, Protocol(), notes)
    return Described(detail, protocol, (*details, *chosen), tuple(notes))


def read_detail(path: Path) -> Detail:
    """Read a .mrf.

    Raises:
        InputError: Not a .mrf, too large, or damaged.
    """
    sizes = {}
    plate = ""
    top: Mapping[str, str] = {}
    for element in _elements(path, "MeasurementDetail"):
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
    for element in _elements(path, "MeasurementSetting"):
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


_Content = TypeVar("_Content", Detail, Protocol)


def _read(
    paths: list[Path], read: Callable[[Path], _Content], otherwise: _Content, notes: list[str]
) -> _Content:
    for path in paths:
        try:
            return read(path)
        except InputError as error:
            notes.append(f"left out: {error.found}")
    return otherwise


def _beside(root: Path, source: Source, suffix: str) -> list[Path]:
    return [path for path in source.files(frozenset({suffix})) if path.parent == root]


def _elements(path: Path, root: str) -> Iterator[Any]:
    """Every element of a file, inner ones first."""
    is_first = True
    for event, element in _events(path):
        if event == "end":
            yield element
        elif is_first:
            is_first = False
            if _local(element.tag) != root:
                found = f"{path} is no file of a Yokogawa instrument: it holds {_local(element.tag)!r}, expected {root}"
                raise InputError(found, hint=HINT)


def _events(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        size = path.stat().st_size
        if size <= _MOST_BYTES:
            with path.open("rb") as file:
                yield from _few(iterparse(file))
    except (OSError, ParseError, LookupError, ValueError) as error:
        # LookupError: no such encoding. ValueError: one of several bytes per letter, or what defusedxml forbids.
        found = f"{path} is not readable: {error}"
        raise InputError(found, hint=HINT) from error
    if size > _MOST_BYTES:
        found = f"{path} is larger than {_MOST_BYTES >> 20:,} MiB"
        raise InputError(found, hint=HINT)


def _few(events: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for count, event in enumerate(events):
        if count > 2 * _MOST_ELEMENTS:
            message = f"it holds more than {_MOST_ELEMENTS:,} elements"
            raise ValueError(message)
        yield event


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _attributes(element: Any) -> dict[str, str]:
    return {_local(name): value.strip() for name, value in element.attrib.items()}


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
