"""Opera Phenix and Operetta (Harmony): Index.idx.xml in or beside the folder of images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import iterparse

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.sources import Plane, Source, SourcePlate, list_files, some
from cellvim.store import FieldKey, safe_name, well_name

INDEX_NAMES = ("index.idx.xml", "index.xml")
MOST_INDEX_BYTES = 2 << 30
_IMAGE_FIELDS = ("URL", "Row", "Col", "FieldID", "PlaneID", "TimepointID", "ChannelID")


@dataclass
class _Index:
    """What an index says, collected while it streams by: the file may be hundreds of megabytes."""

    plate: str = ""
    images: list[dict[str, str]] = field(default_factory=list)
    stains: dict[str, str] = field(default_factory=dict)
    pixel_sizes_m: set[float] = field(default_factory=set)


class OperettaReader:
    """Reads a Harmony measurement, as exported or as archived."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        indexes = find_indexes(source.folder)
        return f"Operetta: found {indexes[0].name}" if indexes else None

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        folder = source.folder
        evidence = self.recognise(source, settings)
        if evidence is None:
            found = f"{folder} holds no Index.idx.xml or Index.xml, and neither does the folder above"
            raise InputError(found, hint="name the folder of one measurement")
        return [_plate(path, folder, evidence) for path in find_indexes(folder)]


def find_indexes(folder: Path) -> list[Path]:
    """List the indexes below a folder; if there are none, the one beside it."""
    below = [path for path in list_files(folder, frozenset({".xml"})) if path.name.lower() in INDEX_NAMES]
    if not below:
        beside = sorted(folder.resolve().parent.iterdir())
        below = [path for path in beside if path.name.lower() in INDEX_NAMES and path.is_file()]
    # Harmony may leave both spellings in one folder: the first is the newer.
    return [path for path in below if path == next(other for other in below if other.parent == path.parent)]


def _plate(path: Path, folder: Path, evidence: str) -> SourcePlate:
    index = _parse(path)
    if not index.images:
        found = f"{path} names no images"
        raise InputError(found, hint="export the measurement again, with its images")
    locate = _Locator(path, folder)
    planes = tuple(_plane(image, path, locate) for image in index.images)
    named = {plane.path.name for plane in planes}
    folders = {plane.path.parent for plane in planes if plane.path.parent.is_dir()}
    images = [image for parent in sorted(folders) for image in list_files(parent)]
    strangers = [image.name for image in images if image.name not in named]
    size = index.pixel_sizes_m.pop() * 1e6 if len(index.pixel_sizes_m) == 1 else None
    return SourcePlate(
        name=safe_name(index.plate or path.parent.resolve().name),
        folder=folder,
        evidence=evidence,
        planes=planes,
        stains=index.stains,
        pixel_size_um=round(size, 9) if size else None,
        notes=(f"{len(strangers)} images are not in the index: {some(strangers)}",) if strangers else (),
    )


def _parse(path: Path) -> _Index:
    if path.stat().st_size > MOST_INDEX_BYTES:
        found = f"{path} is larger than {MOST_INDEX_BYTES >> 30} GiB"
        raise InputError(found, hint="ingest one measurement at a time")
    index = _Index()
    try:
        for tag, element in _elements(path):
            if tag == "Plate":
                index.plate = index.plate or _text(element, "PlateID") or _text(element, "Name")
            elif tag == "Entry":
                _collect_channel(index, element.get("ChannelID", ""), element)
            elif tag == "Image" and _text(element, "URL"):
                index.images.append({name: _text(element, name) for name in _IMAGE_FIELDS})
                _collect_channel(index, _text(element, "ChannelID"), element)
            if tag in {"Plate", "Entry", "Image", "Well"}:
                element.clear()
    except (ParseError, LookupError, ValueError) as error:
        # LookupError: no such encoding. ValueError: one of several bytes per letter, or what defusedxml forbids.
        found = f"{path} is not a readable index: {error}"
        raise InputError(found, hint="copy it again from the instrument") from error
    return index


def _elements(path: Path) -> Iterator[tuple[str, Any]]:
    """Stream elements by local name: every Harmony version has its own namespace."""
    with path.open("rb") as file:
        for _, element in iterparse(file, events=("end",), forbid_dtd=True):
            yield element.tag.rpartition("}")[2], element


def _text(element: Any, name: str) -> str:
    texts = (child.text or "" for child in element if child.tag.rpartition("}")[2] == name)
    return str(next(texts, "")).strip()


def _collect_channel(index: _Index, channel: str, element: Any) -> None:
    """Harmony 5 repeats a channel's name and pixel size in each image, Harmony 6 says them once in a map."""
    if stain := _text(element, "ChannelName"):
        index.stains.setdefault(channel, stain)
    try:
        size = float(_text(element, "ImageResolutionX"))
    except ValueError:
        return
    if math.isfinite(size) and size > 0:
        index.pixel_sizes_m.add(size)


class _Locator:
    """Finds the files an index names, and only inside the folders that belong to the measurement."""

    def __init__(self, index: Path, folder: Path) -> None:
        self._places = (index.parent, index.parent / "Images", folder)
        self._roots = (index.parent.resolve(), folder.resolve())

    def __call__(self, url: str) -> Path:
        relative = PureWindowsPath(url)
        candidates = [place.joinpath(*relative.parts) for place in self._places]
        path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
        is_inside = any(path.resolve().is_relative_to(root) for root in self._roots)
        if relative.anchor or ".." in relative.parts or not is_inside:
            found = f"the index names {url!r}, which lies outside of the measurement"
            raise InputError(found, hint="do not trust this index")
        return path


def _plane(image: dict[str, str], index: Path, locate: _Locator) -> Plane:
    try:
        key = FieldKey(well_name(int(image["Row"]), int(image["Col"])), int(image["FieldID"]))
        z, t = int(image["PlaneID"] or 1), int(image["TimepointID"] or 0)
    except ValueError as error:
        found = f"{index}: image {image['URL']!r} has no usable row, column, field, plane or time point"
        raise InputError(found, hint="copy the index again from the instrument") from error
    return Plane(locate(image["URL"]), key, image["ChannelID"] or "1", z=z, t=t)
